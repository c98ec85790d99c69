"""Work beside the page: started, found again by another server, asked to stop, and never taken for somebody else's."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer import background
from indexer.errors import CollectionBusy, CollectionUnwritable
from indexer.hold import hold, read_holder
from indexer.layout import BACKGROUND_LOG, CATALOG, HOLDER

PATIENCE = 20.0
SLEEPS = "import time; print('linking 3/9', flush=True); time.sleep(120)"
STOPS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("Interrupted.", flush=True), sys.exit(130)))
print("embedding 2/9", flush=True)
time.sleep(120)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    background.stop(tmp_path)
    wait(lambda: not background.read_work(tmp_path).is_running)


def wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def start(place: Path, command: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start Python in the place of a command, and wait for its first word or its end."""
    monkeypatch.setattr(background, "spell_command", lambda folder, name: [sys.executable, "-c", code])
    background.start(place, command)
    wait(lambda: not background.read_work(place).is_running or background.read_work(place).line != "")


def leave_note(place: Path) -> None:
    """As a build leaves it that was killed, or had its power cut."""
    note = {"purpose": "build", "process": 999_999_999, "since": time.time() - 86_400}
    (place / HOLDER).write_text(json.dumps(note))


# --- the lock ----------------------------------------------------------------------------------------------------


def test_a_note_that_outlived_its_process_keeps_nobody_out(place: Path, monkeypatch: pytest.MonkeyPatch):
    leave_note(place)
    assert read_holder(place) is None and not background.read_work(place).is_running
    start(place, "build", "print('done')", monkeypatch)
    wait(lambda: not background.read_work(place).is_running)
    assert background.read_work(place, "build").status == 0


def test_who_is_at_work_elsewhere_is_named_and_not_asked_to_stop(place: Path):
    with hold(place, "seer prune"):
        for _ in range(3):
            work = background.read_work(place, "build")
            assert work.is_running and not work.is_ours and work.command.startswith("seer prune (process ")
        with pytest.raises(CollectionBusy, match="seer prune"):
            background.start(place, "build")
        with pytest.raises(CollectionBusy, match="seer prune"), hold(place, "build"):
            pass


def test_who_only_asks_whether_a_collection_is_held_keeps_nobody_from_holding_it(place: Path):
    leave_note(place)
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            read_holder(place)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(100):
            with hold(place, "build"):
                pass
            leave_note(place)
    finally:
        ended.set()
        for thread in asking:
            thread.join()


# --- one process -------------------------------------------------------------------------------------------------


def test_work_is_shown_and_stopped_and_that_is_no_failure(place: Path, monkeypatch: pytest.MonkeyPatch):
    start(place, "build", STOPS, monkeypatch)
    work = background.read_work(place, "build")
    assert (work.command, work.is_running, work.is_ours, work.line) == ("seer build", True, True, "embedding 2/9")
    with pytest.raises(CollectionBusy, match="seer build is at work"):
        background.start(place, "survey")
    background.stop(place)
    wait(lambda: not background.read_work(place).is_running)
    ended = background.read_work(place, "build")
    assert (ended.status, ended.is_stopped, ended.line) == (130, True, "Interrupted.")


def test_a_command_that_is_stopped_before_it_listens_is_stopped_too(place: Path, monkeypatch: pytest.MonkeyPatch):
    start(place, "build", SLEEPS, monkeypatch)
    background.stop(place)
    wait(lambda: not background.read_work(place).is_running)
    assert background.read_work(place, "build").is_stopped


def test_each_command_has_its_own_ending(place: Path, monkeypatch: pytest.MonkeyPatch):
    start(place, "survey", "import sys; print('seer: no graph'); sys.exit(1)", monkeypatch)
    wait(lambda: not background.read_work(place).is_running)
    assert background.read_work(place, "build").status is None
    start(place, "build", "print('2 images can be searched')", monkeypatch)
    wait(lambda: not background.read_work(place).is_running)
    survey, build = (background.read_work(place, command) for command in ("survey", "build"))
    assert (survey.status, survey.line, survey.is_stopped) == (1, "seer: no graph", False)
    assert (build.status, build.line) == (0, "2 images can be searched")


def test_a_folder_in_which_nothing_can_be_written_is_said_so(place: Path):
    # As a read-only disk refuses it; who runs the tests may be allowed to write everywhere.
    (place / CATALOG).touch()
    (place / BACKGROUND_LOG).symlink_to(place / CATALOG / "below-a-file")
    with pytest.raises(CollectionUnwritable, match="cannot be written.*run again"):
        background.start(place, "build")
    assert not background.read_work(place).is_running
    (place / BACKGROUND_LOG).unlink()
    (place / BACKGROUND_LOG).mkdir()
    with pytest.raises(CollectionUnwritable):
        background.start(place, "build")


# --- another server ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["/proc", "ps"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a process began is asked of the one or the other, whatever the system is."""
    if request.param == "ps":
        if shutil.which("ps") is None:
            pytest.skip("There is no ps here.")
        monkeypatch.setattr(background, "_read_beginning", background._ask_ps)
    elif sys.platform != "linux":
        pytest.skip("There is no /proc here.")


def start_elsewhere(place: Path, code: str) -> None:
    """By a server that has ended since."""
    told = f"""
import sys
from pathlib import Path
from indexer import background
background.spell_command = lambda folder, command: [sys.executable, "-c", {code!r}]
background._read_beginning = background.{background._read_beginning.__name__}
background.start(Path({str(place)!r}), "survey")
"""
    subprocess.run([sys.executable, "-c", told], check=True)
    wait(lambda: background.read_work(place).line != "")


def test_a_server_that_is_started_again_finds_its_work_shows_it_and_stops_it(place: Path, asked: None):
    start_elsewhere(place, SLEEPS)
    work = background.read_work(place, "build")
    assert (work.command, work.is_running, work.is_ours, work.line) == ("seer survey", True, True, "linking 3/9")
    for command in background.COMMANDS:
        with pytest.raises(CollectionBusy, match="seer survey is at work"):
            background.start(place, command)
    background.stop(place)
    wait(lambda: not background.read_work(place, "survey").is_running)


def test_a_process_that_has_the_number_now_is_neither_shown_nor_stopped(place: Path, asked: None):
    start_elsewhere(place, SLEEPS)
    note = json.loads(background.find_note(place).read_text())
    background.stop(place)
    wait(lambda: not background.read_work(place).is_running)
    time.sleep(1.1)  # ps knows seconds.
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        background.find_note(place).write_text(json.dumps({**note, "process": other.pid}))
        assert not background.read_work(place, "survey").is_running
        background.stop(place)
        time.sleep(0.3)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    "note", ["", "x", "[]", "{}", '{"command": "survey"}', '{"command": "survey", "process": "x", "started": null}']
)
def test_a_note_that_makes_no_sense_is_none(place: Path, note: str):
    background.find_note(place).write_text(note)
    assert not background.read_work(place).is_running
    background.stop(place)


def test_a_number_that_no_process_can_have_is_none(place: Path):
    for process in (-1, 0, 10**30, True):
        note = {"command": "survey", "process": process, "started": None}
        background.find_note(place).write_text(json.dumps(note))
        assert not background.read_work(place).is_running
        background.stop(place)
