"""Folders whose disks go away, that move, swap names, or hold the collection itself."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexer import catalog_walk, places, schema, sources
from indexer.cli import cli
from indexer.collection import Collection
from indexer.errors import CollectionUnwritable, SourceError
from indexer.layout import CATALOG, CURRENT
from indexer.report import BuildReport, Watchers
from indexer.upkeep import relocate_folder
from indexer.watch import follow_changes
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")
LOOK = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM files').fetchall()"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


# --- disks that go away ------------------------------------------------------------------------------------------


def test_a_folder_inside_another_that_became_empty_is_not_believed_either(place: Path, pictures: Path):
    build(place, pictures / "a")
    build(place, pictures)
    shutil.rmtree(pictures / "a")
    (pictures / "a").mkdir()
    with pytest.raises(SourceError, match=r"/a held 4 pictures and holds none now"):
        build(place)
    with Collection(place) as collection:
        assert collection.read_status().images == 9
    assert build(place, accept_removals=True).removed == 4


def test_a_disk_below_a_folder_that_is_not_mounted_any_more_takes_nothing_with_it(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    disks = {str(pictures / "a")}
    monkeypatch.setattr(sources, "_read_device", lambda path: 2 if path in disks else 1)
    build(place, pictures)
    disks.clear()
    away = (pictures / "a").rename(pictures.with_name("away"))
    (pictures / "a").mkdir()
    for _ in range(2):  # What was a disk is remembered until it is believed to be gone.
        with pytest.raises(SourceError, match="held 4 pictures and holds none now"):
            build(place)
    (pictures / "a").rmdir()
    away.rename(pictures / "a")
    assert (build(place).unchanged, build(place).removed) == (9, 0)
    # A folder that was no disk may be emptied.
    shutil.rmtree(pictures / "a")
    assert build(place).removed == 4


def test_a_disk_that_moved_along_with_its_folder_is_missed_at_its_new_place(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "_read_device", lambda path: 2 if path == str(pictures / "a") else 1)
    build(place, pictures)
    moved = pictures.rename(pictures.with_name("moved"))
    assert relocate_folder(place, pictures, moved) == 9
    shutil.rmtree(moved / "a")
    (moved / "a").mkdir()
    with pytest.raises(SourceError, match="moved/a held 4 pictures and holds none now"):
        build(place)


def test_removals_are_accepted_once_and_not_by_each_build_of_a_watch(
    place: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = draw(tmp_path / "other" / "a.png", 70).parent

    def follow(*_: object, **__: object):
        pictures.rename(tmp_path / "away")
        yield
        (tmp_path / "away").rename(pictures)
        yield

    monkeypatch.setattr("indexer.cli_build.follow_changes", follow)
    told = run("build", pictures, other, "--collection", place, "--watch", "--accept-removals", "--json")
    assert told.exit_code == 0 and "There is no folder" in told.stderr
    with Collection(place) as collection:
        assert (collection.read_status().images, len(collection.read_status().folders)) == (10, 2)


# --- folders that move -------------------------------------------------------------------------------------------


def test_a_build_of_a_folder_that_was_relocated_goes_on_with_its_collection(pictures: Path, tmp_path: Path):
    assert run("build", pictures).exit_code == 0
    moved = pictures.rename(tmp_path / "moved")
    assert run("relocate", pictures, moved).exit_code == 0
    assert "0 embedded, 9 unchanged" in run("build", moved).stdout
    draw(pictures / "new.png", 71)
    assert "1 image can be searched (1 embedded" in run("build", pictures).stdout
    assert "0 embedded, 1 unchanged" in run("build", pictures).stdout
    assert "0 embedded, 9 unchanged" in run("build", moved).stdout


def test_a_collection_that_took_in_another_folder_is_still_that_of_its_first(pictures: Path, tmp_path: Path):
    assert run("build", pictures / "a").exit_code == 0
    place = places.find_place([pictures / "a"])
    assert run("build", pictures / "b", "--collection", place).exit_code == 0
    assert places.find_place([pictures / "a"]) == place
    assert places.find_place([pictures / "b"]) != place
    (place / CATALOG).write_bytes((place / CATALOG).read_bytes()[:5000])
    assert places.find_place([pictures / "a"]) == place  # and the build says what is wrong with it


def test_the_watch_follows_a_folder_that_another_command_has_added(pictures: Path, tmp_path: Path):
    watched, end = [pictures], time.monotonic() + 20
    soon = {"quiet_seconds": 0.1, "poll_seconds": 0.1}
    changes = follow_changes(lambda: (list(watched), ()), should_stop=lambda: time.monotonic() > end, **soon)
    next(changes)
    watched.append(draw(tmp_path / "other" / "a.png", 72).parent)
    changes.send(True)  # told of what is in there
    draw(tmp_path / "other" / "b.png", 73)
    changes.send(True)


# --- names that are swapped --------------------------------------------------------------------------------------


def draw_alike(folder: Path) -> tuple[Path, Path]:
    """Two pictures whose files have one size and one time."""
    alike = draw(folder / "one.bmp", 80), draw(folder / "two.bmp", 81)
    for path in alike:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return alike


def swap(one: Path, two: Path) -> None:
    aside = one.rename(one.with_name("aside"))
    two.rename(one)
    aside.rename(two)


def only_move(one: Path, two: Path) -> None:
    two.rename(one)


@pytest.mark.parametrize(("change", "moved"), [(swap, 2), (only_move, 1)])
def test_files_of_one_size_and_time_that_changed_places_are_told_apart(
    place: Path, tmp_path: Path, change: Callable, moved: int
):
    one, two = draw_alike(tmp_path / "pictures")
    build(place, tmp_path / "pictures")
    change(one, two)
    report = build(place)
    assert (report.embedded, report.moved, report.images) == (0, moved, moved)
    with Collection(place) as collection:
        for path in filter(Path.exists, (one, two)):
            (found,) = collection.find_similar(path.read_bytes(), count=1)
            assert (found.paths, found.similarity) == ([path], pytest.approx(1))
    assert build(place).unchanged == moved


def test_a_file_that_changed_places_with_one_passed_over_is_told_apart_too(place: Path, tmp_path: Path):
    one, two = draw_alike(tmp_path / "pictures")
    build(place, tmp_path / "pictures", exclude=("two.bmp",))
    swap(one, two)
    assert build(place).embedded == 1
    with Collection(place) as collection:
        (found,) = collection.find_similar(one.read_bytes(), count=2)
        assert (found.paths, found.similarity) == ([one], pytest.approx(1))


def test_a_disk_that_numbers_its_files_anew_costs_no_other_look(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalog_walk, "MOST_READ_AGAIN", 3)
    build(place, pictures)
    looked = []
    monkeypatch.setattr("indexer.job.DecodePool.decode", lambda _, tasks: looked.extend(tasks) or iter(()))
    connection = sqlite3.connect(place / CATALOG)
    with connection:
        connection.execute("UPDATE files SET inode = inode + 1000")
    connection.close()
    assert (build(place).unchanged, looked) == (9, [])


# --- the collection itself ---------------------------------------------------------------------------------------


def test_a_collection_inside_its_picture_folder_is_not_walked_and_keeps_its_locks(pictures: Path):
    place = pictures / "collection"
    place.mkdir()
    build(place, pictures)
    draw(place / "stores" / "not-yours.png", 90)
    for seed in range(20, 24):
        draw(pictures / f"{seed}.png", seed)
    logs = []

    def look(step: str) -> None:
        if step == "batch recorded":
            # Whoever closes last takes the log away: nobody else may be the last while the build is at work.
            subprocess.run([sys.executable, "-c", LOOK, str(place / CATALOG)], check=True)
            logs.append((place / f"{CATALOG}-wal").exists())

    report = build(place, watchers=Watchers(on_step=look))
    assert (report.found, report.embedded, logs) == (13, 4, [True])


def test_a_lost_current_in_the_middle_of_a_change_of_model_leaves_the_old_answers(place: Path, pictures: Path):
    build(place, pictures)
    half = build(place, model="other", limit=4)
    assert (half.images, half.generation) == (9, "000001")
    (place / CURRENT).unlink()
    assert build(place, model="other", limit=1).images == 9
    ended = build(place, model="other")
    assert (ended.embedded, ended.images) == (4, 9)


# --- what may not be looked at -----------------------------------------------------------------------------------


def test_what_could_not_be_looked_at_is_counted_and_said(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: _refuse() if str(folder).endswith("/a") else real(folder))
    told = run("build", pictures, "--collection", place)
    said = "1 place could not be looked at (Permission denied); what is known of it stays as it is."
    assert f"{said} See {place}" in told.stdout
    report: BuildReport = build(place)
    assert (report.unreadable, report.found) == (1, 5)


def _refuse() -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY])
def test_a_catalog_that_cannot_be_opened_for_its_rights_is_not_called_damaged(
    place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    build(place, pictures)
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = code

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(schema, "read_value", refuse)
    with pytest.raises(CollectionUnwritable, match="unable to open database file"):
        schema.connect_to_read(place / CATALOG)
