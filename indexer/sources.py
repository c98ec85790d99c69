"""From a folder, or a tar shard, to the files in it that could be pictures.

A file could be a picture when its suffix or its first bytes say so. Hidden files and folders, other programs' caches,
and folders that hold a collection are not looked at. Links to folders are not followed; links to files are. Of a shard
each picture is a file with a path of its own (`members`).

Rule: this module only looks: it opens nothing but the first bytes of files with a foreign suffix, and writes nothing.
"""

import fnmatch
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from indexer.errors import SourceError
from indexer.layout import LARGEST, clamp_time, is_collection
from indexer.members import is_source, list_members
from seer_model.errors import PictureError
from seer_model.formats import PICTURE_SUFFIXES, sniff_format

SKIPPED_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"})
HEAD_BYTES = 64
log = logging.getLogger(__name__)
SHARD_SUFFIX = ".tar"


@dataclass(frozen=True)
class FoundFile:
    """A file that could be a picture. `path` is absolute; a name that is not UTF-8 is in surrogate escapes."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    """Which file it is on its disk; two that are otherwise alike may have swapped their names."""


@dataclass
class Walk:
    """One look at some folders: iterate over it for the files, then read `ignored`."""

    folders: list[Path]
    exclude: tuple[str, ...] = ()
    """Globs; each is compared with names, with paths below a folder, and with whole paths."""
    own: str | None = None
    """The collection that is being built, which need not be opened to be known as one (`is_collection`)."""
    ignored: int = 0
    """Files that are no pictures, or were excluded."""
    matched: set[str] = field(default_factory=set)
    """Globs of `exclude` that something was passed over for."""
    unreadable: list[str] = field(default_factory=list)
    """Files and folders that may not be looked at: nothing is known of what they hold."""
    mounts: list[str] = field(default_factory=list)
    """Folders that are disks of their own."""
    shards: list[str] = field(default_factory=list)
    """Files with the suffix .tar; they count as ignored too."""

    def __iter__(self) -> Iterator[FoundFile]:
        for folder in self.folders:
            if not folder.is_dir():
                yield from self._look_into_shard(folder)
                continue
            # A stack of our own: folders may lie deeper in each other than Python's calls may.
            waiting = [str(folder)]
            while waiting:
                subfolders: list[str] = []
                looked_into = waiting.pop()
                yield from self._look_into(str(folder), looked_into, subfolders)
                self._note_mounts(looked_into, subfolders)
                waiting += reversed(subfolders)

    def _look_into(self, root: str, folder: str, subfolders: list[str]) -> Iterator[FoundFile]:
        for entry in self._list_entries(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not self._is_skipped_folder(root, entry):
                    subfolders.append(entry.path)
                continue
            found = None if self._is_excluded(root, entry) else self._look_at(entry)
            if found is None:
                self.ignored += 1
            else:
                yield found

    def _look_into_shard(self, shard: Path) -> Iterator[FoundFile]:
        try:
            members = list_members(shard)
        except (SourceError, PictureError, OSError) as error:
            log.warning("%s", error)
            self.unreadable.append(str(shard))
            return
        for path, stamp in members.items():
            name = path[len(str(shard)) + 1 :]
            if self._is_passed_over((os.path.basename(name), name), path):
                self.ignored += 1
            else:
                yield FoundFile(path, stamp.st_size, clamp_time(stamp.st_mtime_ns), stamp.st_ino & LARGEST)

    def _look_at(self, entry: os.DirEntry) -> FoundFile | None:
        try:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode) or not _could_be_picture(entry):
                self._note_shard(entry)
                return None
        except FileNotFoundError:
            return None
        except OSError:
            self.unreadable.append(entry.path)
            return None
        return FoundFile(entry.path, status.st_size, clamp_time(status.st_mtime_ns), status.st_ino & LARGEST)

    def _note_mounts(self, folder: str, subfolders: list[str]) -> None:
        # os.path.ismount would look at every folder above each one again.
        device = _read_device(folder) if subfolders else None
        self.mounts += [subfolder for subfolder in subfolders if _read_device(subfolder) not in (device, None)]

    def _note_shard(self, entry: os.DirEntry) -> None:
        if entry.name.lower().endswith(SHARD_SUFFIX) and entry.is_file():
            self.shards.append(entry.path)

    def _list_entries(self, folder: str) -> list[os.DirEntry]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.unreadable.append(folder)
            return []

    def _is_skipped_folder(self, root: str, entry: os.DirEntry) -> bool:
        return (
            entry.name.lower() in SKIPPED_FOLDERS
            or self._is_excluded(root, entry)
            or entry.path == self.own
            or is_collection(Path(entry.path))
        )

    def _is_excluded(self, root: str, entry: os.DirEntry) -> bool:
        return bool(self.exclude) and self._is_passed_over((entry.name, os.path.relpath(entry.path, root)), entry.path)

    def _is_passed_over(self, below: tuple[str, str], path: str) -> bool:
        for glob in self.exclude:
            # Where the picture folder itself lies must not matter to '*raw*'.
            spellings = (path,) if os.path.isabs(glob) else below
            # As people write it: raw/, ./raw
            if any(fnmatch.fnmatch(spelling, os.path.normpath(glob)) for spelling in spellings):
                self.matched.add(glob)
                return True
        return False


def _read_device(folder: str) -> int | None:
    try:
        return os.lstat(folder).st_dev
    except OSError:
        return None


def resolve_folders(folders: list[Path]) -> list[Path]:
    """Absolute folders and shards, each once, without folders that lie inside another.

    A shard in a folder is looked into only if it is named itself.

    Raises: SourceError if one is missing or is neither a folder nor an uncompressed tar.
    """
    for folder in folders:
        if not folder.exists():
            raise SourceError(f"There is no folder {folder}. Check the name, or mount the disk that it is on.")
        if not is_source(folder):
            raise SourceError(
                f"{folder} is not a folder, and no uncompressed tar. Give the folder that the pictures are in."
            )
    absolute = sorted({folder.resolve() for folder in folders})
    return [one for one in absolute if not one.is_dir() or not any(other in one.parents for other in absolute)]


def _could_be_picture(entry: os.DirEntry) -> bool:
    if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
        return True
    with open(entry.path, "rb") as file:
        return sniff_format(file.read(HEAD_BYTES)) is not None
