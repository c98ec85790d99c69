"""The table of what cannot be searched: whole, readable, and nothing that a spreadsheet would run."""

import csv
import io
from datetime import datetime
from pathlib import Path

import pytest

from indexer.catalog_reader import Failure
from indexer.collection import Collection
from indexer.failures import format_failures
from tests.indexer.making import build

WHEN = datetime(2026, 11, 25, 12, 30, 5)


def read(table: bytes) -> list[list[str]]:
    assert table.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(table.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_as_a_formula_does(start: str):
    rows = read(format_failures([Failure(Path(f"{start}HYPERLINK(1).jpg"), f"{start}cmd", WHEN)]))
    assert rows[1] == [f"'{start}HYPERLINK(1).jpg", f"'{start}cmd", "2026-11-25 12:30:05"]


def test_commas_quotes_lines_and_names_that_are_no_text_come_through():
    rows = read(format_failures([Failure(Path('/a, "b"\nc/n\udcff.jpg'), "It is empty.", WHEN)]))
    assert rows == [["file", "reason", "seen"], ['/a, "b"\nc/n\\xff.jpg', "It is empty.", "2026-11-25 12:30:05"]]


@pytest.mark.usefixtures("by_pixels")
def test_a_collection_exports_every_failure(place: Path, pictures: Path):
    for number in range(130):
        (pictures / f"broken-{number:03}.jpg").write_bytes(b"nothing")
    build(place, pictures)
    with Collection(place) as collection:
        rows = read(collection.export_failures())
    assert [Path(row[0]).name for row in rows[1:]] == [f"broken-{number:03}.jpg" for number in range(130)]
    assert all(row[1] for row in rows[1:])
