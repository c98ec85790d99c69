"""Writing files so that a kill or a power cut leaves the old content or the new, never half of one.

Rule: written aside, synced, renamed, and the folder synced; only then is it there.
"""

import os
from collections.abc import Callable
from pathlib import Path


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in `path`'s place in one step.

    The folder must exist. The new file may be read by whom the umask allows, even if `write` makes it for one only.
    Raises: OSError; then `path` is what it was.
    """
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    try:
        # An empty file shows the rights that a new one gets here: the umask cannot be asked without being changed.
        aside.touch()
        mode = aside.stat().st_mode
        write(aside)
        aside.chmod(mode)
        sync_file(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing, and wait until its name is on the disk.

    One that is there is synced all the same: who made it may have been killed before that.

    Args:
        mode: the rights of the folder, if it is made now, less what the umask takes; not of those above it.
    """
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    sync_folder(folder.parent)


def write_text_durably(path: Path, text: str) -> None:
    """`write_durably` for a short text, in UTF-8 with the newlines as they are."""
    write_durably(path, lambda aside: aside.write_text(text, encoding="utf-8", newline=""))


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows has no handle for a folder, and needs none here.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
