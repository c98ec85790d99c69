"""The open collection of the page's process, while builds in other processes change it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ui.conftest import Gallery
from ui.resources import choose_collection, the_collection

LEAVE_THE_LOG = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None)
try:
    print(connection.execute("PRAGMA journal_mode=" + sys.argv[2]).fetchone()[0])
except sqlite3.OperationalError as error:
    print(error)
"""


def change_journal(catalog: Path, mode: str) -> str:
    """Let another process change the journal's kind, as a build does at its ends. Returns: what SQLite says."""
    code = [sys.executable, "-c", LEAVE_THE_LOG, str(catalog), mode]
    return subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def place(gallery: Gallery, tmp_path: Path):
    """A copy of the gallery's collection, chosen for the pages of this process."""
    place = shutil.copytree(gallery.place, tmp_path / "collection")
    choose_collection(place)
    yield place
    choose_collection(None)


def test_asking_for_the_collection_keeps_the_locks_of_who_reads_it(place: Path):
    catalog = place / "catalog.sqlite"
    assert change_journal(catalog, "WAL") == "wal"
    for _ in range(3):
        the_collection().read_status()
        # A reader in this process: the log must not be taken away under it.
        assert "locked" in change_journal(catalog, "DELETE")


def test_a_collection_that_was_made_anew_in_its_place_is_opened_anew(place: Path):
    first = the_collection()
    assert the_collection() is first
    shutil.copytree(place, place.with_name("copy"))
    shutil.rmtree(place)
    place.with_name("copy").rename(place)
    assert the_collection() is not first
    assert the_collection().read_status().images == 30
