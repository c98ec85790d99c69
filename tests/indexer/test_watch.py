"""Watch: a change is told once it is quiet, whatever the system's events are worth; and the builds that follow it."""

import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import watchfiles
from click.testing import CliRunner

from indexer import cli_build as commands
from indexer import job
from indexer.cli import cli
from indexer.errors import CollectionBusy
from indexer.layout import APPLICATION, CATALOG
from indexer.watch import follow_changes
from tests.indexer.making import draw

SOON = {"quiet_seconds": 0.3, "poll_seconds": 60}


class Follower:
    """Follows in a thread, and counts what it is told."""

    def __init__(self, folder: Path, **how: float) -> None:
        self.told, self._stop = -1, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(folder, SOON | how), daemon=True)
        self._thread.start()
        time.sleep(0.7)  # until it watches

    def _run(self, folder: Path, how: dict) -> None:
        for _ in follow_changes(lambda: ([folder], ()), should_stop=self._stop.is_set, **how):
            self.told += 1  # the first time at once

    def wait_for(self, told: int, seconds: float = 10) -> None:
        until = time.monotonic() + seconds
        while self.told < told and time.monotonic() < until:
            time.sleep(0.05)
        assert self.told == told

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def follow(pictures: Path) -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def start(**how: float) -> Follower:
        made.append(Follower(pictures, **how))
        return made[-1]

    yield start
    for follower in made:
        follower.stop()


def test_many_changes_are_told_once_and_later_ones_again(follow, pictures: Path):
    follower = follow()
    for seed in range(20, 30):
        draw(pictures / "new" / f"{seed}.png", seed)
        time.sleep(0.05)
    follower.wait_for(1)
    (pictures / "new" / "20.png").unlink()
    follower.wait_for(2)
    (pictures / "new" / "21.png").rename(pictures / "21.png")
    follower.wait_for(3)


def test_what_is_no_picture_is_no_change(follow, pictures: Path):
    follower = follow()
    (pictures / "notes.txt").write_text("not a picture")
    time.sleep(1.5)
    assert follower.told == 0


def test_a_name_that_is_no_text_does_not_end_the_watch(follow, pictures: Path):
    follower = follow(poll_seconds=0.5)
    source = draw(pictures.parent / "source.png", 40)
    shutil.copy(source, os.fsencode(pictures) + b"/n\xff.png")
    follower.wait_for(1)
    draw(pictures / "later.png", 41)
    follower.wait_for(2)


@pytest.mark.parametrize("is_installed", [True, False])
def test_where_no_events_come_the_folders_are_looked_through(follow, pictures: Path, monkeypatch, is_installed: bool):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "no watches left")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    if not is_installed:
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    follower = follow(poll_seconds=0.4)
    draw(pictures / "new.png", 42)
    follower.wait_for(1)


def test_events_that_are_lost_are_made_up_for(follow, pictures: Path, monkeypatch):
    def say_nothing(*_: object, stop_event: threading.Event, **__: object) -> Iterator[set]:
        while not stop_event.is_set():
            time.sleep(0.1)
            yield set()

    monkeypatch.setattr(watchfiles, "watch", say_nothing)
    follower = follow(poll_seconds=0.5)
    draw(pictures / "new.png", 43)
    follower.wait_for(1)


def test_a_change_whose_build_failed_is_told_again(pictures: Path):
    end = time.monotonic() + 10
    changes = follow_changes(
        lambda: ([pictures], ()), should_stop=lambda: time.monotonic() > end, quiet_seconds=0.1, poll_seconds=0.2
    )
    next(changes)
    changes.send(False)  # told again, although nothing has changed since; else the watch would end
    end = time.monotonic() + 1
    with pytest.raises(StopIteration):
        changes.send(True)


def test_a_folder_that_goes_and_comes_back_is_told(follow, pictures: Path):
    follower = follow(poll_seconds=0.5)
    away = pictures.rename(pictures.with_name("away"))
    follower.wait_for(1)
    away.rename(pictures)
    follower.wait_for(2)


# The builds that follow

TOLD: list[bool] = []
"""What the follower was told of each build."""


def build_and_watch(place: Path, pictures: Path, monkeypatch, changes: list[Callable[[], object]]) -> object:
    def follow(list_watched: Callable, **__: object) -> Iterator[None]:
        assert list_watched() == ([pictures], ())
        for change in changes:
            change()
            TOLD.append((yield))

    monkeypatch.setattr(commands, "follow_changes", follow)
    return CliRunner().invoke(cli, ["build", str(pictures), "--collection", str(place), "--watch", "--json"])


@pytest.mark.usefixtures("by_pixels")
def test_each_change_is_built_and_a_missing_disk_is_waited_for(place: Path, pictures: Path, monkeypatch):
    away = pictures.with_name("away")
    done = build_and_watch(
        place,
        pictures,
        monkeypatch,
        [
            lambda: draw(pictures / "new.png", 50),
            lambda: pictures.rename(away),
            lambda: away.rename(pictures),
            lambda: (pictures / "new.png").unlink(),
        ],
    )
    assert done.exit_code == 0, done.output
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(report["embedded"], report["removed"], report["generation"]) for report in reports] == [
        (9, 0, "000001"),
        (1, 0, "000002"),
        (0, 0, "000002"),
        (0, 1, "000002"),
    ]
    assert "There is no folder" in done.stderr and "mount it" in done.stderr
    assert TOLD == [True, False, True, True]


@pytest.mark.usefixtures("by_pixels")
def test_a_catalog_that_is_locked_for_a_while_does_not_end_the_watch(place: Path, pictures: Path, monkeypatch):
    known = iter([([pictures], ())])

    def ask(_: Path) -> tuple:
        for watched in known:
            return watched
        raise CollectionBusy("Another program keeps it locked.")

    monkeypatch.setattr(commands, "list_watched", ask)
    done = build_and_watch(place, pictures, monkeypatch, [lambda: draw(pictures / "new.png", 50)])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["embedded"] for line in done.stdout.splitlines()] == [9, 1]


@pytest.mark.usefixtures("by_pixels")
def test_the_watch_ends_with_ctrl_c(place: Path, pictures: Path, monkeypatch):
    threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    given = ["build", str(pictures), "--collection", str(place), "--watch", "--json"]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code == 0, done.output
    assert "Watching for changes; Ctrl-C ends it." in done.stderr
    assert len(done.stdout.splitlines()) == 1, "nothing has changed since the first build"


@pytest.mark.usefixtures("by_pixels")
def test_what_comes_during_the_first_build_is_built_by_a_second(place: Path, pictures: Path, monkeypatch):
    def draw_late(*given: object, **settings: object) -> object:
        draw(pictures / "late.png", 60)
        return publish(*given, **settings)

    publish = job.publish_store
    monkeypatch.setattr(job, "publish_store", draw_late)
    threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    done = CliRunner().invoke(cli, ["build", str(pictures), "--collection", str(place), "--watch", "--json"])
    assert [json.loads(line)["embedded"] for line in done.stdout.splitlines()] == [9, 1]


def test_a_collection_whose_first_build_had_only_begun_is_no_reason_not_to_watch(place: Path, pictures: Path):
    place.mkdir()
    with closing(sqlite3.connect(place / CATALOG)) as connection:
        connection.execute(f"PRAGMA application_id = {int.from_bytes(APPLICATION, 'big')}")
    assert len(commands.look_before(place, [pictures], ())) == 9


def test_a_disk_that_is_away_at_first_is_looked_for_as_often_as_others(tmp_path: Path):
    folder, looks = tmp_path / "disk", []

    def should_stop() -> bool:
        looks.append(1)
        if len(looks) == 20:
            draw(folder / "a.png", 1)
        return len(looks) > 400

    changes = follow_changes(
        lambda: ([folder], ()), should_stop=should_stop, seen=set(), quiet_seconds=0.01, poll_seconds=0.01
    )
    next(changes)
    assert folder.is_dir()
