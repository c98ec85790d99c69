"""What must be on the disk before what: the order of syncs, renames and commits of a build."""

import os
from pathlib import Path

import pytest

from indexer.catalog import Catalog
from indexer.schema import connect_to_write, read_value
from tests.indexer.making import build

pytestmark = pytest.mark.usefixtures("by_pixels")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sync, rename and commit of a batch, in order, by the last parts of its path."""
    told: list[str] = []
    fsync, rename, replace, record = os.fsync, os.rename, os.replace, Catalog.record

    def show(path: object) -> str:
        return "/".join(Path(os.fspath(path)).parts[-2:])

    def note(name: str, path: object) -> None:
        told.append(f"{name} {show(path)}")

    monkeypatch.setattr(
        os, "fsync", lambda handle: (note("sync", os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "rename", lambda old, new: (note("rename to", new), rename(old, new)))
    monkeypatch.setattr(os, "replace", lambda old, new: (note("rename to", new), replace(old, new)))
    monkeypatch.setattr(Catalog, "record", lambda *arguments: (told.append("commit"), record(*arguments))[1])
    return told


def test_rows_are_on_the_disk_before_the_catalog_names_them(events: list[str], place: Path, pictures: Path):
    build(place, pictures)
    files = [f"sync 000001/{name}" for name in ("rows.f16", "norms.f32", "crc.u32")]
    commits = [number for number, event in enumerate(events) if event == "commit"]
    assert len(commits) == 3
    for before, commit in zip([0, *commits], commits, strict=False):
        assert [event for event in events[before:commit] if event in files] == files


def test_a_generation_is_on_the_disk_before_current_names_it(events: list[str], place: Path, pictures: Path):
    build(place, pictures)
    wanted = [
        "sync .000001/index.faiss",
        "sync .000001/image_ids.npy",
        "sync .000001/.manifest.json.part",
        "rename to .000001/manifest.json",
        "sync generations/.000001",
        "rename to generations/000001",
        "sync collection/generations",
        "sync collection/.CURRENT.part",
        "rename to collection/CURRENT",
        "sync " + "/".join(place.parts[-2:]),
    ]
    published = events[events.index(wanted[0]) :]
    assert [event for event in published if event in wanted] == wanted


def test_a_commit_of_the_catalog_waits_for_the_disk(tmp_path: Path):
    connection = connect_to_write(tmp_path / "catalog.sqlite")
    assert read_value(connection, "PRAGMA synchronous") == 2
    connection.close()
