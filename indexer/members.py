"""Pictures in a tar shard as files of their own, `SHARD.tar/name/in/it.jpg`, and those behind URLs.

A shard's headers are read once, and again when its stamp has changed; a picture's bytes are read from their place. The
stamp of a member is its size and the shard's time: who writes a shard anew has all of it looked at again.

Rule: of several members with one name the first counts, for whoever lists and for whoever reads.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from indexer.errors import SourceError
from indexer.layout import LARGEST, clamp_time
from indexer.remote import Stamp, StoreError, read_at_most, stat_remote
from indexer.shards import SHARD_SUFFIX, Place, list_named, make_printable, read_place
from indexer.urls import is_remote
from seer_model.errors import PictureError

UNREAD = (PictureError, SourceError, OSError, MemoryError)
Answer = TypeVar("Answer")
BELIEVED_SECONDS = 30.0
"""For so long the stamp of a shard elsewhere holds: each look at one of its members would be a question."""
MAX_FILE_BYTES = 2 << 30
MAX_UNSIZED_BYTES = 256 << 20
"""Of a file whose size a web server does not tell; nobody knows beforehand how many such are in memory together."""
FAILED_SECONDS = 5.0
REMEMBERED = 8
"""Shards whose headers are kept: 10 MB for each 64,000 members."""


@dataclass(frozen=True)
class Known:
    """What a catalog knows of a picture in a shard."""

    size_bytes: int
    mtime_ns: int
    inode: int | None

    def find(self, shard: Path, path: str) -> tuple[Stamp, Place] | None:
        """The shard's stamp, and the place of the picture in it; None if the shard is another one by now.

        No header is read: a member's stamp is made of the shard's and of its place, so that two give the third.
        """
        status = _contents.stat(shard)
        offset = (self.inode or 0) ^ (status.st_ino & LARGEST)
        is_inside = 0 < offset <= status.st_size - self.size_bytes
        if self.inode is None or clamp_time(status.st_mtime_ns) != self.mtime_ns or not is_inside:
            return None
        return status, Place(str(shard), offset, self.size_bytes, make_printable(path))


class Contents:
    """What lies in the latest shards. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Stamp, dict[str, Place]]] = {}
        self._asked: dict[str, tuple[float, Stamp]] = {}
        self._reading: dict[str, threading.Lock] = {}
        self._failed: dict[tuple[str, str], tuple[float, Exception]] = {}

    def stat(self, shard: Path) -> Stamp:
        """A shard's own stamp; of one elsewhere that of a moment ago will do. Raises: PictureError, OSError."""
        asked, status = self._asked.get(str(shard), (0.0, None))
        if status is None or not is_remote(shard) or time.monotonic() - asked > BELIEVED_SECONDS:
            status = self._try(shard, _stat_shard)
            self.note(shard, status)
        return status

    def note(self, shard: Path, status: Stamp) -> None:
        """What a shard's stamp is now."""
        self._asked[str(shard)] = time.monotonic(), status

    def _try(self, shard: Path, read: Callable[[Path], Answer]) -> Answer:
        """What it reads; or how that failed a moment ago: each of a shard's members would wait for the same answer."""
        key = (read.__name__, str(shard))
        until, error = self._failed.get(key, (0.0, None))
        if error and time.monotonic() < until:
            raise error.with_traceback(None)
        try:
            return read(shard)
        except (StoreError, SourceError) as error:
            if is_remote(shard):
                self._failed[key] = time.monotonic() + FAILED_SECONDS, error
            raise

    def read(self, shard: Path) -> tuple[Stamp, dict[str, Place]]:
        """The same, and name -> place of its pictures. Raises: SourceError, PictureError, OSError."""
        status = self.stat(shard)
        with self._lock:
            reading = self._reading.setdefault(str(shard), threading.Lock())
        # Who asks for another shard meanwhile does not wait for this one; who asks for the same does not read it, too.
        with reading:
            known = self._known.get(str(shard))
            places = known[1] if known and known[0] == status else self._try(shard, _list_places)
            self._keep(shard, status, places)
        return status, places

    def _keep(self, shard: Path, status: Stamp, places: dict[str, Place]) -> None:
        with self._lock:
            self._known.pop(str(shard), None)
            self._known[str(shard)] = status, places
            for oldest in list(self._known)[:-REMEMBERED]:
                del self._known[oldest]
                self._reading.pop(oldest, None)


def is_picture_there(path: Path) -> bool:
    """Whether a file lies here, or a picture in a shard. Raises: StoreError."""
    try:
        status = stat_file(path)
    except StoreError:
        raise
    except (OSError, PictureError):
        return False
    return isinstance(status, Stamp) or stat.S_ISREG(status.st_mode)


def list_members(shard: Path) -> dict[str, Stamp]:
    """Path -> stamp of each picture in a shard, in its order. Raises: SourceError, OSError."""
    status, places = _contents.read(shard)
    return {f"{shard}/{name}": _stamp(status, place) for name, place in places.items()}


def stat_file(path: str | Path, known: Known | None = None) -> os.stat_result | Stamp:
    """The stamp of a file, or of a picture in a shard. `known`: as `read_elsewhere`. Raises: PictureError, OSError."""
    if is_remote(path) and find_shard(path) is None:
        return stat_remote(path)
    if not is_remote(path):
        with suppress(NotADirectoryError):
            return os.stat(path)
    status, place = find_member(path, known)
    return _stamp(status, place)


def read_elsewhere(path: str | Path, known: Known | None = None) -> tuple[bytes, Stamp]:
    """The bytes of a picture behind a URL, and its stamp. `known`: saves the way through the headers of its shard.

    Raises: PictureError, SourceError, OSError.
    """
    if find_shard(path) is not None:
        return read_member(path, known)
    stamp = stat_remote(path)
    data = read_sized(path, stamp.st_size)
    return data, replace(stamp, st_size=len(data))


def read_sized(path: str | Path, size_bytes: int) -> bytes:
    """All bytes of a picture behind a URL.

    Args:
        size_bytes: what its store says; 0 where it does not.
    Raises: PictureError, SourceError, OSError.
    """
    require_size(size_bytes)
    data = read_at_most(path, size_bytes or MAX_UNSIZED_BYTES)
    if not size_bytes:
        if data is None:
            raise PictureError(
                f"The file has {MAX_UNSIZED_BYTES >> 20} MB or more, and its server does not say how many; files "
                f"above {MAX_UNSIZED_BYTES >> 20} MB are not read."
            )
        return data
    if data is None or len(data) != size_bytes:
        raise PictureError("The file changed while it was read; the next build tries again.")
    return data


def require_size(size_bytes: int) -> None:
    """Raises: PictureError of a file that is too large to be read at all."""
    if size_bytes > MAX_FILE_BYTES:
        raise PictureError(f"The file has {size_bytes >> 20} MB; files above {MAX_FILE_BYTES >> 20} MB are not read.")


def read_member(path: str | Path, known: Known | None = None) -> tuple[bytes, Stamp]:
    """The bytes of a picture in a shard, and its stamp. Raises: PictureError, OSError."""
    status, place = find_member(path, known)
    data = read_place(place)
    require_unchanged(place.path, status)
    return data, _stamp(status, place)


def require_unchanged(shard: str | Path, status: Stamp) -> None:
    """What was read is what was meant: the shard's stamp is still this one. Raises: PictureError, OSError."""
    if (found := _stat_shard(Path(shard))) != status:
        _contents.note(Path(shard), found)
        raise PictureError("The shard changed while it was read; the next build tries again.")


def find_cause(error: BaseException) -> BaseException:
    """What the disk or the store said, where something else was made of it."""
    while isinstance(error, PictureError | SourceError) and isinstance(error.__cause__, UNREAD):
        error = error.__cause__
    return error


def find_shard(path: str | Path) -> Path | None:
    """The shard that this path leads into, if it does."""
    above = Path(path).parents
    if is_remote(path):
        return next((one for one in above if one.suffix.lower() == SHARD_SUFFIX), None)
    return next((one for one in above if one.is_file()), None)


def find_member(path: str | Path, known: Known | None = None) -> tuple[Stamp, Place]:
    """The stamp of a picture's shard, and its place there. Raises: PictureError, OSError, StoreError among them."""
    spelled, shard = os.fspath(path), find_shard(path)
    if known and shard and is_remote(shard) and (found := known.find(shard, spelled)):
        return found
    nothing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), spelled)
    if shard is None:
        raise nothing
    try:
        status, places = _contents.read(shard)
    except SourceError as error:
        raise PictureError(str(error)) from error
    place = places.get(spelled[len(str(shard)) + 1 :])
    if place is None:
        raise nothing
    return status, place


def _list_places(shard: Path) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for name, place in list_named(shard):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        # A name that leads out of the shard would be another file's.
        if parts and ".." not in parts:
            places["/".join(parts)] = place  # Of several of one name the last, as whatever unpacks them has it.
    return places


def _stat_shard(shard: Path) -> Stamp:
    if is_remote(shard):
        return stat_remote(shard)
    status = os.stat(shard)
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("It is no longer a regular file.")
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def _stamp(status: Stamp, place: Place) -> Stamp:
    return Stamp(place.size_bytes, status.st_mtime_ns, status.st_ino ^ place.offset)


_contents = Contents()
