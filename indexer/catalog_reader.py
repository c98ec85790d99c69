"""The catalog as readers see it: what is searchable, what is not and why, which rows are gone.

Rule: read-only, and safe from several threads: one lock around every question.
"""

import json
import os
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.catalog import READ_MODEL
from indexer.filters import SQUARE_PERCENT, Filter
from indexer.layout import LARGEST, clamp_time
from indexer.members import Known
from indexer.reasons import PENDING, UNPUBLISHED, UNREAD, find_kind, split_reason
from indexer.schema import bound_paths, connect_to_read, explain_damage
from indexer.urls import is_remote, make_absolute, resolve

ASKED_AT_ONCE = 500
HASH_BYTES = 32
"""Of a content hash."""
HASHES_AT_ONCE = 20_000
"""Others may ask between two pieces."""
KEPT_FILTERS = 8
"""Filters whose rows are remembered, 8 bytes for each row that passes."""
KEEPS_GLOBS = 2
"""The first schema that does; an older catalog is read as it is until the next build."""
_HAS_FILE = "EXISTS (SELECT 1 FROM files f WHERE f.image_id = i.image_id)"
_UNSEARCHABLE = """SELECT f.path, coalesce(f.reason, i.reason) AS reason, f.image_id IS NOT NULL AS is_read, f.seen_at
    FROM files f LEFT JOIN images i USING (image_id)
    WHERE f.reason IS NOT NULL OR i.reason IS NOT NULL
    OR NOT EXISTS (SELECT 1 FROM rows r WHERE r.store = ? AND r.image_id = f.image_id AND r.row < ?)"""
"""A failed one has its reason, a pending one has none."""


@dataclass(frozen=True)
class ImageDetails:
    """One image: its content, and every file that holds it. `width` and `height` in pixels, upright."""

    image_id: int
    content_hash: str
    paths: list[Path]
    width: int
    height: int
    format: str
    size_bytes: int
    modified: datetime
    """When the first of its files was last changed, in local time."""

    @property
    def path(self) -> Path:
        """The first of its files."""
        return self.paths[0]


@dataclass(frozen=True)
class FileCopies:
    """An image that several files hold, byte for byte."""

    row: int
    image_id: int
    count: int
    """Of its files."""
    oldest: Path
    """The file that was changed first; of several the first by path."""


@dataclass(frozen=True, kw_only=True)
class UnsearchableFile:
    """A file that was seen and cannot be searched: it failed, or is still to be read."""

    path: Path
    kind: str
    """The name of the reason's kind (`reasons`)."""
    reason: str
    advice: str
    """What to do about it."""
    seen: datetime
    """When it was first seen as it is, in local time."""

    @property
    def is_pending(self) -> bool:
        """Whether it has not failed: the next build reads it."""
        return self.kind == PENDING.name


class FilteredBy(NamedTuple):
    """What filters ask of the image in a row."""

    row: int
    image_id: int
    content_hash: bytes
    size_bytes: int
    width: int
    height: int
    format: str
    shape: str
    files: int
    """That hold it; 0 where it is gone."""
    path: bytes | None
    """Of the first of them."""
    mtime_ns: int | None
    """Of the same."""


class CatalogReader:
    """Answers questions about a catalog that a build may be writing at the same time.

    Raises: CollectionMissing, CatalogTooNew, CollectionDamaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect_to_read(path)
        self._connection.create_function("kind_of", 1, find_kind, deterministic=True)
        self._connection.create_function("crc_of", 1, zlib.crc32, deterministic=True)
        self._lock = threading.Lock()
        self._select_rows_once = lru_cache(KEPT_FILTERS)(self._select_rows)
        self._stamp_files_once = lru_cache(KEPT_FILTERS)(self._stamp_files)
        self._list_copies_once = lru_cache(1)(self._list_copies)
        self._count_subfolders_once = lru_cache(1)(self._count_subfolders)

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._connection.close()

    def _ask(self, query: str, values: tuple = ()) -> list[tuple]:
        with self._lock, explain_damage(self._path):
            return self._connection.execute(query, values).fetchall()

    def read_version(self) -> int:
        """A number that changes with everything that somebody commits to the catalog."""
        return self._ask("PRAGMA data_version")[0][0]

    def list_folders(self) -> list[Path]:
        """The picture folders of this collection."""
        return [Path(os.fsdecode(path)) for (path,) in self._ask("SELECT path FROM folders ORDER BY path")]

    def count_subfolders(self) -> dict[Path, int]:
        """Folder -> files in it and below, for every folder of every file below the picture folders."""
        return self._count_subfolders_once(self.read_version())

    def _count_subfolders(self, _: int) -> dict[Path, int]:
        roots, counts = self.list_folders(), Counter()
        direct = Counter(os.path.dirname(path) for (path,) in self._ask("SELECT path FROM files"))
        for folder, count in direct.items():
            for one in (path := Path(os.fsdecode(folder)), *path.parents):
                if one not in roots and len(one.parts) < 2:
                    break  # What a list names lies below no picture folder.
                counts[one] += count
                if one in roots:
                    break
        return dict(sorted(counts.items()))

    def list_excluded(self) -> list[str]:
        """Globs of what builds pass over in them."""
        if self._ask("PRAGMA user_version")[0][0] < KEEPS_GLOBS:
            return []
        return [os.fsdecode(glob) for (glob,) in self._ask("SELECT glob FROM excluded ORDER BY glob")]

    def read_model(self) -> str | None:
        """The model of the store in use; None before the first."""
        found = self._ask(READ_MODEL)
        return found[0][0] if found else None

    def read_stamps(self, model: str, *, is_failed_known: bool) -> dict[bytes, tuple[int, int]]:
        """Path -> (bytes, mtime in nanoseconds) of the files that a build with this model would leave alone.

        Args:
            is_failed_known: whether what could not be read is among them.
        """
        query = """SELECT f.path, f.size_bytes, f.mtime_ns FROM files f JOIN images i USING (image_id)
            WHERE i.reason IS NOT NULL AND ? OR EXISTS (
                SELECT 1 FROM rows r WHERE r.image_id = f.image_id AND r.store = (
                    SELECT store FROM stores WHERE model = ? ORDER BY opened_at DESC, store DESC LIMIT 1
                ))"""
        found = self._ask(query, (is_failed_known, model))
        return {path: (size_bytes, mtime_ns) for path, size_bytes, mtime_ns in found}

    def read_known(self, path: Path) -> Known | None:
        """What is known of a file behind a URL; of others it is not asked, and older catalogs have less of them."""
        if not is_remote(path):
            return None
        found = self._ask("SELECT size_bytes, mtime_ns, inode FROM files WHERE path = ?", (os.fsencode(path),))
        return Known(*found[0]) if found else None

    def list_living(self, image_ids: list[int]) -> set[int]:
        """Those of these images that still have a file."""
        living: set[int] = set()
        for first in range(0, len(image_ids), ASKED_AT_ONCE):
            asked = image_ids[first : first + ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            living.update(*self._ask(f"SELECT DISTINCT image_id FROM files WHERE image_id IN ({marks})", tuple(asked)))
        return living

    def list_rows(self, store: int, rows: int, where: Filter) -> np.ndarray:
        """(n,) int64, ascending and read-only: which of the store's first `rows` rows have a file and pass."""
        return self._select_rows_once(self.read_version(), store, rows, where)

    def _select_rows(self, _: int, store: int, rows: int, where: Filter) -> np.ndarray:
        conditions = list(_write_conditions(where))
        query = f"""SELECT row FROM rows WHERE store = ? AND row < ? AND image_id IN (
            SELECT f.image_id FROM files f JOIN images i USING (image_id)
            WHERE {" AND ".join(["TRUE", *(text for text, _ in conditions)])})"""
        values = (store, rows, *(value for _, values in conditions for value in values))
        with self._lock, explain_damage(self._path):
            # One after the other: ten million of them as Python's numbers are a gigabyte.
            passing = np.fromiter((row for (row,) in self._connection.execute(query, values)), dtype=np.int64)
        passing.sort()
        passing.flags.writeable = False
        return passing

    def list_filtered_by(self, store: int, first: int, last: int) -> list[FilteredBy]:
        """What filters ask of the images in a store's rows from `first` to before `last`, by row."""
        # Beside min(), SQLite takes the other columns from the row that has the least.
        query = f"""SELECT r.row, r.image_id, i.content_hash, i.size_bytes, i.width, i.height, i.format, {_SHAPE},
                count(f.path), min(f.path), f.mtime_ns
            FROM rows r JOIN images i USING (image_id) LEFT JOIN files f USING (image_id)
            WHERE r.store = ? AND r.row >= ? AND r.row < ? GROUP BY r.row ORDER BY r.row"""
        return [FilteredBy(*found) for found in self._ask(query, (store, first, last))]

    def stamp_files(self, store: int, rows: int) -> str:
        """Another text, once a file of an image in the store's first `rows` rows came, went, moved or was touched."""
        return self._stamp_files_once(self.read_version(), store, rows)

    def _stamp_files(self, _: int, store: int, rows: int) -> str:
        # Weighted by the row: files may swap names. Each part far below what SQLite can add up.
        query = """SELECT count(*), sum((r.row + 1) * crc_of(f.path) % 999983),
                sum((r.row + 1) * (f.mtime_ns % 999979) % 999983)
            FROM rows r JOIN files f USING (image_id) WHERE r.store = ? AND r.row < ?"""
        return "-".join(str(part or 0) for part in self._ask(query, (store, rows))[0])

    def find_row(self, store: int, image_id: int) -> int | None:
        """The row of an image in a store; None if it has none, or if the image is gone."""
        if abs(image_id) > LARGEST:
            return None
        found = self._ask(f"SELECT row FROM rows i WHERE store = ? AND image_id = ? AND {_HAS_FILE}", (store, image_id))
        return found[0][0] if found else None

    def find_image(self, content_hash: bytes) -> int | None:
        """The image with this content; None if there is none, or if it has no file any more."""
        query = f"SELECT image_id FROM images i WHERE content_hash = ? AND reason IS NULL AND {_HAS_FILE}"
        found = self._ask(query, (content_hash,))
        return found[0][0] if found else None

    def read_hashes(self, store: int, rows: np.ndarray) -> np.ndarray:
        """(m, 32) uint8 content hashes of the images of (m,) rows of a store; zeros for a row without one."""
        pieces = (rows[first : first + HASHES_AT_ONCE] for first in range(0, len(rows), HASHES_AT_ONCE))
        found = [np.frombuffer(self._read_hashes(store, piece.tolist()), dtype=np.uint8) for piece in pieces]
        return np.concatenate([np.empty(0, np.uint8), *found]).reshape(-1, HASH_BYTES)

    def _read_hashes(self, store: int, rows: list[int]) -> bytes:
        # CROSS JOIN is SQLite's word for this order: row by row, however few of the store's they are.
        query = """SELECT j.key, i.content_hash FROM json_each(?) j
            CROSS JOIN rows r ON r.store = ? AND r.row = j.value CROSS JOIN images i ON i.image_id = r.image_id"""
        hashes = [bytes(HASH_BYTES)] * len(rows)
        for place, content_hash in self._ask(query, (json.dumps(rows), store)):
            if isinstance(content_hash, bytes) and len(content_hash) == HASH_BYTES:
                hashes[place] = content_hash
        return b"".join(hashes)

    def read_images(self, image_ids: list[int]) -> dict[int, ImageDetails]:
        """Details of those of these images that still have a file."""
        with self._lock, explain_damage(self._path):
            return {
                image_id: details
                for image_id in image_ids
                if (details := _read_image(self._connection, image_id)) is not None
            }

    def list_images(self, store: int, rows: int, first: int, count: int) -> list[int]:
        """Images that have a file and one of the store's first `rows` rows, the newest first."""
        query = f"""SELECT image_id FROM rows i WHERE store = ? AND row < ? AND {_HAS_FILE}
            ORDER BY row DESC LIMIT ? OFFSET ?"""
        return [image_id for (image_id,) in self._ask(query, (store, rows, count, first))]

    def list_copies(self, store: int, rows: int) -> list[FileCopies]:
        """Images among the store's first `rows` rows that several files hold, those with most files first."""
        return self._list_copies_once(self.read_version(), store, rows)

    def _list_copies(self, _: int, store: int, rows: int) -> list[FileCopies]:
        query = """SELECT r.row, c.image_id, c.files,
                (SELECT path FROM files f WHERE f.image_id = c.image_id ORDER BY mtime_ns, path LIMIT 1)
            FROM (SELECT image_id, count(*) AS files FROM files WHERE image_id IS NOT NULL
                GROUP BY image_id HAVING count(*) > 1) c
            JOIN rows r ON r.store = ? AND r.image_id = c.image_id WHERE r.row < ? ORDER BY c.files DESC, r.row"""
        return [FileCopies(*about, Path(os.fsdecode(path))) for *about, path in self._ask(query, (store, rows))]

    def list_unsearchable(
        self, store: int, rows: int, kind: str | None, first: int, count: int
    ) -> list[UnsearchableFile]:
        """Files that have none of the store's first `rows` rows, by path; all of them, or those of one kind."""
        query = f"""SELECT path, reason, is_read, seen_at FROM ({_UNSEARCHABLE})
            WHERE ? IS NULL OR kind_of(reason) = ? ORDER BY path LIMIT ? OFFSET ?"""
        return [_make_unsearchable(*found) for found in self._ask(query, (store, rows, kind, kind, count, first))]

    def count_unsearchable(self, store: int, rows: int) -> dict[str, int]:
        """How many of these files there are of each kind that there is."""
        query = f"SELECT kind_of(reason) AS kind, count(*) FROM ({_UNSEARCHABLE}) GROUP BY kind"
        return dict(self._ask(query, (store, rows)))

    def count_files(self) -> dict[str, int]:
        """`files` that were found, and how many of them `failed`."""
        query = (
            """SELECT count(*), count(coalesce(f.reason, i.reason)) FROM files f LEFT JOIN images i USING (image_id)"""
        )
        files, failed = self._ask(query)[0]
        return {"files": files, "failed": failed}

    def count_searchable(self, store: int, rows: int) -> dict[str, int]:
        """`images` among the store's first `rows` rows that have a file, and the `files` that hold them."""
        query = """SELECT count(DISTINCT f.image_id), count(*) FROM rows r JOIN files f USING (image_id)
            WHERE r.store = ? AND r.row < ?"""
        images, files = self._ask(query, (store, rows))[0]
        return {"images": images, "files": files}


_SHAPE = f"""CASE WHEN 100 * max(i.width, i.height) <= {SQUARE_PERCENT} * min(i.width, i.height) THEN 'square'
    WHEN i.width > i.height THEN 'landscape' ELSE 'portrait' END"""


def _write_conditions(where: Filter) -> Iterator[tuple[str, tuple]]:
    """What a file `f` of an image `i` must fulfil, as SQL with the values of its question marks."""
    bounds = [bound for folder in where.under for bound in spell_folder(folder)]
    if bounds:
        yield f"({' OR '.join(['f.path >= ? AND f.path < ?'] * len(bounds))})", tuple(sum(bounds, ()))
    if where.since:
        yield "f.mtime_ns >= ?", (begin_day(where.since),)
    if where.until:
        yield "f.mtime_ns < ?", (begin_day(where.until + timedelta(days=1)),)
    for name, least, most in (
        ("i.size_bytes", where.least_bytes, where.most_bytes),
        ("min(i.width, i.height)", where.least_px, where.most_px),
    ):
        if (least, most) != (None, None):
            yield f"{name} BETWEEN ? AND ?", (min(least or 0, LARGEST), LARGEST if most is None else min(most, LARGEST))
    for name, chosen in (
        ("i.format", where.formats or None),
        (_SHAPE, where.shapes or None),
        ("f.image_id", where.images),
    ):
        if chosen is not None:
            # One value, however many there are: SQLite takes a limited number of question marks.
            yield f"{name} IN (SELECT value FROM json_each(?))", (json.dumps(list(chosen)),)


def spell_folder(folder: Path) -> set[tuple[bytes, bytes]]:
    """The bounds of the paths below a folder, as it is spelled and where its links lead."""
    return {bound_paths(str(make_absolute(folder))), bound_paths(str(resolve(folder)))}


def begin_day(day: date) -> int:
    """When a day begins here, in nanoseconds since 1970."""
    return clamp_time(round(datetime.combine(day, time.min).timestamp()) * 10**9)


def _read_image(connection: sqlite3.Connection, image_id: int) -> ImageDetails | None:
    image = connection.execute(
        "SELECT content_hash, width, height, format, size_bytes FROM images WHERE image_id = ?", (image_id,)
    ).fetchone()
    files = connection.execute(
        "SELECT path, mtime_ns FROM files WHERE image_id = ? ORDER BY path", (image_id,)
    ).fetchall()
    if image is None or not files:
        return None
    content_hash, width, height, picture_format, size_bytes = image
    return ImageDetails(
        image_id=image_id,
        content_hash=content_hash.hex(),
        paths=[Path(os.fsdecode(path)) for path, _ in files],
        width=width,
        height=height,
        format=picture_format,
        size_bytes=size_bytes,
        modified=datetime.fromtimestamp(max(0, files[0][1] / 1e9)),
    )


def _make_unsearchable(path: bytes, reason: str | None, is_read: int, seen_at: float) -> UnsearchableFile:
    if reason is None:
        wrong, advice = UNPUBLISHED if is_read else UNREAD, PENDING.advice
    else:
        wrong, advice = split_reason(reason)
    seen = datetime.fromtimestamp(seen_at)
    return UnsearchableFile(
        path=Path(os.fsdecode(path)), kind=find_kind(reason), reason=wrong, advice=advice, seen=seen
    )
