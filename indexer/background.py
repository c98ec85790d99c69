"""A seer command in a process of its own, for a collection that a page shows: started, looked at, asked to stop.

    seer build    brings the collection up to date
    seer survey   finds groups, odd ones, near-duplicates and a map

It is the same command that a person types, at low priority. It goes on when the page's server ends, and what it says
lies in `background.log` in the collection's folder. Beside it a note says which process it is, so that a server that
is started again finds it, shows how far it is, and can ask it to stop.

Rule: only what a page has started is ever asked to stop. A process is known by its number and by when it began, since
its number is given to another one later.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from indexer.errors import CollectionBusy, CollectionUnwritable
from indexer.hold import read_holder
from indexer.interrupts import INTERRUPTED
from indexer.layout import BACKGROUND_LOG, BACKGROUND_NOTE

COMMANDS = ("build", "survey")
TAIL_BYTES = 4000
BEGAN = 19
"""Which of the numbers that Linux has of a process says when it began, counted after its name."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is at work on a collection, or how a command ended that was."""

    command: str | None
    """As `seer build`; None: nobody has started anything here."""
    is_running: bool
    is_ours: bool
    """Whether a page has started it, and so may ask it to stop."""
    line: str
    """What it said last."""
    status: int | None = None
    """Its exit status, once it has ended; below 0: the number of the signal that ended it."""

    @property
    def is_stopped(self) -> bool:
        """Whether it has ended because somebody asked it to."""
        return self.status in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class _Note:
    """Which process a page has started."""

    command: str
    process: int
    began: str | None
    """None where the system does not say: such a process is known to its own server alone."""


NOTHING = Work(command=None, is_running=False, is_ours=False, line="")

_lock = threading.Lock()
_started: dict[Path, tuple[_Note, subprocess.Popen]] = {}
_ended: dict[tuple[Path, str], Work] = {}


def start(folder: Path, command: str) -> None:
    """Start a command of COMMANDS. Raises: CollectionBusy where one is at work; CollectionUnwritable."""
    if command not in COMMANDS:
        raise ValueError(f"{command} is none of {COMMANDS}")
    with _lock:
        if (work := _look(folder, command)).is_running:
            raise CollectionBusy(f"{work.command} is at work in {folder}. Wait for it to end, or stop it.")
        with _open_log(folder) as log:
            process = subprocess.Popen(
                spell_command(folder, command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                # Ctrl-C that ends the server is not meant for it.
                start_new_session=True,
            )  # fmt: skip
        note = _Note(command=command, process=process.pid, began=_read_beginning(process.pid))
        _started[folder] = note, process
        with suppress(OSError):  # A full disk is for the command itself to report.
            find_note(folder).write_text(json.dumps(asdict(note)), encoding="utf-8")


def spell_command(folder: Path, command: str) -> list[str]:
    """What a command is started with."""
    return [sys.executable, "-m", "indexer", command, "--collection", os.fspath(folder.absolute())]


def find_note(folder: Path) -> Path:
    """Where it says which process was started."""
    return folder / BACKGROUND_NOTE


def read_work(folder: Path, command: str = COMMANDS[0]) -> Work:
    """What is at work there, whoever started it and whatever it is; else how this command ended last."""
    with _lock:
        return _look(folder, command)


def stop(folder: Path) -> None:
    """Ask what a page has started here to stop, as Ctrl-C does; what has ended is none to stop.

    By SIGTERM: a server that was started in the background of a shell may be deaf to SIGINT, and so is what it starts.
    """
    with _lock, suppress(OSError):  # It has just ended, or somebody else's server has started it.
        if note := _find_running(folder):
            os.kill(note.process, signal.SIGTERM)


def _look(folder: Path, command: str) -> Work:
    if note := _find_running(folder):
        return Work(command=f"seer {note.command}", is_running=True, is_ours=True, line=_read_last_line(folder))
    if holder := read_holder(folder):
        return Work(command=holder, is_running=True, is_ours=False, line="")
    return _ended.get((folder, command), NOTHING)


def _find_running(folder: Path) -> _Note | None:
    """What a page has started there and has not ended: the page of this server, or of one before it."""
    if folder in _started:
        note, process = _started[folder]
        if process.poll() is None:
            return note
        # Kept now: the next command's words take the place of these.
        _ended[folder, note.command] = Work(
            command=f"seer {note.command}", is_running=False, is_ours=True, line=_read_last_line(folder),
            status=process.returncode,
        )  # fmt: skip
        del _started[folder]
    note = _read_note(folder)
    return note if note and note.began and note.began == _read_beginning(note.process) else None


def _read_note(folder: Path) -> _Note | None:
    try:
        told = json.loads(find_note(folder).read_text(encoding="utf-8"))
        return _Note(command=str(told["command"]), process=int(told["process"]), began=told["began"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_beginning(process: int) -> str | None:
    """When a process began, in the system's own words; None where there is none any more, or nobody says."""
    return _read_proc(process) if sys.platform == "linux" else _ask_ps(process)


def _read_proc(process: int) -> str | None:
    """Ticks since the computer was started, and which start that was."""
    try:
        # The name stands first, in brackets, and may be anything.
        told = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # One that has ended keeps its number until somebody has asked how.
    return None if told[0] in (b"Z", b"X") else f"{started} {told[BEGAN].decode()}"


def _ask_ps(process: int) -> str | None:
    """A date, on other systems of that family."""
    asked, said = ["ps", "-o", "stat=,lstart=", "-p", str(process)], ""
    with suppress(OSError):
        plain = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        said = subprocess.run(asked, capture_output=True, text=True, check=False, env=plain).stdout.strip()
    state, _, began = said.partition(" ")
    return None if state.startswith("Z") else began.strip() or None


def _open_log(folder: Path) -> BinaryIO:
    path = folder / BACKGROUND_LOG
    try:
        return path.open("wb")
    except OSError as error:
        raise CollectionUnwritable(
            f"The collection in {folder} cannot be written ({path.name}: {error.strerror}). Free some space or allow "
            "writing there, then run again."
        ) from error


def _read_last_line(folder: Path) -> str:
    try:
        with (folder / BACKGROUND_LOG).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
