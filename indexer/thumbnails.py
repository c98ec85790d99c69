"""Thumbnails: content hash -> a small WebP without metadata, and the CRC-32 of both.

Rule: derived, and never trusted to be there: one that is missing, or is not what was written, is None, not an error.
"""

import sqlite3
import threading
import zlib
from pathlib import Path

from indexer.schema import BUSY_SECONDS, DAMAGE, explain_sqlite, open_read_only, read_code, read_value

VERSION = 1


class ThumbnailWriter:
    """Takes thumbnails in, a batch at a time. A damaged file is set aside, and another begun.

    Raises: CollectionUnwritable where the file is sound and SQLite cannot write (disk full, read-only, locked).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = _open_for_writing(path)
        except sqlite3.DatabaseError as error:
            _require_damage(error)
            self._connection = _begin_anew(path)

    def write(self, thumbnails: list[tuple[bytes, bytes]]) -> None:
        """Store (content hash, WebP) pairs; one transaction."""
        try:
            self._insert(thumbnails)
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self._insert(thumbnails)

    def _insert(self, thumbnails: list[tuple[bytes, bytes]]) -> None:
        rows = [(content_hash, webp, _compute_crc(content_hash, webp)) for content_hash, webp in thumbnails]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", rows)

    def keep_only(self, hashes: set[bytes]) -> int:
        """Remove the thumbnails of all other contents, and give the space back. Returns: how many."""
        try:
            known = self._connection.execute("SELECT content_hash FROM thumbnails").fetchall()
            gone = [key for key in known if key[0] not in hashes]
            with self._connection:
                self._connection.executemany("DELETE FROM thumbnails WHERE content_hash = ?", gone)
            if gone:
                self._connection.execute("VACUUM")
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return 0
        return len(gone)

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        _require_damage(error)
        self._connection.close()
        self._connection = _begin_anew(self._path)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


def _require_damage(error: sqlite3.DatabaseError) -> None:
    if read_code(error) not in DAMAGE:
        raise explain_sqlite(error) from error


def _begin_anew(path: Path) -> sqlite3.Connection:
    """Set the file aside as a whole: thumbnails are made anew from the originals."""
    # The journal first: it must not be played back into the file that takes this one's place.
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    path.replace(path.with_name(f"{path.name}.damaged"))
    return _open_for_writing(path)


def _open_for_writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        if read_value(connection, "PRAGMA user_version") < VERSION:
            _make_table(connection)
        connection.execute("SELECT content_hash, webp, crc FROM thumbnails LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _make_table(connection: sqlite3.Connection) -> None:
    """An older form, without checksums, is let go."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        connection.execute("DROP TABLE IF EXISTS thumbnails")
        connection.execute(
            """CREATE TABLE thumbnails (content_hash BLOB PRIMARY KEY, webp BLOB NOT NULL, crc INTEGER NOT NULL)
            WITHOUT ROWID"""
        )
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _compute_crc(content_hash: bytes, webp: bytes) -> int:
    return zlib.crc32(webp, zlib.crc32(content_hash))


class ThumbnailReader:
    """Hands thumbnails out; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, content_hash: bytes) -> bytes | None:
        """The WebP of this content; None if there is none."""
        query = "SELECT webp, crc FROM thumbnails WHERE content_hash = ?"
        with self._lock:
            try:
                found = self._connect().execute(query, (content_hash,)).fetchone()
            except sqlite3.DatabaseError:
                return None
        return found[0] if found and found[1] == _compute_crc(content_hash, found[0]) else None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_read_only(self._path)
        return self._connection

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
