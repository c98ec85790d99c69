"""Marks: what people decided. So far: the pictures that were searched with and are kept for the links to their answers.

    marks  kind, content hash -> name, when it was made and last used, a checksum of these, and the picture's bytes

All else in a collection follows from the pictures; this does not. So no build opens this file, and no check deletes it.

A kept picture is the upload to the byte: a copy encoded anew would be embedded a little otherwise, and an image of the
collection would not be known by its hash. It may say where it was taken, so searches read it and nobody is handed it.

Rule: each question opens the file and closes it again, so that several pages and a check may be at work at once.
"""

import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote_from_bytes

from indexer.decode import hash_content
from indexer.errors import CatalogTooNew, CollectionDamaged, CollectionUnwritable
from indexer.schema import FROM_SQLITE, read_value

KEPT_BYTES = 256_000_000
"""Of all kept pictures together; those that were not used for longest make room."""
KEPT_SECONDS = 30 * 86_400
"""After its last use."""
RENEWED_SECONDS = 86_400
"""A use is written down once a day."""
BUSY_SECONDS = 10
QUERY = "query"
"""The kind of a picture that was searched with."""
SETTINGS = (
    "PRAGMA secure_delete=ON",  # What was forgotten can be read nowhere in the file.
    # No write-ahead log: it would hold what was forgotten, and a read-only copy of the folder would not open.
    "PRAGMA journal_mode=DELETE",
    "PRAGMA synchronous=EXTRA",
)
OUT_OF_REACH = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM}
    | {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_TOOBIG}
)
"""What SQLite says of a file that may be whole; all else that it says is of one that is not."""
TOLD = "kind, content_hash, name, made_at, used_at"
"""What the checksum is of."""


def m001_create_table(connection: sqlite3.Connection) -> None:
    """Marks of all kinds. The picture stands last: what stands before it is read without it."""
    connection.execute(
        """CREATE TABLE marks (mark INTEGER PRIMARY KEY, kind TEXT NOT NULL, content_hash BLOB NOT NULL, name TEXT,
        made_at REAL NOT NULL, used_at REAL NOT NULL, checksum INTEGER NOT NULL, picture BLOB,
        UNIQUE (kind, content_hash))"""
    )


MIGRATIONS = (m001_create_table,)


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
        with self._change() as connection:
            _delete(connection, content_hash)
            insert(connection, told, picture)
            _let_go(connection, now, content_hash)
        return content_hash.hex()

    def open_query(self, content_hash: str) -> KeptQuery | None:
        """A kept picture, by its hash (hex); None if it is not, or no longer, kept. Its time begins anew."""
        key, now = _read_hash(content_hash), time.time()
        with self._read() as connection:
            found = connection and connection.execute(
                f"SELECT {TOLD}, checksum, picture FROM marks WHERE kind = ? AND content_hash = ?", (QUERY, key)
            ).fetchone()
        if not found:
            return None
        told, picture = found[:5], found[6]
        if not is_whole(found):
            raise _damaged(self._path, f"the picture {content_hash} is not what was kept")
        if _is_due(told, now):
            return None
        if abs(now - told[4]) > RENEWED_SECONDS:
            with suppress(CollectionUnwritable):  # It is read all the same.
                told = self._renew(told, now)
        until = datetime.fromtimestamp(told[4] + KEPT_SECONDS)
        return KeptQuery(content_hash=content_hash, name=told[2], picture=picture, until=until)

    def _renew(self, told: tuple, now: float) -> tuple:
        new = (*told[:4], now)
        with self._change() as connection:
            connection.execute(
                "UPDATE marks SET used_at = ?, checksum = ? WHERE kind = ? AND content_hash = ?",
                (now, _sum_up(new), *told[:2]),
            )
        return new

    def forget_query(self, content_hash: str) -> None:
        """Delete a kept picture; one that is not kept is none to delete."""
        if self._path.exists():
            with self._change() as connection:
                _delete(connection, _read_hash(content_hash))

    def forget_queries(self) -> None:
        """Delete every kept picture."""
        if self._path.exists():
            with self._change() as connection:
                connection.execute("DELETE FROM marks WHERE kind = ?", (QUERY,))

    def forget_expired(self) -> None:
        """Delete the kept pictures whose time is over."""
        if self._path.exists():
            with self._change() as connection:
                _let_go(connection, time.time())

    def measure_queries(self) -> tuple[int, int]:
        """How many pictures are kept, and their bytes together."""
        query = "SELECT count(*), coalesce(sum(length(picture)), 0) FROM marks WHERE kind = ?"
        with self._read() as connection:
            return connection.execute(query, (QUERY,)).fetchone() if connection else (0, 0)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection | None]:
        """A connection for questions; None where nobody has decided anything yet."""
        if not self._path.exists():
            yield None
            return
        # Not read-only: what a killed process has begun is rolled back, where the folder lets us.
        with explained(self._path), closing(connect(self._path, "rw")) as connection:
            yield connection if read_version(connection, self._path) else None

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction; makes the file if it is not there."""
        with explained(self._path), closing(connect(self._path, "rwc")) as connection:
            migrate(connection, self._path)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection


# --- one mark ----------------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, told: tuple, picture: bytes) -> None:
    """Write one mark: the values of TOLD, and the picture's bytes."""
    query = f"INSERT INTO marks ({TOLD}, checksum, picture) VALUES (?, ?, ?, ?, ?, ?, ?)"
    connection.execute(query, (*told, _sum_up(told), picture))


def _delete(connection: sqlite3.Connection, content_hash: bytes) -> None:
    connection.execute("DELETE FROM marks WHERE kind = ? AND content_hash = ?", (QUERY, content_hash))


def _let_go(connection: sqlite3.Connection, now: float, newest: bytes = b"") -> None:
    """Delete the kept pictures whose time is over, and the longest unused ones where there is no room for all."""
    query = f"""SELECT mark, length(picture), checksum, {TOLD} FROM marks WHERE kind = ?
        ORDER BY content_hash = ? DESC, used_at DESC"""
    room = KEPT_BYTES
    for number, size_bytes, checksum, *told in connection.execute(query, (QUERY, newest)).fetchall():
        room -= size_bytes
        # Of a damaged one the time says nothing: it is for a check to find.
        if checksum == _sum_up(told) and (room < 0 or _is_due(told, now)):
            connection.execute("DELETE FROM marks WHERE mark = ?", (number,))


def _is_due(told: tuple | list, now: float) -> bool:
    return told[4] + KEPT_SECONDS < now


def _sum_up(told: tuple | list) -> int:
    return zlib.crc32(ascii(tuple(told)).encode())


def is_whole(found: tuple) -> bool:
    """Whether a mark (the values of TOLD, checksum, picture) is what was written."""
    *told, checksum, picture = found
    return checksum == _sum_up(told) and isinstance(picture, bytes) and hash_content(picture) == told[1]


def _read_hash(content_hash: str) -> bytes:
    """Of what is no hash, nothing is kept."""
    try:
        return bytes.fromhex(content_hash)
    except ValueError:
        return b""


# --- the file ----------------------------------------------------------------------------------------------------


def open_file(path: Path, mode: str) -> sqlite3.Connection:
    """A connection as SQLite makes it. `mode`: rw, or rwc to make the file."""
    address = f"file:{quote_from_bytes(bytes(path.absolute()))}?mode={mode}"
    # Transactions are explicit: isolation_level=None switches off the ones that sqlite3 opens by itself.
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection with our settings."""
    connection = open_file(path, mode)
    try:
        for setting in SETTINGS:
            connection.execute(setting)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an earlier version up to date. Raises: as `read_version`."""
    found = read_version(connection, path)
    if found == 0:
        # What was forgotten takes no space. A file begins with it or never has it.
        connection.execute("PRAGMA auto_vacuum=FULL")
    for number in range(found + 1, len(MIGRATIONS) + 1):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            # Another page may have been first.
            if read_value(connection, "PRAGMA user_version") < number:
                MIGRATIONS[number - 1](connection)
                connection.execute(f"PRAGMA user_version = {number}")


def read_version(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema; 0 for one that nothing has been written to. Raises: CatalogTooNew, CollectionDamaged."""
    # Before the number: another page that makes the tables meanwhile writes both at once.
    has_tables = read_value(connection, "SELECT count(*) FROM sqlite_schema") > 0
    found = read_value(connection, "PRAGMA user_version")
    if found > len(MIGRATIONS):
        raise CatalogTooNew(
            f"{path} has schema {found}; this program knows up to {len(MIGRATIONS)}. Update the program."
        )
    if found < 0 or (found == 0 and has_tables):
        raise _damaged(path, f"it has schema {found}")
    return found


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into CollectionUnwritable or CollectionDamaged."""
    try:
        yield
    except FROM_SQLITE as error:
        if is_out_of_reach(error):
            raise CollectionUnwritable(
                f"{path} cannot be read or written now ({error}). What it holds stays as it is."
            ) from error
        raise _damaged(path, error) from error


def is_out_of_reach(error: Exception) -> bool:
    """Whether the file may be whole, and cannot be read or written now."""
    # What Python itself says of a text that is none has no number.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in OUT_OF_REACH


def _damaged(path: Path, error: object) -> CollectionDamaged:
    return CollectionDamaged(
        f"{path}, which holds what people decided, cannot be read ({error}). Run seer check --repair: it saves what "
        "can be read, and keeps the damaged file beside it."
    )
