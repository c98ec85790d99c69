"""Collections that earlier versions wrote open, answer as they did, and are built on."""

import json
import re
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import generations
from indexer.check import check_collection
from indexer.collection import Collection
from indexer.decode import hash_content
from indexer.layout import MARKS
from indexer.marks import Marks
from indexer.schema import MIGRATIONS
from indexer.upkeep import prune_collection, relocate_folder
from tests.conftest import REPOSITORY
from tests.danger.keep_collection import (
    GONE,
    KEPT,
    LIVED,
    ODD,
    PASSED_OVER,
    PICTURES,
    QUERY,
    TWIN,
    draw_pictures,
    read_answers,
)
from tests.danger.oracle import list_files
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

VERSIONS = sorted(folder.name for folder in KEPT.iterdir())
WITHOUT_CHECKSUMS = "0.1.0-schema-1"
"""Of an older form of thumbnails, which are made anew from the originals."""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Each that is kept."""
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
    asked, answers = draw_pictures(tmp_path / "pictures", version), read_kept_answers(version)
    with Collection(kept) as collection:
        assert same(read_answers(collection, asked, PICTURES), answers)
        status = collection.read_status()
        assert (status.images, status.failed, status.folders) == (len(answers["0/0.png"]), 1, [PICTURES])
        image = collection.list_images()[0]
        assert (collection.read_thumbnail(image.content_hash) is None) == (version == WITHOUT_CHECKSUMS)
    # Its index is verified anew, for its numbers of files are others here.
    assert {path.name for path, data in before.items() if path.read_bytes() != data} <= {"verified.json"}


def test_it_is_moved_checked_built_on_pruned_and_found_sound(version: str, kept: Path, tmp_path: Path):
    pictures, has_lived = draw_pictures(tmp_path / "pictures", version), version.endswith(LIVED)
    files = [file for file in list_files(pictures) if not (file.match("passed-over/*") or file.match("*-raw.png"))]
    assert relocate_folder(kept, PICTURES, pictures) == len(files)
    found = check_collection(kept, repair=True)
    assert {problem.part for problem in found.problems} == ({"thumbnails"} if version == WITHOUT_CHECKSUMS else set())
    assert found.is_sound and check_collection(kept) == replace(found, problems=[])
    assert (found.files, found.generations, found.marks) == (len(files), 1 + has_lived, int(has_lived))
    report = build(kept)
    assert (report.found, report.embedded, report.failed) == (len(files), 0, 1)
    (pictures / "0" / "0.png").unlink()
    draw(pictures / "new.png", 40)
    assert build(kept).embedded == 1
    assert prune_collection(kept).removed == 1 + has_lived
    assert check_collection(kept).is_sound
    answers = read_kept_answers(version)
    with Collection(kept) as collection:
        found = read_answers(collection, pictures, pictures)
        assert all(collection.read_thumbnail(image.content_hash) for image in collection.list_images())
    assert found["failed"] == answers["failed"]
    for name in answers.keys() - {"failed", "0/0.png"}:
        told = [one for one in found[name] if one[0] != "new.png"]
        expected = [one for one in answers[name] if one[0] != "0/0.png"]
        assert same({name: told}, {name: expected})


@pytest.mark.parametrize("version", [version for version in VERSIONS if version.endswith(LIVED)], indirect=True)
def test_what_it_has_lived_through_is_in_it(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("indexer.marks.KEPT_SECONDS", 2**32)
    with Collection(kept) as collection:
        paths = {tuple(str(path.relative_to(PICTURES)) for path in one.paths) for one in collection.list_images()}
        assert paths >= {(ODD,), ("1/3.png", TWIN)} and len(paths) == 7
        assert collection.read_status().excluded == sorted(PASSED_OVER)
        gone = draw(tmp_path / GONE, 9).read_bytes()
        assert not any(found.is_same or found.path.name == GONE for found in collection.find_similar(gone))
        assert collection.find_image(hash_content(gone).hex()) is None
    assert Marks(kept / MARKS).open_query(hash_content(QUERY).hex()).picture == QUERY
    manifests = [generations.read_generation(kept, name).manifest for name in generations.list_generations(kept)]
    told = [(one["store"], one["rows"], one["settings"]["model"]) for one in manifests]
    assert told == [(1, 10, "regnety-400mf"), (2, 8, "seer-mini")]


def test_every_version_keeps_one():
    """Those that were released, and the one that is being made."""
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    current = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {*released, current} <= set(VERSIONS), "python -m tests.danger.keep_collection VERSION"


def test_every_form_of_the_catalog_is_kept():
    """With a migration one of the new form is kept, under another name, and those of the older ones stay."""
    assert set(map(read_schema, VERSIONS)) == set(range(1, len(MIGRATIONS) + 1))


def read_schema(version: str) -> int:
    with tarfile.open(KEPT / version / "collection.tar") as tar:
        head = tar.extractfile("catalog.sqlite").read(64)
    return int.from_bytes(head[60:64], "big")
