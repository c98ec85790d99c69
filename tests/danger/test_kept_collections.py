"""Collections that earlier versions wrote open, answer as they did, and are built on."""

import json
import re
import tarfile
import tomllib
from pathlib import Path

import pytest

from indexer.check import check_collection
from indexer.collection import Collection
from indexer.schema import MIGRATIONS
from indexer.upkeep import prune_collection, relocate_folder
from tests.conftest import REPOSITORY
from tests.danger.keep_collection import COUNT, KEPT, PICTURES, draw_pictures, read_answers
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

VERSIONS = sorted(folder.name for folder in KEPT.iterdir())


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each version that a collection is kept of."""
    return request.param


@pytest.fixture
def kept(version: str, place: Path) -> Path:
    """Its collection, unpacked."""
    with tarfile.open(KEPT / version / "collection.tar") as tar:
        tar.extractall(place, filter="data")
    return place


def read_kept_answers(version: str) -> dict:
    return json.loads((KEPT / version / "answers.json").read_text(encoding="utf-8"))


def same(found: dict, kept: dict) -> bool:
    """Whether the same files are named, at similarities that differ by rounding at most."""
    return json.loads(json.dumps(found)) == {
        name: kept[name] if name == "failed" else [[path, pytest.approx(value, abs=2e-4)] for path, value in kept[name]]
        for name in kept
    }


def test_it_answers_as_it_did_and_is_left_alone(version: str, kept: Path, tmp_path: Path):
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    asked = draw_pictures(tmp_path / "pictures")
    with Collection(kept) as collection:
        assert same(read_answers(collection, asked, PICTURES), read_kept_answers(version))
        status = collection.read_status()
        assert (status.images, status.failed, status.folders) == (COUNT, 1, [PICTURES])
        image = collection.list_images()[0]
        assert collection.read_thumbnail(image.content_hash) is not None
    # Its index is verified anew, for its numbers of files are others here.
    assert {path.name for path, data in before.items() if path.read_bytes() != data} <= {"verified.json"}


def test_it_is_moved_built_on_pruned_and_found_sound(version: str, kept: Path, tmp_path: Path):
    pictures = draw_pictures(tmp_path / "pictures")
    assert relocate_folder(kept, PICTURES, pictures) == COUNT + 1
    report = build(kept)
    assert (report.unchanged, report.embedded, report.failed) == (COUNT, 0, 1)
    (pictures / "0" / "0.png").unlink()
    draw(pictures / "new.png", 40)
    assert build(kept).embedded == 1
    assert prune_collection(kept).removed == 1
    assert check_collection(kept).is_sound
    answers = read_kept_answers(version)
    with Collection(kept) as collection:
        found = read_answers(collection, pictures, pictures)
    assert found["failed"] == answers["failed"]
    for name in answers.keys() - {"failed", "0/0.png"}:
        told = [one for one in found[name] if one[0] != "new.png"]
        expected = [one for one in answers[name] if one[0] != "0/0.png"]
        assert same({name: told}, {name: expected})


def test_every_version_keeps_one():
    """Those that were released, and the one that is being made."""
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    current = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {*released, current} <= set(VERSIONS), "python -m tests.danger.keep_collection VERSION"


def test_the_newest_one_is_of_the_form_that_this_version_writes():
    """A migration after a release comes with a new version; before its release the one that is kept is made anew."""
    assert max(map(read_schema, VERSIONS)) == len(MIGRATIONS)


def read_schema(version: str) -> int:
    with tarfile.open(KEPT / version / "collection.tar") as tar:
        head = tar.extractfile("catalog.sqlite").read(64)
    return int.from_bytes(head[60:64], "big")
