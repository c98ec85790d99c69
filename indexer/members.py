"""Pictures in a tar shard as files of their own: `SHARD.tar/name/in/it.jpg`.

A shard's headers are read once, and again when its stamp has changed; a picture's bytes are read from their place. The
stamp of a member is its size and the shard's time: who writes a shard anew has all of it looked at again.

Rule: of several members with one name the first counts, for whoever lists and for whoever reads.
"""

import errno
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import SourceError
from indexer.shards import Place, is_shard, list_named, read_place
from seer_model.errors import PictureError

REMEMBERED = 8
"""Shards whose headers are kept: 10 MB for each 64,000 members."""


@dataclass(frozen=True)
class Stamp:
    """What a file system would say of a member, were it a file."""

    st_size: int
    st_mtime_ns: int
    st_ino: int


class Contents:
    """What lies in the latest shards. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Place]]] = {}

    def read(self, shard: Path) -> tuple[os.stat_result, dict[str, Place]]:
        """A shard's own stamp, and name -> place of its pictures. Raises: SourceError, OSError."""
        status = shard.stat()
        with self._lock:
            known = self._known.pop(str(shard), None)
            if known is None or known[0] != _tell_apart(status):
                known = _tell_apart(status), _list_places(shard)
            self._known[str(shard)] = known
            for oldest in list(self._known)[:-REMEMBERED]:
                del self._known[oldest]
        return status, known[1]


def is_source(path: Path) -> bool:
    """Whether pictures may be looked for here: a folder, or an uncompressed tar."""
    try:
        return path.is_dir() or (path.is_file() and is_shard(path))
    except OSError:
        return False


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
    try:
        return os.stat(path)
    except NotADirectoryError:
        status, place = _find(path)
        return _stamp(status, place)


def read_member(path: str | Path) -> tuple[bytes, Stamp]:
    """The bytes of a picture in a shard, and its stamp. Raises: PictureError, OSError."""
    status, place = _find(path)
    data = read_place(place)
    if _tell_apart(os.stat(place.path)) != _tell_apart(status):
        raise PictureError("The shard changed while it was read; the next build tries again.")
    return data, _stamp(status, place)


def _find(path: str | Path) -> tuple[os.stat_result, Place]:
    spelled = os.fspath(path)
    shard = next((above for above in Path(spelled).parents if above.is_file()), None)
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


def _tell_apart(status: os.stat_result) -> tuple[int, ...]:
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("It is no longer a regular file.")
    return status.st_size, status.st_mtime_ns, status.st_ino


def _stamp(status: os.stat_result, place: Place) -> Stamp:
    return Stamp(place.size_bytes, status.st_mtime_ns, status.st_ino ^ place.offset)


_contents = Contents()
