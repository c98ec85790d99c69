"""The catalog's tables, the story of how they came to be, and the ways to connect to them.

    folders  the picture folders of this collection
    excluded globs of what is passed over there
    mounts   folders below them that were disks of their own when they were last looked at
    files    a path where picture bytes were found: stamp, and its image once it has been read
    images   one content, known by its BLAKE3 hash; `reason` says why it cannot be searched
    stores   one for each fingerprint that rows were made with
    rows     which row of a store holds which image

Paths are bytes, as the file system has them. Times are seconds since 1970.

Rule: a migration is appended, never edited; it and the record of it are one transaction.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from indexer.errors import (
    CatalogTooNew,
    CollectionBusy,
    CollectionDamaged,
    CollectionEmpty,
    CollectionMissing,
    CollectionUnwritable,
)
from indexer.layout import APPLICATION, refuse_lost_catalog

BUSY_SECONDS = 30
FROM_SQLITE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""The latter where SQLite's own words about a damaged file hold bytes of it."""
PRIMARY = 0xFF
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)
"""A disk without room for the write-ahead log's index is told as an error of input and output; a read-only folder in
which a killed build left a log, as a file that cannot be opened."""
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""SQLite's words for a file that is not what was written; SQLITE_ERROR: its tables are not those that were made."""
CONTRADICTIONS = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_OK})
"""A rule of the tables is broken, or one that we rely on (no error of SQLite's): by a bug, or because an index has what
its table has not."""


def m001_create_tables(connection: sqlite3.Connection) -> None:
    """Folders, files, images, stores and rows."""
    for statement in (
        "CREATE TABLE folders (path BLOB PRIMARY KEY) WITHOUT ROWID",
        """CREATE TABLE images (image_id INTEGER PRIMARY KEY, content_hash BLOB NOT NULL UNIQUE,
            size_bytes INTEGER NOT NULL, width INTEGER, height INTEGER, format TEXT, reason TEXT, added_at REAL)""",
        "CREATE INDEX images_by_size ON images (size_bytes)",
        """CREATE TABLE files (path BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
            image_id INTEGER REFERENCES images, reason TEXT, seen_at REAL) WITHOUT ROWID""",
        "CREATE INDEX files_by_image ON files (image_id)",
        """CREATE TABLE stores (store INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE,
            dimension INTEGER NOT NULL, model TEXT NOT NULL, opened_at REAL NOT NULL)""",
        """CREATE TABLE rows (store INTEGER NOT NULL REFERENCES stores, row INTEGER NOT NULL,
            image_id INTEGER NOT NULL REFERENCES images, PRIMARY KEY (store, row)) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX rows_by_image ON rows (store, image_id)",
    ):
        connection.execute(statement)


def m002_keep_globs(connection: sqlite3.Connection) -> None:
    """What a build passes over is a setting of the collection: a build without --exclude used to take it all in."""
    connection.execute("CREATE TABLE excluded (glob BLOB PRIMARY KEY) WITHOUT ROWID")


def m003_know_files_and_disks(connection: sqlite3.Connection) -> None:
    """Which file a path led to, and where disks are mounted: files of one stamp may swap names, and disks go away."""
    connection.execute("ALTER TABLE files ADD COLUMN inode INTEGER")
    connection.execute("CREATE TABLE mounts (path BLOB PRIMARY KEY) WITHOUT ROWID")


MIGRATIONS = (m001_create_tables, m002_keep_globs, m003_know_files_and_disks)


def connect_to_write(path: Path) -> sqlite3.Connection:
    """A connection for the one writer; makes the catalog, or brings an older one up to date.

    Raises: CatalogTooNew if a later version wrote it; CollectionDamaged if it is not a catalog.
    """
    # Transactions are explicit: isolation_level=None switches off the ones that sqlite3 opens by itself.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    with _closed_if_unfit(connection, path):
        if not read_value(connection, "PRAGMA application_id"):
            # Before the write-ahead log: `is_collection` reads the file's own header.
            connection.execute(f"PRAGMA application_id = {int.from_bytes(APPLICATION, 'big')}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _migrate(connection, path)
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A read-only connection that several threads may share, one at a time.

    Raises: CollectionMissing, CollectionEmpty if a build was killed before it made the tables, CatalogTooNew,
        CollectionBusy, CollectionDamaged.
    """
    if not path.is_file():
        refuse_lost_catalog(path.parent)
        raise CollectionMissing(f"No collection in {path.parent}. Make one: seer build PICTURES")
    connection = open_read_only(path)
    with _closed_if_unfit(connection, path):
        found = read_value(connection, "PRAGMA user_version")
        _refuse_newer(found, path)
        if not found:
            refuse_lost_catalog(path.parent)
            raise CollectionEmpty(
                f"A build had only begun in {path.parent}. Run: seer build PICTURES --collection {path.parent}"
            )
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that can change nothing and may be handed from thread to thread."""
    if path.with_name(f"{path.name}-journal").exists():
        _roll_back(path)
    return sqlite3.connect(_name(path, "ro"), uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _roll_back(path: Path) -> None:
    """Undo what a process that was killed had begun: a connection that can change nothing cannot."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(_name(path, "rw"), uri=True, timeout=1)) as connection:
        read_value(connection, "PRAGMA user_version")


def _name(path: Path, mode: str) -> str:
    return f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}"


def read_value(connection: sqlite3.Connection, query: str, values: tuple = ()) -> int:
    """The first column of a query's first row."""
    return connection.execute(query, values).fetchone()[0]


def bound_paths(folder: str) -> tuple[bytes, bytes]:
    """The half-open range of paths below a folder, as (low, high): no LIKE, so % and _ are letters like others."""
    below = os.fsencode(folder).removesuffix(os.fsencode(os.sep)) + os.fsencode(os.sep)
    return below, below[:-1] + bytes([below[-1] + 1])


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    found = read_value(connection, "PRAGMA user_version")
    _refuse_newer(found, path)
    for number, migration in enumerate(MIGRATIONS[found:], start=found + 1):
        connection.execute("BEGIN IMMEDIATE")
        migration(connection)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")


def _refuse_newer(found: int, path: Path) -> None:
    if found > len(MIGRATIONS):
        raise CatalogTooNew(
            f"{path} has schema {found}; this program knows up to {len(MIGRATIONS)}. "
            "Update the program, or build into a new folder."
        )


def explain_sqlite(error: sqlite3.DatabaseError) -> CollectionUnwritable:
    """What SQLite says when it cannot write (disk full, read-only, locked), for the person."""
    return CollectionUnwritable(
        f"The collection cannot be written ({error}). What was committed is kept: put that right and run again."
    )


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file that is not what was written into CollectionDamaged.

    And what it says of one that another program keeps locked into CollectionBusy.
    """
    try:
        yield
    except (*FROM_SQLITE, IndexError) as error:
        _require_free(path, error)
        is_told = isinstance(error, UnicodeDecodeError) or read_code(error) in DAMAGE
        if is_told or (read_code(error) in CONTRADICTIONS and _contradicts_itself(path)):
            raise tell_damage(path, error) from error
        raise


def _contradicts_itself(path: Path) -> bool:
    """Whether tables and indexes of a catalog disagree; if they do not, what broke a rule of theirs is a bug."""
    with closing(open_read_only(path)) as connection:
        return bool(find_faults(connection))


def find_faults(connection: sqlite3.Connection) -> list[str]:
    """What is wrong inside a database, one sentence each: its pages, its indexes, its references."""
    try:
        told = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
        lost = connection.execute("PRAGMA foreign_key_check").fetchall()
    except FROM_SQLITE as error:
        return [str(error)]
    return told + [f"an entry of {table} refers to nothing in {parent}" for table, _, parent, _ in lost]


def read_code(error: Exception) -> int:
    """SQLite's primary result code; 0 where the error is not its own."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY


def _require_free(path: Path, error: Exception) -> None:
    if read_code(error) in BUSY:
        raise CollectionBusy(
            f"Another program keeps {path} locked, a backup or a database browser perhaps. Let it end, then run again."
        ) from None


def tell_damage(path: Path, error: object) -> CollectionDamaged:
    """That a catalog is not what was written, and what is left to do."""
    return CollectionDamaged(
        f"{path} cannot be read as a catalog ({error}). If the folder is read-only or the disk is full, put that "
        "right; else move the collection away, all but marks.sqlite, and build again: the pictures are untouched."
    )


@contextmanager
def _closed_if_unfit(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        yield
    except FROM_SQLITE as error:
        connection.close()
        _require_free(path, error)
        raise explain_sqlite(error) if read_code(error) in UNWRITABLE else tell_damage(path, error) from None
    except BaseException:
        connection.close()
        raise
