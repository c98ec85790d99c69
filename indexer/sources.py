"""From a folder, a tar shard or a list, on a disk or behind a URL, to the files in it that could be pictures.

A file could be a picture when its suffix or its first bytes say so. Hidden files and folders, other programs' caches,
and folders that hold a collection are not looked at. Links to folders are not followed; links to files are. Of a shard
each picture is a file with a path of its own (`members`). Behind a URL first bytes are asked for only where there is
no suffix. What a list names is a picture.

Rule: this module only looks: it opens nothing but the first bytes of files with a foreign suffix, and writes nothing.
"""

import errno
import fnmatch
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from pathlib import Path

from indexer.errors import SourceError
from indexer.kinds import FOLDER, LIST, SHARD, read_list, recognise
from indexer.layout import LARGEST, clamp_time, is_collection
from indexer.members import Known, find_cause, find_shard, list_members, stat_file
from indexer.remote import Stamp, StoreError, StoreSilent, list_remote, read_remote, stat_remote
from indexer.shards import SHARD_SUFFIX, make_printable
from indexer.urls import is_remote, resolve, spell
from seer_model.errors import PictureError
from seer_model.formats import PICTURE_SUFFIXES, sniff_format

SKIPPED_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"})
HEAD_BYTES = 64
log = logging.getLogger(__name__)
ASKED_AT_ONCE = 16
"""Requests to a store that are under way together; and they are handed out by so many times this."""
ASKED_AHEAD = 64 * ASKED_AT_ONCE


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
    list_known: Callable[[Path], list[tuple[str, int, int, int | None]]] = lambda shard: []
    """What is known of the pictures in a shard, if all is that these globs let through: where one elsewhere has not
    changed, its headers, which lie all over it, are not read again."""
    ignored: int = 0
    """Files that are no pictures, or were excluded."""
    matched: set[str] = field(default_factory=set)
    """Globs of `exclude` that something was passed over for."""
    unreadable: list[str] = field(default_factory=list)
    """Files and folders that may not be looked at: nothing is known of what they hold."""
    because: str = ""
    """Why not, of the first of them."""
    absent: int = 0
    """Files that lists name and that are not there."""
    mounts: list[str] = field(default_factory=list)
    """Folders that are disks of their own."""
    shards: list[str] = field(default_factory=list)
    """Files with the suffix .tar; they count as ignored too."""

    def __iter__(self) -> Iterator[FoundFile]:
        for source in self.folders:
            kind = recognise(source)
            if kind == LIST:
                yield from self._look_into_list(source)
            elif kind == SHARD:
                yield from self._try(source, self._look_into_shard)
            elif is_remote(source):
                yield from self._try(source, self._look_elsewhere)
            else:
                yield from self._look_below(source)

    def _look_below(self, folder: Path) -> Iterator[FoundFile]:
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

    def _try(self, source: Path, look: Callable[[Path], Iterator[FoundFile]]) -> Iterator[FoundFile]:
        try:
            yield from look(source)
        except (SourceError, PictureError, OSError) as error:
            self._note_unreadable(str(source), error)

    def _look_into_shard(self, shard: Path) -> Iterator[FoundFile]:
        known = self.list_known(shard) if is_remote(shard) else []
        if known and all(Known(*stamp).find(shard, path) for path, *stamp in known):
            yield from (FoundFile(path, *stamp) for path, *stamp in known)
            return
        for path, stamp in list_members(shard).items():
            if self._is_left_out(shard, path):
                self.ignored += 1
            else:
                yield _note(path, stamp)

    def _look_elsewhere(self, root: Path) -> Iterator[FoundFile]:
        listed = list_remote(root)
        with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="listing") as threads:
            while page := list(islice(listed, ASKED_AHEAD)):
                for (path, _), stamp in zip(page, threads.map(_look_at_elsewhere, page), strict=True):
                    is_unwanted = self._is_hidden(root, path) or self._is_left_out(root, path)
                    if isinstance(stamp, OSError):
                        self._note_unreadable(path, stamp)
                    elif stamp is None or is_unwanted:
                        self.ignored += 1
                        self.shards += [path] if path.lower().endswith(SHARD_SUFFIX) and not is_unwanted else []
                    else:
                        yield _note(path, stamp)

    def _look_into_list(self, source: Path) -> Iterator[FoundFile]:
        missing = found = 0
        paths, stat_one = list_named([source]), partial(_stat, silent=set())
        with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="listing") as threads:
            while page := list(islice(paths, ASKED_AHEAD)):
                for path, stamp in zip(page, threads.map(stat_one, page), strict=True):
                    if self._is_left_out(source.parent, path):
                        self.ignored += 1
                    elif isinstance(stamp, Exception):
                        missing += self._note_missing(path, stamp)
                    else:
                        found += 1
                        yield _note(path, stamp)
        if missing and not found:
            raise SourceError(
                f"Of the list {spell(source)} nothing that it names is there. If that is on a disk, mount it; if it is "
                f"gone for good, take the list out: seer forget {spell(source)}"
            )

    def _note_missing(self, path: str, error: Exception) -> bool:
        """Returns: whether what a list names is gone, and not only away with its disk."""
        is_gone = isinstance(error, FileNotFoundError) and (is_remote(path) or os.path.isdir(os.path.dirname(path)))
        if is_gone:
            log.warning("%s is on a list and not there", make_printable(spell(path)))
            self.absent += 1
        else:
            self._note_unreadable(path, error)
        return is_gone

    def _note_unreadable(self, path: str, error: Exception) -> None:
        told = getattr(error, "strerror", None) or str(error)
        log.warning("%s: %s", make_printable(spell(path)), told)
        self.unreadable.append(path)
        self.because = self.because or told

    def _is_hidden(self, root: Path, path: str) -> bool:
        *folders, name = path[len(str(root)) + 1 :].split("/")
        hidden = name.startswith("."), *(one.startswith(".") or one.lower() in SKIPPED_FOLDERS for one in folders)
        return any(hidden)

    def _is_left_out(self, root: Path, path: str) -> bool:
        """Whether a glob names a file that is no entry of a folder, or one of the folders above it."""
        if not self.exclude:
            return False
        below = path[len(str(root)) + 1 :] if path.startswith(f"{root}{os.sep}") else path.lstrip(os.sep)
        above = accumulate(below.split("/"), "{}/{}".format)
        whole = path[: len(path) - len(below)]
        return any(self._is_passed_over((os.path.basename(one), one), whole + one) for one in above)

    def _look_at(self, entry: os.DirEntry) -> FoundFile | None:
        try:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode) or not _could_be_picture(entry):
                self._note_shard(entry)
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note_unreadable(entry.path, error)
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
        except OSError as error:
            self._note_unreadable(folder, error)
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
            is_whole = os.path.isabs(glob) or is_remote(glob)
            spellings = (spell(path),) if is_whole else below
            # As people write it: raw/, ./raw
            pattern = glob if is_remote(glob) else os.path.normpath(glob)
            if any(fnmatch.fnmatch(spelling, pattern) for spelling in spellings):
                self.matched.add(glob)
                return True
        return False


def _read_device(folder: str) -> int | None:
    try:
        return os.lstat(folder).st_dev
    except OSError:
        return None


def resolve_folders(folders: list[Path]) -> list[Path]:
    """Absolute sources, each once, without folders that lie inside another.

    A shard or a list in a folder is looked into only if it is named itself. URLs stay as they are; nobody is asked.

    Raises: SourceError if one is missing, or is neither a folder nor an uncompressed tar nor a list of paths.
    """
    for folder in folders:
        recognise(folder)
    absolute = sorted({resolve(folder) for folder in folders})
    return [
        one for one in absolute if recognise(one) != FOLDER or not any(other in one.parents for other in absolute)
    ]


def require_listing(source: Path) -> None:
    """Say at once what is wrong with a shard, a list or a URL: later builds go on without. Raises: SourceError."""
    kind = recognise(source)
    try:
        if kind == LIST:
            next(read_list(source), None)
        elif kind == SHARD:
            list_members(source)
        elif is_remote(source):
            next(list_remote(source), None)
    except (PictureError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(
            f"{spell(source)} cannot be looked through ({reason}). Check the name, and who may read there."
        ) from None


def list_named(lists: Iterable[Path]) -> Iterator[str]:
    """The paths that lists name. Raises: SourceError."""
    folders: dict[str, str] = {}
    for source in lists:
        require_listing(source)
        for line in read_list(source):
            if is_remote(line):
                yield str(resolve(Path(line)))
                continue
            above, name = os.path.split(os.path.join(source.parent, line))
            if above not in folders:
                folders[above] = str(resolve(Path(above)))
            yield os.path.join(folders[above], name)


def _note(path: str, stamp: os.stat_result | Stamp) -> FoundFile:
    return FoundFile(path, stamp.st_size, clamp_time(stamp.st_mtime_ns), stamp.st_ino & LARGEST)


def _stat(path: str, silent: set[Path]) -> os.stat_result | Stamp | Exception:
    """The stamp, or why there is none. `silent`: stores that gave no answer; others there are not waited for."""
    store = Path(*Path(path).parts[:2])
    if store in silent:
        return StoreSilent(errno.ETIMEDOUT, "its store gave no answer a moment ago")
    try:
        status = stat_file(path)
    except (OSError, PictureError) as error:
        silent |= {store} if isinstance(find_cause(error), StoreSilent) else set()
        return error
    is_file = isinstance(status, Stamp) or stat.S_ISREG(status.st_mode)
    return status if is_file else PictureError("It is no regular file.")


def _look_at_elsewhere(listed: tuple[str, Stamp | None]) -> Stamp | OSError | None:
    """The stamp of what could be a picture, or why it cannot be read; None of anything else. Raises: StoreError."""
    path, stamp = listed
    suffix = os.path.splitext(path)[1].lower()
    try:
        is_empty = stamp is not None and not stamp.st_size
        if suffix not in PICTURE_SUFFIXES and (suffix or is_empty or not _begins_as_picture(path)):
            return None
        if str(Path(path)) != path or find_shard(path):
            return OSError(errno.EINVAL, "its name cannot be kept: leave // and /./ and folders called *.tar out of it")
        return stamp or stat_remote(path)
    except FileNotFoundError:
        return None
    except StoreError:
        raise
    except OSError as error:
        return error


def _begins_as_picture(path: str) -> bool:
    return sniff_format(read_remote(path, 0, HEAD_BYTES)) is not None


def _could_be_picture(entry: os.DirEntry) -> bool:
    if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES:
        return True
    with open(entry.path, "rb") as file:
        return sniff_format(file.read(HEAD_BYTES)) is not None
