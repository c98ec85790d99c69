"""The catalog, as the one build at a time writes it (tables: `schema`). What it says is true; all else follows it.

A file is pending while it has neither an image nor a reason; an image is pending while it has neither a row in the
store nor a reason; an image without files is gone.

Rule: one batch is one transaction, committed only after its rows are on the disk.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.catalog_walk import compare_with_seen, refuse_emptied, refuse_emptied_lists
from indexer.schema import bound_paths, connect_to_write, explain_sqlite, read_value

WORK_PAGE = 1000
LOST = "lost rows: "
"""Begins the fingerprint of a store that another had to take the place of."""
PRUNED = "pruned: "
"""Begins that of a store which another took the place of when it was pruned."""
MOST_KNOWN = 64
"""Candidates for known content that go along with a file."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A file to read: pending itself, or the first of an image that has no row in the store."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int | None
    is_new: bool
    known: tuple[bytes, ...]
    """Hashes of images of this size that need no embedding: only such a one can be the same content."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was learnt from reading one file; the catalog records it."""

    path: str
    size_bytes: int
    mtime_ns: int
    content_hash: bytes | None
    """None: the file could not be read, and `reason` says why."""
    width: int | None = None
    height: int | None = None
    format: str | None = None
    reason: str | None = None
    row: int | None = None
    """Where its embedding stands in the store; None: the image has a row already, or a reason."""


class Catalog:
    """The writer's side: one connection, one build at a time (the conductor holds the lock).

    Raises: CatalogTooNew if a later version wrote it; CollectionDamaged if it is not a catalog.
    """

    def __init__(self, path: Path) -> None:
        self._connection = connect_to_write(path)

    def close(self) -> None:
        """Fold the write-ahead log into the file, so that a read-only copy opens, and close."""
        with suppress(sqlite3.OperationalError):  # A reader is at work; the next build's end tries again.
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # A full disk has ended it already.
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise explain_sqlite(error) from error
            raise

    def add_folders(self, folders: list[Path]) -> None:
        """Remember picture folders; those that are known stay."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO folders VALUES (?)", [(os.fsencode(folder),) for folder in folders]
            )

    def forget_folder(self, folder: Path) -> None:
        """No longer look through a picture folder; its files go with the next walk."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM folders WHERE path = ?", (os.fsencode(folder),))

    def list_folders(self) -> list[Path]:
        """The picture folders of this collection."""
        found = self._connection.execute("SELECT path FROM folders ORDER BY path")
        return [Path(os.fsdecode(path)) for (path,) in found]

    def list_known(self, shard: Path) -> list[tuple[str, int, int, int | None]]:
        """(path, size in bytes, mtime in nanoseconds, inode) of what is known in a shard."""
        query = "SELECT path, size_bytes, mtime_ns, inode FROM files WHERE path >= ? AND path < ?"
        found = self._connection.execute(query, bound_paths(str(shard)))
        return [(os.fsdecode(path), *stamp) for path, *stamp in found]

    def list_mounts(self) -> list[Path]:
        """Folders below them that were disks of their own when they were last looked at."""
        return [Path(os.fsdecode(path)) for (path,) in self._connection.execute("SELECT path FROM mounts")]

    def list_excluded(self) -> tuple[str, ...]:
        """Globs of what builds pass over."""
        found = self._connection.execute("SELECT glob FROM excluded ORDER BY glob")
        return tuple(os.fsdecode(glob) for (glob,) in found)

    def record_walk(
        self,
        found: Iterable[tuple[str, int, int, int]],
        kept: Iterable[str] = (),
        full: Iterable[Path] = (),
        excluded: Iterable[str] = (),
        mounts: Iterable[str] = (),
        has_lists: bool = False,
    ) -> list[int | None]:
        """Take in one whole walk: new and changed files become pending, missing ones are forgotten.

        Args:
            found: (path, size in bytes, mtime in nanoseconds, inode) of every file that is there.
            kept: files and folders that could not be looked at; what is known of them stays as it is. Asked for once
                `found` has ended.
            full: folders that are not believed to have become empty.
            excluded: globs of what the walk has passed over, and later ones will.
            mounts: folders that are disks of their own. Asked for once `found` has ended.
            has_lists: whether files may lie in none of the picture folders.
        Returns: the image of each file that is no longer there; None for one that had not been read.
        Raises: SourceError if a folder of `full` held files and holds none now; nothing is recorded then.
        """
        with self._transaction() as connection:
            connection.execute(
                "CREATE TEMP TABLE IF NOT EXISTS seen (path BLOB PRIMARY KEY, size, mtime, inode) WITHOUT ROWID"
            )
            connection.execute("DELETE FROM seen")
            connection.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)",
                ((os.fsencode(path), *stamp) for path, *stamp in found),
            )
            for path in kept:
                connection.execute(
                    """INSERT OR IGNORE INTO seen SELECT path, size_bytes, mtime_ns, inode FROM files
                    WHERE path = ? OR path >= ? AND path < ?""",
                    (os.fsencode(path), *bound_paths(path)),
                )
            for folder in full:
                refuse_emptied(connection, folder)
            if full and has_lists:
                refuse_emptied_lists(connection)
            for table, names in (("excluded", excluded), ("mounts", mounts)):
                connection.execute(f"DELETE FROM {table}")
                values = [(os.fsencode(name),) for name in names]
                connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?)", values)
            return compare_with_seen(connection)

    def retry_failed(self, reason: str | None = None) -> None:
        """Let every image that could not be read have another try; or those alone that have this reason."""
        query = "UPDATE images SET reason = NULL WHERE reason IS NOT NULL AND reason = coalesce(?, reason)"
        with self._transaction() as connection:
            connection.execute(query, (reason,))

    def find_next_store(self) -> int:
        """A number that no store has had yet."""
        query = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'stores'"
        return read_value(self._connection, query)

    def replace_store(self, store: int, new: int, rows: int) -> None:
        """Let the store `new` take the place of one that lost rows; its files have the first `rows` of them already.

        Another number, because generations and readers may still stand on the old one's files.
        """
        with self._transaction() as connection:
            succeed_store(connection, store, new, LOST)
            connection.execute("UPDATE rows SET store = ? WHERE store = ? AND row < ?", (new, store, rows))
            connection.execute("DELETE FROM rows WHERE store = ?", (store,))

    def open_store(self, fingerprint: str, dimension: int, model: str) -> int:
        """The number of this fingerprint's store, a new one if there is none; from now on it is the one in use."""
        with self._transaction() as connection:
            # The latest is the one in use, also where the clock has been set back since.
            opened_at = max(time.time(), 1e-3 + read_value(connection, _LAST_OPENED))
            # Not one upsert: that would use up a number each time.
            values = (model, opened_at, fingerprint)
            known = connection.execute("UPDATE stores SET model = ?, opened_at = ? WHERE fingerprint = ?", values)
            if not known.rowcount:
                query = "INSERT INTO stores (dimension, model, opened_at, fingerprint) VALUES (?, ?, ?, ?)"
                connection.execute(query, (dimension, *values))
            return read_value(connection, "SELECT store FROM stores WHERE fingerprint = ?", (fingerprint,))

    def read_model(self) -> str | None:
        """The model of the store that was opened last; None before the first."""
        found = self._connection.execute(READ_MODEL).fetchone()
        return found[0] if found else None

    def find_store(self, fingerprint: str) -> int | None:
        """The number of this fingerprint's store."""
        found = self._connection.execute("SELECT store FROM stores WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return found[0] if found else None

    def find_latest_store(self) -> int | None:
        """The store that was opened last; None before the first."""
        found = self._connection.execute(f"SELECT store {LATEST}").fetchone()
        return found[0] if found else None

    def count_rows(self, store: int) -> int:
        """Rows that this store must have: one more than the largest recorded."""
        return read_value(self._connection, "SELECT coalesce(max(row) + 1, 0) FROM rows WHERE store = ?", (store,))

    def drop_stores(self, keep: set[int | None]) -> list[int]:
        """Forget all stores but these, with their rows. Returns: every number ever given that is not kept."""
        with self._transaction() as connection:
            last = read_value(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'stores'")
            dropped = [store for store in range(1, last + 1) if store not in keep]
            for store in dropped:
                connection.execute("DELETE FROM rows WHERE store = ?", (store,))
                connection.execute("DELETE FROM stores WHERE store = ?", (store,))
            return dropped

    def count_work(self, store: int) -> int:
        """Files that still have to be read for this store."""
        return read_value(self._connection, f"SELECT count(*) {_WORK}", (store, b""))

    def list_work(self, store: int) -> Iterator[Work]:
        """The files to read for this store, by path; what is recorded meanwhile does not disturb the order."""
        last = b""
        while page := self._read_work_page(store, last):
            for path, size_bytes, mtime_ns, inode, image_id in page:
                stamp = {"size_bytes": size_bytes, "mtime_ns": mtime_ns, "inode": inode}
                known = self._list_known(store, size_bytes)
                yield Work(path=os.fsdecode(path), **stamp, is_new=image_id is None, known=known)
            last = page[-1][0]

    def _read_work_page(self, store: int, last: bytes) -> list[tuple[bytes, int, int, int | None, int | None]]:
        wanted = "f.path, f.size_bytes, f.mtime_ns, f.inode, f.image_id"
        query = f"SELECT {wanted} {_WORK} ORDER BY f.path LIMIT {WORK_PAGE}"
        return self._connection.execute(query, (store, last)).fetchall()

    def _list_known(self, store: int, size_bytes: int) -> tuple[bytes, ...]:
        query = """SELECT content_hash FROM images i LEFT JOIN rows r ON r.store = ? AND r.image_id = i.image_id
            WHERE i.size_bytes = ? AND (r.row IS NOT NULL OR i.reason IS NOT NULL)"""
        found = self._connection.execute(f"{query} LIMIT {MOST_KNOWN + 1}", (store, size_bytes)).fetchall()
        # Where every file has one size (uncompressed ones do), the worker decodes and `has_row` decides afterwards.
        return tuple(content_hash for (content_hash,) in found) if len(found) <= MOST_KNOWN else ()

    def has_row(self, store: int, content_hash: bytes) -> bool:
        """Whether this content has its row already."""
        query = "SELECT count(*) FROM rows JOIN images USING (image_id) WHERE store = ? AND content_hash = ?"
        return bool(read_value(self._connection, query, (store, content_hash)))

    def record(self, store: int, entries: list[Entry]) -> list[tuple[int | None, str | None]]:
        """Record one batch in one transaction. Their rows must be on the disk already.

        Returns: for each entry its image (None where the file could not be read), and why it cannot be searched.
        """
        with self._transaction() as connection:
            return [_record_entry(connection, store, entry) for entry in entries]

    def read_image_ids(self, store: int) -> np.ndarray:
        """(N,) int64: the image of each row of the store; -1 for a row that nothing refers to."""
        ids = np.full(self.count_rows(store), -1, dtype=np.int64)
        for row, image_id in self._connection.execute("SELECT row, image_id FROM rows WHERE store = ?", (store,)):
            ids[row] = -1 if image_id is None else image_id  # None: of a damaged catalog.
        return ids

    def list_hashes(self, store: int, rows: list[int]) -> dict[int, bytes]:
        """Row -> the content hash of its image, for those of these rows of a store that have one."""
        query = "SELECT content_hash FROM images JOIN rows USING (image_id) WHERE store = ? AND row = ?"
        found = {row: self._connection.execute(query, (store, row)).fetchone() for row in rows}
        return {row: one[0] for row, one in found.items() if one}

    def count_files(self) -> int:
        """Files that are there."""
        return read_value(self._connection, "SELECT count(*) FROM files")

    def count_failed_files(self) -> int:
        """Files that were seen and cannot be searched."""
        query = """SELECT count(*) FROM files f LEFT JOIN images i USING (image_id)
            WHERE f.reason IS NOT NULL OR i.reason IS NOT NULL"""
        return read_value(self._connection, query)

    def count_unchanged(self, store: int) -> int:
        """Files whose image has its row in this store already."""
        query = "SELECT count(*) FROM files JOIN rows USING (image_id) WHERE store = ?"
        return read_value(self._connection, query, (store,))

    def count_images(self, store: int, rows: int) -> int:
        """Images that have a file and one of the first `rows` rows of this store."""
        query = """SELECT count(*) FROM rows r WHERE store = ? AND row < ?
            AND EXISTS (SELECT 1 FROM files f WHERE f.image_id = r.image_id)"""
        return read_value(self._connection, query, (store, rows))


_LAST_OPENED = "SELECT coalesce(max(opened_at), 0) FROM stores"
# The one that took another's place has its time, too.
LATEST = "FROM stores ORDER BY opened_at DESC, store DESC LIMIT 1"
READ_MODEL = f"SELECT CAST(model AS TEXT) {LATEST}"
_WORK = """FROM files f LEFT JOIN images i ON i.image_id = f.image_id
    LEFT JOIN rows r ON r.store = ? AND r.image_id = f.image_id
    WHERE f.path > ? AND f.reason IS NULL AND i.reason IS NULL AND r.row IS NULL"""


def succeed_store(connection: sqlite3.Connection, old: int, new: int, prefix: str) -> None:
    """Give the store `new` the fingerprint of `old`, whose own is `prefix` and its number from now on."""
    fingerprint = read_value(connection, "SELECT fingerprint FROM stores WHERE store = ?", (old,))
    connection.execute("UPDATE stores SET fingerprint = ? || store WHERE store = ?", (prefix, old))
    # `opened_at` goes along: another model's store may be the one in use, half filled.
    connection.execute(
        """INSERT INTO stores (store, fingerprint, dimension, model, opened_at)
        SELECT ?, ?, dimension, model, opened_at FROM stores WHERE store = ?""",
        (new, fingerprint, old),
    )


def _record_entry(connection: sqlite3.Connection, store: int, entry: Entry) -> tuple[int | None, str | None]:
    path = os.fsencode(entry.path)
    if entry.content_hash is None:
        connection.execute("UPDATE files SET reason = ?, image_id = NULL WHERE path = ?", (entry.reason, path))
        return None, entry.reason
    image_id, reason = _record_image(connection, entry)
    if entry.row is not None:
        connection.execute("INSERT INTO rows VALUES (?, ?, ?)", (store, entry.row, image_id))
    connection.execute(
        "UPDATE files SET image_id = ?, reason = NULL, size_bytes = ?, mtime_ns = ? WHERE path = ?",
        (image_id, entry.size_bytes, entry.mtime_ns, path),
    )
    return image_id, reason


def _record_image(connection: sqlite3.Connection, entry: Entry) -> tuple[int, str | None]:
    # Known content comes without its width or reason: what is recorded stays.
    connection.execute(
        """INSERT INTO images (content_hash, size_bytes, width, height, format, reason, added_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (content_hash) DO UPDATE SET width = coalesce(excluded.width, width),
            height = coalesce(excluded.height, height), format = coalesce(excluded.format, format),
            reason = coalesce(excluded.reason, reason)""",
        (entry.content_hash, entry.size_bytes, entry.width, entry.height, entry.format, entry.reason, time.time()),
    )
    found = connection.execute("SELECT image_id, reason FROM images WHERE content_hash = ?", (entry.content_hash,))
    return found.fetchone()
