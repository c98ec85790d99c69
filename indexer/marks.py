"""Marks: what people decided. Here: the pictures that were searched with and are kept for the links to their answers.

All else in a collection follows from the pictures; this does not. So no build opens this file, and no check deletes it.

A kept picture is the upload to the byte: a copy encoded anew would be embedded a little otherwise, and an image of the
collection would not be known by its hash. It may say where it was taken, so searches read it and nobody is handed it.

Rule: what is handed out is what was kept, or it is said that it is not.
"""

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from indexer.decode import hash_content
from indexer.errors import CollectionUnwritable
from indexer.marks_file import (
    QUERY,
    TOLD,
    delete,
    describe_damage,
    insert,
    is_whole,
    opened_to_change,
    opened_to_read,
    read_hash,
    sum_up,
)

KEPT_BYTES = 256_000_000
"""Of all kept pictures together; those that were not used for longest make room."""
KEPT_SECONDS = 30 * 86_400
"""After its last use."""
RENEWED_SECONDS = 86_400
"""A use is written down once a day."""


@dataclass(frozen=True, kw_only=True)
class KeptQuery:
    """A picture that was searched with."""

    content_hash: str
    """In hex."""
    name: str
    """The file's name, as it was given."""
    picture: bytes
    """The file, as it was given."""
    until: datetime
    """When it is forgotten unless it is used, in local time."""


class Marks:
    """The marks of one collection; may be shared by threads.

    Every method raises CollectionDamaged where the file is not what was written, CollectionUnwritable where it cannot
    be read or written now, and CatalogTooNew where a later version of this program wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep_query(self, picture: bytes, name: str) -> str:
        """Keep a picture for links, and let go of those that are due. Returns: its content hash (hex)."""
        if len(picture) > KEPT_BYTES:
            raise CollectionUnwritable(
                f"The picture has {len(picture) // 10**6} MB; up to {KEPT_BYTES // 10**6} MB are kept for links."
            )
        content_hash, now = hash_content(picture), time.time()
        # What is no text in a name cannot be stored as text.
        told = (QUERY, content_hash, name.encode("utf-8", "replace").decode(), now, now)
        with opened_to_change(self._path) as connection:
            delete(connection, QUERY, content_hash)
            insert(connection, told, picture)
            _let_go(connection, now, content_hash)
        return content_hash.hex()

    def open_query(self, content_hash: str) -> KeptQuery | None:
        """A kept picture, by its hash (hex); None if it is not, or no longer, kept. Its time begins anew."""
        key, now = read_hash(content_hash), time.time()
        with opened_to_read(self._path) as connection:
            found = connection and connection.execute(
                f"SELECT {TOLD}, checksum, picture FROM marks WHERE kind = ? AND content_hash = ?", (QUERY, key)
            ).fetchone()
        if not found:
            return None
        told, picture = found[:5], found[6]
        if not is_whole(found):
            raise describe_damage(self._path, f"the picture {content_hash} is not what was kept")
        if _is_due(told, now):
            return None
        if abs(now - told[4]) > RENEWED_SECONDS:
            with suppress(CollectionUnwritable):  # It is read all the same.
                told = self._renew(told, now)
        until = datetime.fromtimestamp(told[4] + KEPT_SECONDS)
        return KeptQuery(content_hash=content_hash, name=told[2], picture=picture, until=until)

    def _renew(self, told: tuple, now: float) -> tuple:
        new = (*told[:4], now)
        with opened_to_change(self._path) as connection:
            connection.execute(
                "UPDATE marks SET used_at = ?, checksum = ? WHERE kind = ? AND content_hash = ?",
                (now, sum_up(new), *told[:2]),
            )
        return new

    def forget_query(self, content_hash: str) -> None:
        """Delete a kept picture; one that is not kept is none to delete."""
        if self._path.exists():
            with opened_to_change(self._path) as connection:
                delete(connection, QUERY, read_hash(content_hash))

    def forget_queries(self) -> None:
        """Delete every kept picture."""
        if self._path.exists():
            with opened_to_change(self._path) as connection:
                connection.execute("DELETE FROM marks WHERE kind = ?", (QUERY,))

    def forget_expired(self) -> None:
        """Delete the kept pictures whose time is over."""
        if self._path.exists():
            with opened_to_change(self._path) as connection:
                _let_go(connection, time.time())

    def measure_queries(self) -> tuple[int, int]:
        """How many pictures are kept, and their bytes together."""
        query = "SELECT count(*), coalesce(sum(length(picture)), 0) FROM marks WHERE kind = ?"
        with opened_to_read(self._path) as connection:
            return connection.execute(query, (QUERY,)).fetchone() if connection else (0, 0)


def _let_go(connection: sqlite3.Connection, now: float, newest: bytes = b"") -> None:
    """Delete the kept pictures whose time is over, and the longest unused ones where there is no room for all."""
    query = f"""SELECT mark, length(picture), checksum, {TOLD} FROM marks WHERE kind = ?
        ORDER BY content_hash = ? DESC, used_at DESC"""
    room = KEPT_BYTES
    for number, size_bytes, checksum, *told in connection.execute(query, (QUERY, newest)).fetchall():
        room -= size_bytes
        # Of a damaged one the time says nothing: it is for a check to find.
        if checksum == sum_up(told) and (room < 0 or _is_due(told, now)):
            connection.execute("DELETE FROM marks WHERE mark = ?", (number,))


def _is_due(told: tuple | list, now: float) -> bool:
    return told[4] + KEPT_SECONDS < now
