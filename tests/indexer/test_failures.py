"""What cannot be searched: listed whole, under its kind, and in a table that a spreadsheet does not run."""

import csv
import io
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from indexer.catalog_reader import UnsearchableFile
from indexer.collection import Collection
from indexer.failures import COLUMNS, format_unsearchable
from indexer.layout import CURRENT
from indexer.reasons import KINDS, OTHER, PENDING, UNPUBLISHED, UNREAD, find_kind, split_reason
from indexer.report import NO_EMBEDDING
from indexer.workers import DIED
from tests.indexer.making import build, draw
from tests.indexer.test_build import make_broken_files

WHEN = datetime(2026, 11, 25, 12, 30, 5)


def read(table: bytes) -> list[list[str]]:
    assert table.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(table.decode("utf-8-sig"), newline="")))


def make_file(path: str, text: str) -> UnsearchableFile:
    return UnsearchableFile(path=Path(path), kind=text, reason=text, advice=text, seen=WHEN)


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_as_a_formula_does(start: str):
    rows = read(format_unsearchable([make_file(f"{start}HYPERLINK(1).jpg", f"{start}cmd")]))
    assert rows[1] == [f"'{start}HYPERLINK(1).jpg", *[f"'{start}cmd"] * 3, "2026-11-25 12:30:05"]


def test_commas_quotes_lines_and_names_that_are_no_text_come_through():
    rows = read(format_unsearchable([make_file('/a, "b"\nc/n\udcff.jpg', "It is empty.")]))
    assert rows == [list(COLUMNS), ['/a, "b"\nc/n\\xff.jpg', *["It is empty."] * 3, "2026-11-25 12:30:05"]]


@pytest.mark.usefixtures("by_pixels")
def test_a_collection_exports_every_file_that_cannot_be_searched(place: Path, pictures: Path):
    for number in range(130):
        (pictures / f"broken-{number:03}.jpg").write_bytes(b"nothing")
    build(place, pictures)
    draw(pictures / "late.png", 40)
    build(place, limit=0)
    with Collection(place) as collection:
        rows = read(collection.export_unsearchable())
    expected = [*(f"broken-{number:03}.jpg" for number in range(130)), "late.png"]
    assert [Path(row[0]).name for row in rows[1:]] == expected
    assert all(len(row) == len(COLUMNS) and all(row) for row in rows)


# --- kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kind", "advice"),
    [
        (DIED, "Too large", "Make it smaller."),
        (NO_EMBEDDING, "No embedding", "Another model may."),
        ("The file may not be read (permission denied); allow it and build again.", "Out of reach", "Allow it and"),
        ("The JPEG data is damaged (no memory; empty); open it elsewhere.", "Damaged", "Open it elsewhere."),
        ("The TIFF data is damaged (what it holds is cut short); save it anew.", "Damaged", "Save it anew."),
        ("The decoder failed with ValueError: a; b.", "Damaged", "Open it in another program"),
        ("Something new happened.", "Other", "Look at the reason"),
    ],
)
def test_a_reason_has_its_kind_and_says_what_to_do(reason: str, kind: str, advice: str):
    assert find_kind(reason) == kind
    wrong, told = split_reason(reason)
    assert told.startswith(advice)
    assert wrong.rstrip(".") in reason and wrong.endswith(".")


def test_what_no_kind_knows_is_rare_among_what_files_really_are(place: Path, tmp_path: Path, by_pixels: None):
    (tmp_path / "pictures").mkdir()
    for number, data in enumerate(make_broken_files()):
        (tmp_path / "pictures" / f"{number:02}.jpg").write_bytes(data)
    build(place, tmp_path / "pictures")
    with Collection(place) as collection:
        counts = collection.count_unsearchable()
        files = collection.list_unsearchable()
    assert sum(counts.values()) == len(files) == 48
    assert {"Empty", "Not a picture", "Cut short", "Damaged"} <= set(counts)
    assert OTHER.name not in counts and set(counts) <= {kind.name for kind in KINDS}
    assert all(file.advice and file.reason.endswith(".") for file in files)


# --- pending and failed ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("by_pixels")
def test_what_is_listed_and_what_is_searchable_are_all_files(place: Path, pictures: Path):
    (pictures / "broken.jpg").write_bytes(b"nothing")
    for limit in (0, 3, 5, None):
        build(place, pictures, limit=limit)
        with Collection(place) as collection:
            told, counts = collection.read_status(), collection.count_unsearchable()
            files = collection.list_unsearchable()
        assert counts.get(PENDING.name, 0) == told.pending == sum(file.is_pending for file in files)
        assert sum(counts.values()) == told.pending + told.failed == len(files)
        assert told.images + len(files) == told.files == 10
    assert [file.path.name for file in files] == ["broken.jpg"]


@pytest.mark.usefixtures("by_pixels")
def test_a_file_that_waits_says_for_what(place: Path, pictures: Path):
    build(place, pictures, limit=4)
    with Collection(place) as collection:
        waiting = collection.list_unsearchable(kind=PENDING.name)
    assert len(waiting) == 5
    assert {(file.reason, file.advice) for file in waiting} == {(UNREAD, "Run seer build.")}
    (place / CURRENT).unlink()
    shutil.rmtree(place / "generations")
    with Collection(place) as collection:
        reasons = [file.reason for file in collection.list_unsearchable()]
    assert (reasons.count(UNREAD), reasons.count(UNPUBLISHED)) == (5, 4)


@pytest.mark.usefixtures("by_pixels")
def test_a_filter_shows_one_kind_page_by_page(place: Path, pictures: Path):
    for number in range(7):
        (pictures / f"empty-{number}.jpg").write_bytes(b"")
        (pictures / f"text-{number}.jpg").write_bytes(b"nothing")
    build(place, pictures)
    with Collection(place) as collection:
        assert collection.count_unsearchable() == {"Empty": 7, "Not a picture": 7}
        names = [
            file.path.name
            for first in range(0, 7, 3)
            for file in collection.list_unsearchable(first, 3, kind="Empty")
        ]
        assert collection.list_unsearchable(kind="' OR 1=1 --") == []
    assert names == [f"empty-{number}.jpg" for number in range(7)]


@pytest.mark.usefixtures("by_pixels")
def test_the_time_is_when_the_file_was_first_seen_as_it_is(place: Path, pictures: Path):
    (pictures / "broken.jpg").write_bytes(b"nothing")
    before = datetime.now()
    build(place, pictures)
    with Collection(place) as collection:
        first = collection.list_unsearchable()[0].seen
    assert before <= first <= datetime.now()
    build(place, retry_failed=True)
    with Collection(place) as collection:
        assert collection.list_unsearchable()[0].seen == first
    os.utime(pictures / "broken.jpg", (1, 1))
    build(place)
    with Collection(place) as collection:
        assert collection.list_unsearchable()[0].seen > first
