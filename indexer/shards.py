"""Where the bytes of a picture lie: a file of its own, or a stretch of a tar shard, on a disk or behind a URL.

A shard is an uncompressed tar of pictures, as WebDataset writes them; members that are no pictures (.json, .cls, .txt)
are passed over. Python's tarfile reads the headers, so long names, pax and GNU headers are known; a member's bytes are
read straight from their place in the shard.

Rule: nothing is unpacked. A member's name is shown to a person and never opened.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from indexer.errors import SourceError
from indexer.remote import open_remote, read_remote
from indexer.urls import is_remote, spell
from seer_model.errors import PictureError
from seer_model.formats import PICTURE_SUFFIXES, sniff_format

MAX_PICTURE_BYTES = 2 << 30
SHARD_SUFFIX = ".tar"
"""By which a shard is known behind a URL, and noticed in a folder."""
HEAD_BYTES = 64
HEADER_ERRORS = (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError, EOFError, MemoryError)
"""What tarfile throws at damaged headers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of one picture lie."""

    path: str
    """The file on the disk; a name that is not UTF-8 is in surrogate escapes."""
    offset: int
    """Of the first byte in that file. 0: the file is the picture, for a tar begins with a header."""
    size_bytes: int
    name: str
    """To show a person, printable: the path, or "shard.tar:000017.webp"."""


def is_shard(path: Path) -> bool:
    """Whether an uncompressed tar lies here, by its first header, whatever its suffix.

    Raises: OSError if the file cannot be read.
    """
    try:
        with tarfile.open(path, "r:"):
            return True
    except HEADER_ERRORS:
        return False


def list_pictures(path: Path) -> Iterator[Place]:
    """The members of a shard that could be pictures, by suffix or first bytes, in the shard's order.

    The headers are read and what lies between them is skipped: 64,000 members take 1.5 s. Links, folders, sparse
    members and hidden ones (a part of the name begins with a dot) are none.

    Raises: SourceError if this is no uncompressed tar, or if it is cut short or damaged: tarfile alone would take a
        damaged header for the end, and the rest of the shard would be missing without a word.
    """
    return (place for _, place in list_named(path))


def list_named(path: Path) -> Iterator[tuple[str, Place]]:
    """The same, each after its name in the shard; one that is not UTF-8 is in surrogate escapes. Raises: as there."""
    try:
        with (
            _open(path) as file,
            tarfile.open(path, "r:", fileobj=file, encoding="utf-8", errors="surrogateescape") as tar,
        ):
            for member in _list_members(tar):
                if _could_be_picture(tar, member):
                    name = make_printable(f"{path.name}:{member.name}")
                    yield member.name, Place(str(path), member.offset_data, member.size, name)
    except HEADER_ERRORS as error:
        raise SourceError(
            f"The shard {spell(path)} is no whole uncompressed tar ({error}). Copy it again from where it came, "
            "or leave it out."
        ) from error
    except OSError as error:
        raise SourceError(f"The shard {spell(path)} cannot be read ({error.strerror or error}).") from error


def read_place(place: Place) -> bytes:
    """The bytes of one picture.

    Raises: PictureError, without the name, if they are not there in full: the file vanished, changed its size or was
        cut, may not be read, or is no regular file.
    """
    try:
        if is_remote(place.path):
            return _read_elsewhere(place)
        _require_whole(place, os.stat(place.path))
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            data = file.read(place.size_bytes)
    except FileNotFoundError as error:
        raise PictureError("The file is not there (any more); restore it, or take it off the list.") from error
    except OSError as error:
        raise PictureError(f"The file could not be read ({error.strerror or error}).") from error
    _require_size(place, data)
    return data


def _read_elsewhere(place: Place) -> bytes:
    _require_readable(place)
    data = read_remote(place.path, place.offset or None, place.size_bytes)
    _require_size(place, data)
    return data


def _require_size(place: Place, data: bytes) -> None:
    if len(data) != place.size_bytes:
        raise PictureError(f"The file changed while it was read: {len(data)} of {place.size_bytes} bytes came.")


def _open(path: Path) -> AbstractContextManager[IO[bytes] | None]:
    return open_remote(path) if is_remote(path) else nullcontext()


def make_printable(name: str) -> str:
    """A name without what would move a terminal's cursor or cannot be written as UTF-8: escapes in their place."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def _list_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    last = -1
    while (member := tar.next()) is not None:
        # tarfile keeps every header it has read: more than a gigabyte for a million members.
        tar.members.clear()
        if member.size < 0 or tar.offset <= last:
            raise tarfile.ReadError("a header that points backwards")
        last = tar.offset
        yield member
    _require_end(tar)


def _require_end(tar: tarfile.TarFile) -> None:
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"at byte {tar.offset} is neither a header nor the end")


def _could_be_picture(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    parts = member.name.split("/")
    if not member.isreg() or member.issparse() or any(part.startswith(".") and part.strip(".") for part in parts):
        return False
    if os.path.splitext(parts[-1])[1].lower() in PICTURE_SUFFIXES:
        return True
    tar.fileobj.seek(member.offset_data)
    return sniff_format(tar.fileobj.read(min(HEAD_BYTES, member.size))) is not None


def _require_whole(place: Place, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("It is not a regular file.")
    _require_readable(place)
    if place.offset == 0 and status.st_size != place.size_bytes:
        raise PictureError(f"The file changed: it has {status.st_size} bytes, and had {place.size_bytes} when listed.")
    if status.st_size < place.offset + place.size_bytes:
        raise PictureError(f"The shard was cut: it ends at byte {status.st_size}, before the end of this picture.")


def _require_readable(place: Place) -> None:
    if place.size_bytes > MAX_PICTURE_BYTES:
        raise PictureError(f"It has {place.size_bytes >> 20} MB; above {MAX_PICTURE_BYTES >> 20} MB nothing is read.")
