"""A file of marks, looked after: what of it is what was written, and how that is saved from one that is damaged.

Rule: a damaged file is set aside and kept, whatever could be saved from it.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CatalogTooNew, CollectionDamaged
from indexer.marks_file import (
    TOLD,
    connect,
    explained,
    insert,
    is_out_of_reach,
    is_whole,
    migrate,
    open_file,
    read_version,
)
from indexer.schema import FROM_SQLITE, find_faults
from seer_model.durable import write_durably


@dataclass(frozen=True, kw_only=True)
class MarksFound:
    """What a look through a file of marks gave."""

    readable: int
    """Marks that are what was written."""
    fault: str | None
    """What is wrong, in a sentence."""


def examine_marks(path: Path) -> MarksFound:
    """Look at every page and every mark. Raises: CollectionUnwritable where the file cannot be read now."""
    if not path.exists():
        return MarksFound(readable=0, fault=None)
    try:
        with explained(path), closing(connect(path, "rw")) as connection:
            faults = find_faults(connection)
            read_version(connection, path)
    except (CollectionDamaged, CatalogTooNew) as error:
        faults = [str(error)]
    with explained(path), closing(_connect_damaged(path)) as connection:
        marks, lost = _list_whole(connection)
    if lost:
        faults.append(f"{lost} of {lost + len(marks)} are not what was written")
    if faults:
        faults = [f"What people decided is damaged ({path}): {faults[0].rstrip('.')}. {len(marks)} marks can be read."]
    return MarksFound(readable=len(marks), fault=faults[0] if faults else None)


def name_aside(path: Path) -> Path:
    """Where a damaged file of marks is kept: beside it, under a number that is free."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside


def save_readable(path: Path) -> None:
    """Put the marks that can be read into a new file in the damaged one's place, which is kept beside it.

    Raises: CatalogTooNew, CollectionUnwritable, OSError; then the file is what it was.
    """
    with explained(path), closing(_connect_damaged(path)) as source, suppress(CollectionDamaged), explained(path):
        read_version(source, path)
    # While it is not open: a copy that is closed would take our lock with it (POSIX).
    write_durably(name_aside(path), lambda aside: shutil.copyfile(path, aside))
    with explained(path), closing(_connect_damaged(path)) as source:
        with suppress(CollectionDamaged), explained(path):
            source.execute("BEGIN IMMEDIATE")  # Pages that can still write to it wait for the end.
        # What is left of one belongs to the damaged file; beside the new one it would be played back into that.
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        write_durably(path, lambda new: _fill(new, source))


def _fill(new: Path, source: sqlite3.Connection) -> None:
    with closing(connect(new, "rwc")) as target:
        migrate(target, new)
        for number in _list_whole(source)[0]:
            found = _read_mark(source, number)
            with target:
                target.execute("BEGIN")
                insert(target, found[:5], found[6])


def _connect_damaged(path: Path) -> sqlite3.Connection:
    """A connection that reads what it can: also where the header says that there should be more pages."""
    connection = open_file(path, "rw")
    connection.execute("PRAGMA writable_schema=ON")
    return connection


def _list_whole(connection: sqlite3.Connection) -> tuple[list[int], int]:
    """The numbers of the marks that are what was written, and how many others are in sight."""
    # From both ends: a page in the middle may lead nowhere.
    numbers = sorted({*_list_numbers(connection, "ASC"), *_list_numbers(connection, "DESC")})
    whole = [number for number in numbers if _read_mark(connection, number)]
    return whole, len(numbers) - len(whole)


def _list_numbers(connection: sqlite3.Connection, order: str) -> Iterator[int]:
    with _damage_passed_over():
        for (number,) in connection.execute(f"SELECT mark FROM marks ORDER BY mark {order}"):
            yield number


def _read_mark(connection: sqlite3.Connection, number: int) -> tuple | None:
    with _damage_passed_over():
        query = f"SELECT {TOLD}, checksum, picture FROM marks WHERE mark = ?"
        found = connection.execute(query, (number,)).fetchone()
        return found if found and is_whole(found) else None
    return None


@contextmanager
def _damage_passed_over() -> Iterator[None]:
    try:
        yield
    except FROM_SQLITE as error:
        if is_out_of_reach(error):
            raise
