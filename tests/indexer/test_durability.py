"""What must be on the disk before what: the order of syncs, renames and commits of a build."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.catalog import Catalog
from indexer.check import check_collection
from indexer.layout import CATALOG, MARKS, THUMBNAILS
from indexer.marks import Marks
from indexer.schema import connect_to_write, read_value
from indexer.upkeep import prune_collection
from tests.indexer.making import build

pytestmark = pytest.mark.usefixtures("by_pixels")

FULL, EXTRA = 2, 3
"""SQLite's numbers: a commit waits for the file; for the name of its journal too."""


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


def test_a_generation_is_on_the_disk_before_current_names_it(events: list[str], approximate: Path):
    place = approximate
    wanted = [
        "sync .000001/held_out.npz",
        "sync .000001/image_ids.npy",
        "sync .000001/index.faiss",
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


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, set]:
    """How each SQLite file that is opened syncs and keeps its journal, by its name, as it is when it is closed."""
    told: dict[str, set] = {}
    connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        def close(self) -> None:
            path = self.execute("PRAGMA database_list").fetchone()[2]
            told.setdefault(Path(path).name, set()).add(
                (read_value(self, "PRAGMA synchronous"), read_value(self, "PRAGMA journal_mode"))
            )
            super().close()

    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Connection))
    return told


def test_a_commit_of_any_database_waits_for_the_disk(settings: dict[str, set], place: Path, pictures: Path):
    build(place, pictures)
    Marks(place / MARKS).keep_query(b"a picture", "query.png")
    (place / MARKS).write_bytes((place / MARKS).read_bytes().replace(b"a picture", b"A PICTURE"))
    (pictures / "a" / "picture-1.png").unlink()
    build(place)
    prune_collection(place)
    assert check_collection(place, repair=True, sample=0).is_sound
    databases = {file.name for file in place.glob("*.sqlite")}
    assert databases == {CATALOG, THUMBNAILS, MARKS} and settings.keys() == databases | {f".{MARKS}.part"}
    assert settings[CATALOG] == settings[THUMBNAILS] == {(FULL, "delete")}
    assert settings[f".{MARKS}.part"] == {(EXTRA, "delete")}
    # What looks at damaged marks has SQLite's own setting.
    assert settings[MARKS] == {(EXTRA, "delete"), (FULL, "delete")}


def test_a_commit_of_the_catalog_waits_for_the_disk_while_a_build_runs(tmp_path: Path):
    with closing(connect_to_write(tmp_path / CATALOG)) as connection:
        assert read_value(connection, "PRAGMA journal_mode") == "wal"
        assert read_value(connection, "PRAGMA synchronous") == FULL
