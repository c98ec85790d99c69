"""Keep a collection as this version writes it, for every later version to open: a .tar and its answers.

    python -m tests.danger.keep_collection 0.1.0

Six pictures are drawn; the collection of them is built as if they lay in /srv/pictures, which need not exist: paths and
times are then the same on every machine. What is kept is what `tests/danger/test_kept_collections.py` compares.

Rule: one that is kept is never written again: a version that cannot open it is broken, not the collection.
"""

import json
import os
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from indexer.catalog_upkeep import UpkeepCatalog
from indexer.collection import Collection
from indexer.layout import CATALOG
from tests.danger.oracle import list_files
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

KEPT = Path(__file__).parent / "collections"
PICTURES = Path("/srv/pictures")
MADE = 1_700_000_000
COUNT = 6


def main(version: str) -> None:
    """Write the two files of a version."""
    pixel_backbone.install()
    folder = KEPT / version
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as home:
        pictures, place = draw_pictures(Path(home) / "pictures"), Path(home) / "collection"
        build(place, pictures)
        with Collection(place) as collection:
            answers = read_answers(collection, pictures, pictures)
        with closing(UpkeepCatalog(place / CATALOG)) as catalog:
            catalog.relocate(pictures, PICTURES)
        with tarfile.open(folder / "collection.tar", "w") as tar:
            for file in list_files(place):
                tar.add(file, arcname=file.relative_to(place), filter=_forget_who)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


def draw_pictures(folder: Path) -> Path:
    """The pictures that every version is asked about; a broken one lies among them."""
    for seed in range(COUNT):
        draw(folder / f"{seed % 2}" / f"{seed}.png", seed)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for file in list_files(folder):
        os.utime(file, (MADE, MADE))
    return folder


def read_answers(collection: Collection, asked: Path, kept_at: Path) -> dict[str, list]:
    """File -> (file, similarity) of all its neighbours; and what failed. Names are those below the folders."""
    answers: dict[str, list] = {}
    for file in list_files(asked):
        if file.suffix == ".png":
            found = collection.find_similar(file.read_bytes(), count=COUNT)
            told = [[str(one.path.relative_to(kept_at)), round(one.similarity, 4)] for one in found]
            answers[str(file.relative_to(asked))] = told
    answers["failed"] = [str(failure.path.relative_to(kept_at)) for failure in collection.list_unsearchable()]
    return answers


def _forget_who(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = MADE
    return entry


if __name__ == "__main__":
    main(*sys.argv[1:])
