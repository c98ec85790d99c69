"""Thumbnails: content hash -> a small WebP without metadata.

Rule: derived, and never trusted to be there: a missing one is None, not an error.
"""

import sqlite3
import threading
from pathlib import Path

from indexer.schema import BUSY_SECONDS, explain_sqlite, open_read_only


class ThumbnailWriter:
    """Takes thumbnails in, a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = _open_for_writing(path)
        except sqlite3.DatabaseError:
            path.replace(path.with_name(f"{path.name}.damaged"))
            self._connection = _open_for_writing(path)

    def write(self, thumbnails: list[tuple[bytes, bytes]]) -> None:
        """Store (content hash, WebP) pairs; one transaction."""
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", thumbnails)
        except sqlite3.OperationalError as error:
            raise explain_sqlite(error) from error

    def keep_only(self, hashes: set[bytes]) -> int:
        """Remove the thumbnails of all other contents, and give the space back. Returns: how many."""
        try:
            known = self._connection.execute("SELECT content_hash FROM thumbnails").fetchall()
            gone = [key for key in known if key[0] not in hashes]
            with self._connection:
                self._connection.executemany("DELETE FROM thumbnails WHERE content_hash = ?", gone)
            if gone:
                self._connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            raise explain_sqlite(error) from error
        except sqlite3.DatabaseError:
            # What is damaged inside is set aside as a whole: thumbnails are made anew from the originals.
            self._connection.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            self._connection = _open_for_writing(self._path)
            return 0
        return len(gone)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


def _open_for_writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS thumbnails (content_hash BLOB PRIMARY KEY, webp BLOB NOT NULL) WITHOUT ROWID"
    )
    return connection


class ThumbnailReader:
    """Hands thumbnails out; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, content_hash: bytes) -> bytes | None:
        """The WebP of this content; None if there is none."""
        with self._lock:
            try:
                found = (
                    self._connect()
                    .execute("SELECT webp FROM thumbnails WHERE content_hash = ?", (content_hash,))
                    .fetchone()
                )
            except sqlite3.DatabaseError:
                return None
        return found[0] if found else None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_read_only(self._path)
        return self._connection

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
