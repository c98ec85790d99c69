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
from dataclasses import replace
from pathlib import Path

from indexer.errors import SourceError
from indexer.remote import Stamp, read_remote, stat_remote
from indexer.shards import Place, list_named, read_place
from indexer.urls import is_remote
from seer_model.errors import PictureError

SHARD_SUFFIX = ".tar"
"""Of a shard that is not on a disk: what it is cannot be looked up for each file in it."""

BELIEVED_SECONDS = 30.0
"""For so long the stamp of a shard elsewhere holds: each look at one of its members would be a question."""
REMEMBERED = 8
"""Shards whose headers are kept: 10 MB for each 64,000 members."""


class Contents:
    """What lies in the latest shards. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Stamp, dict[str, Place]]] = {}
        self._asked: dict[str, float] = {}

    def read(self, shard: Path) -> tuple[Stamp, dict[str, Place]]:
        """A shard's own stamp, and name -> place of its pictures. Raises: SourceError, OSError."""
        with self._lock:
            known = self._known.get(str(shard))
            if known and is_remote(shard) and time.monotonic() - self._asked[str(shard)] < BELIEVED_SECONDS:
                return known
        status = _stat_shard(shard)
        with self._lock:
            known = self._known.pop(str(shard), None)
            self._asked[str(shard)] = time.monotonic()
            if known is None or known[0] != status:
                known = status, _list_places(shard)
            self._known[str(shard)] = known
            for oldest in list(self._known)[:-REMEMBERED]:
                del self._known[oldest]
        return status, known[1]


def is_picture_there(path: Path) -> bool:
    """Whether a file lies here, or a picture in a shard."""
    try:
        status = stat_file(path)
    except (OSError, PictureError):
        return False
    return isinstance(status, Stamp) or stat.S_ISREG(status.st_mode)


def list_members(shard: Path) -> dict[str, Stamp]:
    """Path -> stamp of each picture in a shard, in its order. Raises: SourceError, OSError."""
    status, places = _contents.read(shard)
    return {f"{shard}/{name}": _stamp(status, place) for name, place in places.items()}


def stat_file(path: str | Path) -> os.stat_result | Stamp:
    """The stamp of a file, or of a picture in a shard. Raises: PictureError, OSError."""
    if is_remote(path) and find_shard(path) is None:
        return stat_remote(path)
    try:
        return os.stat(path)
    except NotADirectoryError:
        status, place = find_member(path)
        return _stamp(status, place)


def read_elsewhere(path: str | Path) -> tuple[bytes, Stamp]:
    """The bytes of a picture behind a URL, and its stamp. Raises: PictureError, SourceError, OSError."""
    if find_shard(path) is not None:
        return read_member(path)
    stamp = stat_remote(path)
    data = read_remote(path)
    if stamp.st_size and len(data) != stamp.st_size:
        raise PictureError("The file changed while it was read; the next build tries again.")
    return data, replace(stamp, st_size=len(data))


def read_member(path: str | Path) -> tuple[bytes, Stamp]:
    """The bytes of a picture in a shard, and its stamp. Raises: PictureError, OSError."""
    status, place = find_member(path)
    data = read_place(place)
    require_unchanged(place.path, status)
    return data, _stamp(status, place)


def require_unchanged(shard: str | Path, status: Stamp) -> None:
    """What was read is what was meant: the shard's stamp is still this one. Raises: PictureError, OSError."""
    if _stat_shard(Path(shard)) != status:
        raise PictureError("The shard changed while it was read; the next build tries again.")


def find_shard(path: str | Path) -> Path | None:
    """The shard that this path leads into, if it does."""
    above = Path(path).parents
    if is_remote(path):
        return next((one for one in above if one.suffix == SHARD_SUFFIX), None)
    return next((one for one in above if one.is_file()), None)


def find_member(path: str | Path) -> tuple[Stamp, Place]:
    """The stamp of a picture's shard, and its place there. Raises: PictureError, OSError, StoreError among them."""
    spelled, shard = os.fspath(path), find_shard(path)
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
            places.setdefault("/".join(parts), place)
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
