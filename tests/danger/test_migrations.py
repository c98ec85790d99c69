"""A kill at any statement of a migration, or an error in it, leaves the older catalog whole; the next open ends it."""

import os
import signal
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from indexer import schema
from indexer.catalog import Catalog
from indexer.layout import CATALOG
from tests.danger.tally import add

MIGRATIONS = schema.MIGRATIONS
NUMBERS = range(1, len(MIGRATIONS) + 1)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the catalog goes; one that is kept locked is not waited for."""
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    return tmp_path / CATALOG


def make_older(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> list:
    """A catalog as it was before this migration, with something in it. Returns: what it holds."""
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", MIGRATIONS[: number - 1])
        Catalog(path).close()
    if number > 1:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executemany("INSERT INTO folders VALUES (?)", [(b"/pictures/%d" % one,) for one in range(500)])
    return read_all(path)


def read_all(path: Path) -> list:
    """The number of the schema, every table and every row."""
    with closing(schema.open_read_only(path)) as connection:
        assert schema.find_faults(connection) == []
        return [schema.read_value(connection, "PRAGMA user_version"), *connection.iterdump()]


def require_brought_up_to_date(path: Path, older: list) -> None:
    """Opening it once more makes of it what opening it undisturbed does, and nothing that it held is lost."""
    Catalog(path).close()
    found = read_all(path)
    assert found[0] == len(MIGRATIONS)
    assert set(older[1:]) <= set(found)
    undisturbed = path.with_name("undisturbed")
    Catalog(undisturbed).close()
    assert list_tables(path) == list_tables(undisturbed)


def list_tables(path: Path) -> set:
    with closing(schema.open_read_only(path)) as connection:
        return set(connection.execute("SELECT sql FROM sqlite_schema"))


def open_and_die(path: Path, number: int, after: int) -> bool:
    """Open the catalog in a process that kills itself after so many statements of a migration.

    Returns: whether there were so many.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = count()

    def migrate(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA cache_size = 1")  # What is not committed goes to the disk all the same.
        connection.set_trace_callback(lambda _: next(done) == after and os.kill(os.getpid(), signal.SIGKILL))
        MIGRATIONS[number - 1](connection)

    try:
        schema.MIGRATIONS = (*MIGRATIONS[: number - 1], migrate)
        schema.connect_to_write(path)
    finally:
        os._exit(0)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_migration_killed_at_any_statement_has_not_begun(number: int, path: Path, monkeypatch: pytest.MonkeyPatch):
    for after in count():
        older = make_older(path, number, monkeypatch)
        if not open_and_die(path, number, after):
            break
        add("faults injected")
        assert read_all(path) == older
        require_brought_up_to_date(path, older)
        add("kills survived")
        for file in path.parent.iterdir():
            file.unlink()
    assert after >= 3, "a statement of its own, the number of the schema, the commit"


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_after_a_migration_undoes_it(number: int, path: Path, monkeypatch: pytest.MonkeyPatch):
    older = make_older(path, number, monkeypatch)

    def migrate(connection: sqlite3.Connection) -> None:
        MIGRATIONS[number - 1](connection)
        raise MemoryError

    with monkeypatch.context() as failing:
        failing.setattr(schema, "MIGRATIONS", (*MIGRATIONS[: number - 1], migrate))
        with pytest.raises(MemoryError) as kept:
            Catalog(path)
    add("faults injected")
    assert read_all(path) == older
    require_brought_up_to_date(path, older)
    assert kept.tb  # It has the connection, which must be closed by now.
