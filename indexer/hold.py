"""The lock: one process at a time changes a collection, and says who it is.

The operating system lets a lock go when its process ends, however it ends; what the note says counts only while the
lock is held. Whoever asks whether it is has it for a moment, and so whoever wants to work tries for a few moments.

Rule: who holds the lock writes the note, and nobody else.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from indexer.errors import CollectionBusy
from indexer.layout import HOLDER, LOCK

PATIENCE_SECONDS, RETRY_SECONDS = 0.5, 0.01
"""How long a lock is tried for that somebody may only be asking about, and how often."""


@contextmanager
def hold(folder: Path, purpose: str) -> Iterator[None]:
    """Keep a collection for one change at a time.

    Args:
        purpose: the command that is at work, as a person would type it.
    Raises: CollectionBusy, naming the process that is at work.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=RETRY_SECONDS)
    except Timeout:
        raise CollectionBusy(
            f"{_name_holder(folder)} is at work in {folder}. Wait for it to end, or stop it; then run again."
        ) from None
    try:
        note = {"purpose": purpose, "process": os.getpid(), "since": time.time()}
        with suppress(OSError):  # A full disk is for the work itself to report.
            (folder / HOLDER).write_text(json.dumps(note), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def read_holder(folder: Path) -> str | None:
    """Who is at work, as it says itself: `seer build (process 12, since 2026-05-01 10:00)`; None where nobody is.

    A note may outlive its process, which was killed or had its power cut: it counts for nothing then.
    """
    holder = _read_note(folder)
    return holder if holder and _is_held(folder) else None


def _is_held(folder: Path) -> bool:
    """Whether somebody is at work. Who is does not notice: a lock that is held cannot be taken."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return True  # A folder that we may only read: whoever may write there has left the note.
    lock.release()
    return False


def _read_note(folder: Path) -> str | None:
    try:
        note = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(note["since"]))
        return f"{note['purpose']} (process {int(note['process'])}, since {since})"
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None


def _name_holder(folder: Path) -> str:
    holder = _read_note(folder)
    return f"Another {holder}" if holder else "Another build"
