"""A seer command in a process of its own, for a collection that a page shows: started, looked at, asked to stop.

    seer build    brings the collection up to date
    seer survey   finds groups, odd ones, near-duplicates and a map

It is the same command that a person types, at low priority. It goes on when the page's server ends, and what it says
lies in `background.log` in the collection's folder.

Rule: only what this process has started is ever asked to stop.
"""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CollectionBusy
from indexer.hold import read_holder
from indexer.layout import BACKGROUND_LOG

COMMANDS = ("build", "survey")
TAIL_BYTES = 4000


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is at work on a collection, or was the last to be."""

    command: str | None
    """As `seer build`; None: nobody has started anything here."""
    is_running: bool
    is_ours: bool
    """Whether it was started here, and so may be asked to stop."""
    line: str
    """What it said last."""
    status: int | None = None
    """Its exit status, once it has ended."""


_lock = threading.Lock()
_started: dict[Path, tuple[str, subprocess.Popen]] = {}


def start(folder: Path, command: str) -> None:
    """Start a command of COMMANDS. Raises: CollectionBusy where one is at work."""
    if command not in COMMANDS:
        raise ValueError(f"{command} is none of {COMMANDS}")
    with _lock:
        if (work := _look(folder)).is_running:
            raise CollectionBusy(f"{work.command} is at work in {folder}. Wait for it to end, or stop it.")
        said = folder / BACKGROUND_LOG
        with said.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "indexer", command, "--collection", os.fspath(folder.absolute())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                # Ctrl-C that ends the server is not meant for it.
                start_new_session=True,
            )  # fmt: skip
        _started[folder] = f"seer {command}", process


def read_work(folder: Path) -> Work:
    """What is at work there, whoever started it."""
    with _lock:
        return _look(folder)


def stop(folder: Path) -> None:
    """Ask what was started here to stop, as Ctrl-C does; what has ended is none to stop."""
    with _lock:
        _, process = _started.get(folder, ("", None))
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)


def _look(folder: Path) -> Work:
    name, process = _started.get(folder, (None, None))
    line = _read_last_line(folder / BACKGROUND_LOG)
    if process is not None and process.poll() is None:
        return Work(command=name, is_running=True, is_ours=True, line=line)
    if holder := read_holder(folder):
        return Work(command=holder, is_running=True, is_ours=False, line="")
    return Work(
        command=name, is_running=False, is_ours=process is not None, line=line if process else "",
        status=process.returncode if process else None,
    )  # fmt: skip


def _read_last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
