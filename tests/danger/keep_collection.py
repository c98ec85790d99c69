"""Keep a collection as this version writes it, for every later version to open: a .tar and its answers.

    python -m tests.danger.keep_collection 0.1.0
    python -m tests.danger.keep_collection 0.1.0-lived
    python -m tests.danger.keep_collection 0.1.0-approximate

Some pictures are drawn; the collection of them is built as if they lay in /srv/pictures, which need not exist: paths
and times are then the same on every machine. One whose name ends with -lived has been through more than one build; one
that ends with -approximate has pictures enough for an approximate index. What
is kept is what `tests/danger/test_kept_collections.py` compares. Those called -schema-1 and -schema-2 were made with
the code of before the catalog's second and third migration.

Rule: one that is kept is never written again: a version that cannot open it is broken, not the collection.
"""

import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

from indexer.catalog_upkeep import UpkeepCatalog
from indexer.collection import Collection
from indexer.layout import CATALOG, MARKS
from indexer.marks import RENEWED_SECONDS, Marks
from tests.danger.oracle import list_files
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

KEPT = Path(__file__).parent / "collections"
PICTURES = Path("/srv/pictures")
MADE = 1_700_000_000
COUNT, ALL = 6, 100
LIVED, APPROXIMATE = "-lived", "-approximate"
MANY = 40
ODD = os.fsdecode(b"1/\xff\xfe.png")
"""A name that is not UTF-8."""
TWIN, GONE = "1/twin of 3.png", "gone.png"
PASSED_OVER = ("passed-over", "*-raw.png")
QUERY = b"a picture that was searched with"


def main(name: str) -> None:
    """Write the two files of a kept collection."""
    pixel_backbone.install()
    folder = KEPT / name
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as home:
        pictures, place = draw_pictures(Path(home) / "pictures", name), Path(home) / "collection"
        make = {LIVED: live, APPROXIMATE: build_approximately}
        next((one for end, one in make.items() if name.endswith(end)), build)(place, pictures)
        with Collection(place) as collection:
            answers = read_answers(collection, pictures, pictures)
        with closing(UpkeepCatalog(place / CATALOG)) as catalog:
            catalog.relocate(pictures, PICTURES)
        with tarfile.open(folder / "collection.tar", "w") as tar:
            for file in list_files(place):
                tar.add(file, arcname=file.relative_to(place), filter=_forget_who)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


def draw_pictures(folder: Path, name: str) -> Path:
    """The pictures that a kept collection was made of in the end; a broken one lies among them."""
    for seed in range(MANY if name.endswith(APPROXIMATE) else COUNT):
        draw(folder / f"{seed % 2}" / f"{seed}.png", seed)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    if name.endswith(LIVED):
        draw(folder / ODD, 6)
        shutil.copy(folder / "1" / "3.png", folder / TWIN)
        draw(folder / "passed-over" / "7.png", 7)
        draw(folder / "0" / "8-raw.png", 8)
    for file in list_files(folder):
        os.utime(file, (MADE, MADE))
    return folder


def build_approximately(place: Path, pictures: Path) -> None:
    """With the index of a large collection."""
    with patch("indexer.fitting.LEAST_ROWS", 16):
        build(place, pictures, exact_ms=0.0, batch_size=16)
    assert (place / "generations" / "000001" / "index.faiss").is_file()


def live(place: Path, pictures: Path) -> None:
    """Two builds with one model, the second of which excludes some, one with another model, a picture that goes, and
    one that was searched with."""
    draw(pictures / GONE, 9)
    late = (pictures / ODD).rename(pictures.parent / "late.png")
    build(place, pictures, model="regnety-400mf")
    late.rename(pictures / ODD)
    build(place, exclude=PASSED_OVER)
    build(place, model="seer-mini")
    (pictures / GONE).unlink()
    build(place)
    with patch("time.time", return_value=time.time() - 2 * RENEWED_SECONDS):
        kept = Marks(place / MARKS).keep_query(QUERY, "query.png")
    Marks(place / MARKS).open_query(kept)  # used later than it was made


def read_answers(collection: Collection, asked: Path, kept_at: Path) -> dict[str, list]:
    """File -> (file, similarity) of all its neighbours; and what failed. Names are those below the folders."""
    answers: dict[str, list] = {}
    for file in list_files(asked):
        if file.suffix == ".png":
            found = collection.find_similar(file.read_bytes(), count=ALL)
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
