"""The originals of images: the bytes of one of their files, if that still holds them, or why there are none.

Behind a URL a look at one would be a transfer of all of it, and a page looks several times: what came last is kept, and
handed out again while its store tells the same stamp. A store that gives no answer is left alone for a while.

Rule: what is handed out has the content hash that was asked for.
"""

import errno
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from indexer.catalog_reader import CatalogReader, ImageDetails
from indexer.decode import hash_content, read_whole
from indexer.errors import SourceError
from indexer.members import Stamp, stat_file
from indexer.remote import StoreError
from indexer.urls import is_remote
from seer_model.errors import PictureError

KEPT_BYTES = 64 << 20
LEFT_ALONE_SECONDS = 30.0
_NAMED_SO = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIC", "JXL")
MEDIA_TYPES = {name: f"image/{name.lower()}" for name in _NAMED_SO}


class Absence(IntEnum):
    """Why there is no original. Of an image's files the one that says most counts."""

    GONE = 0
    """There is no file any more."""
    AWAY = 1
    """It cannot be read at present."""
    CHANGED = 2
    """It holds something else."""


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
            found = self._try(path)
            if isinstance(found, bytes):
                if hash_content(found).hex() == image.content_hash:
                    return found
                found = Absence.CHANGED
            absence = max(absence, found)
        return absence

    def _try(self, path: Path) -> bytes | Absence:
        try:
            return self._read_elsewhere(path) if is_remote(path) else read_whole(path)[0]
        except (FileNotFoundError, IsADirectoryError):
            return Absence.GONE
        except PictureError:
            return Absence.CHANGED
        except (OSError, SourceError):
            return Absence.AWAY

    def _read_elsewhere(self, path: Path) -> bytes:
        store = Path(*path.parts[:2])
        if time.monotonic() < self._left_alone.get(store, 0.0):
            raise StoreError(errno.ETIMEDOUT, "its store gave no answer a moment ago")
        try:
            return self._read_anew(path)
        except StoreError:
            self._left_alone[store] = time.monotonic() + LEFT_ALONE_SECONDS
            raise

    def _read_anew(self, path: Path) -> bytes:
        known = self._catalog.read_known(path)
        kept = self._kept.get(path)
        if kept and stat_file(path, known) == kept[0]:
            return kept[1]
        data, stamp = read_whole(path, known)
        if stamp.st_mtime_ns or stamp.st_ino:  # Else nothing would tell that it is another one.
            self._kept = dict(_fit([(path, (stamp, data)), *self._kept.items()]))
        return data


def _fit(kept: Iterable[tuple[Path, tuple[Stamp, bytes]]]) -> Iterable[tuple[Path, tuple[Stamp, bytes]]]:
    """The newest of them, each once, as far as they may be kept."""
    total, seen = 0, set()
    for path, (stamp, data) in kept:
        total += len(data)
        if path not in seen and total <= KEPT_BYTES:
            seen.add(path)
            yield path, (stamp, data)
