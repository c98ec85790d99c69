"""The file of marks: its table, its migrations, and how it is opened for one question.

    marks  kind, content hash -> name, when it was made and last used, a checksum of these, a picture's bytes or none

Rule: each question opens the file and closes it again, so that several pages and a check may be at work at once.
"""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote_from_bytes

from indexer.decode import hash_content
from indexer.errors import CatalogTooNew, CollectionDamaged, CollectionUnwritable
from indexer.schema import FROM_SQLITE, read_value

BUSY_SECONDS = 10
QUERY = "query"
"""The kind of a picture that was searched with; all other kinds are without one."""
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


def m002_allow_marks_without_pictures(connection: sqlite3.Connection) -> None:
    """The table can hold them; programs that know the first schema alone would take them for damaged."""


MIGRATIONS = (m001_create_table, m002_allow_marks_without_pictures)


@contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection for questions; None where nobody has decided anything yet.

    Raises: CollectionDamaged where the file is not what was written, CollectionUnwritable where it cannot be read now,
        CatalogTooNew where a later version of this program wrote it.
    """
    if not path.exists():
        yield None
        return
    # Not read-only: what a killed process has begun is rolled back, where the folder lets us.
    with explained(path), closing(connect(path, "rw")) as connection:
        yield connection if read_version(connection, path) else None


@contextmanager
def opened_to_change(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in one transaction; makes the file if it is not there. Raises: as `opened_to_read`."""
    with explained(path), closing(connect(path, "rwc")) as connection:
        migrate(connection, path)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection


# --- one mark ----------------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, told: tuple, picture: bytes | None) -> None:
    """Write one mark: the values of TOLD, and the picture's bytes, if it is of one."""
    query = f"INSERT INTO marks ({TOLD}, checksum, picture) VALUES (?, ?, ?, ?, ?, ?, ?)"
    connection.execute(query, (*told, sum_up(told), picture))


def delete(connection: sqlite3.Connection, kind: str, content_hash: bytes) -> None:
    """Delete one mark; one that is not there is none to delete."""
    connection.execute("DELETE FROM marks WHERE kind = ? AND content_hash = ?", (kind, content_hash))


def sum_up(told: tuple | list) -> int:
    """The checksum of the values of TOLD."""
    return zlib.crc32(ascii(tuple(told)).encode())


def is_whole(found: tuple) -> bool:
    """Whether a mark (the values of TOLD, checksum, picture) is what was written."""
    *told, checksum, picture = found
    if checksum != sum_up(told):
        return False
    if told[0] != QUERY:
        return picture is None
    return isinstance(picture, bytes) and hash_content(picture) == told[1]


def read_hash(content_hash: str) -> bytes:
    """The bytes of a hash in hex; of what is no hash, nothing is kept."""
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
        raise describe_damage(path, f"it has schema {found}")
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
        raise describe_damage(path, error) from error


def is_out_of_reach(error: Exception) -> bool:
    """Whether the file may be whole, and cannot be read or written now."""
    # What Python itself says of a text that is none has no number.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in OUT_OF_REACH


def describe_damage(path: Path, error: object) -> CollectionDamaged:
    """That the file, or a part of it, is not what was written."""
    return CollectionDamaged(
        f"{path}, which holds what people decided, cannot be read ({error}). Run seer check --repair: it saves what "
        "can be read, and keeps the damaged file beside it."
    )
