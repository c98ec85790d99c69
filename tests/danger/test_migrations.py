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


def make_older(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A catalog as it was before this migration, with something in it. Returns: what it holds."""
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", MIGRATIONS[: number - 1])
        Catalog(path).close()
    if number > 1:
        with closing(sqlite3.connect(path)) as connection, connection:
            named = [(b"/pictures/%d" % one, one) for one in range(500)]
            connection.executemany("INSERT INTO folders VALUES (?)", [(name,) for name, _ in named])
            connection.executemany("INSERT INTO files (path, size_bytes, mtime_ns) VALUES (?, ?, 1)", named)
    return read_all(path)


def read_all(path: Path) -> dict:
    """The number of the schema, and the rows of every table, that of the tables included."""
    with closing(schema.open_read_only(path)) as connection:
        assert schema.find_faults(connection) == []
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        tables = {name: read_rows(connection, name) for name in ("sqlite_schema", *names)}
        return {"version": schema.read_value(connection, "PRAGMA user_version"), **tables}


def read_rows(connection: sqlite3.Connection, table: str) -> list[dict]:
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]


def require_brought_up_to_date(path: Path, older: dict) -> None:
    """Opening it once more makes of it what opening it undisturbed does, and nothing that it held is lost."""
    Catalog(path).close()
    undisturbed = path.with_name("undisturbed")
    Catalog(undisturbed).close()
    found, wanted = read_all(path), read_all(undisturbed)
    assert found["version"] == wanted["version"] == len(MIGRATIONS)
    assert {one["sql"] for one in found["sqlite_schema"]} == {one["sql"] for one in wanted["sqlite_schema"]}
    for table in older.keys() - {"version", "sqlite_schema"}:
        for row, new in zip(older[table], found[table], strict=True):
            assert row.items() <= new.items(), table


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
