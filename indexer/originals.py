"""The originals of images: the bytes of one of their files, if that still holds them, or why there are none.

Behind a URL a look at one would be a transfer of all of it, and a page looks several times: what came last is kept, and
handed out again while its store tells the same stamp. A store that gives no answer is left alone for a while.

Rule: what is handed out has the content hash that was asked for.
"""

import errno
import time
from enum import IntEnum
from os import stat_result
from pathlib import Path

from indexer.catalog_reader import CatalogReader, ImageDetails
from indexer.decode import hash_content, read_whole
from indexer.errors import SourceError
from indexer.members import UNREAD, Stamp, find_cause, stat_file
from indexer.remote import StoreSilent, give_up_sooner
from indexer.shards import HEADER_ERRORS
from indexer.urls import is_remote
from seer_model.errors import PictureError

KEPT_BYTES = 64 << 20
LEFT_ALONE_SECONDS = 30.0
_NAMED_SO = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIC", "JXL")
MEDIA_TYPES = {name: f"image/{name.lower()}" for name in _NAMED_SO}


class Absence(IntEnum):
    """Why there is no original. Of an image's files the one that leaves most open counts."""

    GONE = 0
    """There is no file any more."""
    CHANGED = 1
    """It holds something else."""
    AWAY = 2
    """It cannot be read at present."""


class Originals:
    """What a collection reads originals with. Threads may share it."""

    def __init__(self, catalog: CatalogReader) -> None:
        self._catalog = catalog
        self._kept: dict[Path, tuple[Stamp, bytes]] = {}
        self._left_alone: dict[Path, float] = {}

    def read(self, image: ImageDetails) -> tuple[bytes, str] | None:
        """The bytes of an image's file, and their media type; None where there are none."""
        found = self.find(image)
        is_there = isinstance(found, bytes)
        return (found, MEDIA_TYPES.get(image.format, "application/octet-stream")) if is_there else None

    def find(self, image: ImageDetails) -> bytes | Absence:
        """The bytes of an image's file, or why there are none."""
        absence = Absence.GONE
        for path in image.paths:
            try:
                data = self._read_elsewhere(path) if is_remote(path) else read_whole(path)[0]
            except UNREAD as error:
                absence = max(absence, explain_absence(error))
                continue
            if hash_content(data).hex() == image.content_hash:
                return data
            absence = max(absence, Absence.CHANGED)
        return absence

    def _read_elsewhere(self, path: Path) -> bytes:
        store, now = Path(*path.parts[:2]), time.monotonic()
        if now < self._left_alone.get(store, 0.0):
            raise StoreSilent(errno.ETIMEDOUT, "its store gave no answer a moment ago")
        try:
            with give_up_sooner():
                return self._read_anew(path)
        except UNREAD as error:
            if isinstance(find_cause(error), StoreSilent):
                # At least as long as it took to know: a page is not to wait most of the time.
                self._left_alone[store] = time.monotonic() + max(LEFT_ALONE_SECONDS, time.monotonic() - now)
            raise

    def _read_anew(self, path: Path) -> bytes:
        known = self._catalog.read_known(path)
        kept = self._kept.get(path)
        if kept and _is_same(stat_file(path, known), kept[0]):
            return kept[1]
        data, stamp = read_whole(path, known)
        if stamp.st_mtime_ns or stamp.st_ino:  # Else nothing would tell that it is another one.
            self._keep(path, stamp, data)
        return data

    def _keep(self, path: Path, stamp: Stamp, data: bytes) -> None:
        others = {one: kept for one, kept in self._kept.items() if one != path}
        kept, left = {}, KEPT_BYTES
        for one, (known, content) in {path: (stamp, data), **others}.items():
            if len(content) <= left:
                kept[one], left = (known, content), left - len(content)
        self._kept = kept  # At once: another thread may look.


def _is_same(stamp: stat_result | Stamp, kept: Stamp) -> bool:
    """Whether a store tells of a file what it told when that was kept; 0: it does not tell the size."""
    is_sized_so = stamp.st_size in (0, kept.st_size)
    return is_sized_so and (stamp.st_mtime_ns, stamp.st_ino) == (kept.st_mtime_ns, kept.st_ino)


def explain_absence(error: BaseException) -> Absence:
    """What it means that a file, or its stamp, could not be read."""
    cause = find_cause(error)
    if isinstance(cause, FileNotFoundError | IsADirectoryError):
        return Absence.GONE
    is_damaged = isinstance(cause, SourceError) and isinstance(cause.__cause__, HEADER_ERRORS)
    return Absence.CHANGED if is_damaged or isinstance(cause, PictureError) else Absence.AWAY
