"""Damaged marks: found, never served, and what can be read of them is saved beside the damaged file."""

import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer import marks_upkeep
from indexer.errors import CatalogTooNew, CollectionDamaged, CollectionUnwritable
from indexer.layout import MARKS
from indexer.marks import Marks
from indexer.marks_upkeep import MarksFound, examine_marks, save_readable
from tests.indexer.test_marks import list_kept, make_picture, name_hash


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / MARKS


def fill(path: Path) -> list[bytes]:
    pictures = [make_picture(seed, 9_000) for seed in range(5)]
    for number, picture in enumerate(pictures):
        Marks(path).keep_query(picture, f"picture-{number}.jpg")
    return pictures


def read_or_refuse(path: Path, picture: bytes) -> str:
    """`same`, `gone` or `refused`; anything else is a wrong answer."""
    try:
        kept = Marks(path).open_query(name_hash(picture))
    except (CollectionDamaged, CatalogTooNew):
        return "refused"
    return "gone" if kept is None else "same" if kept.picture == picture else "wrong"


def test_a_flipped_byte_is_never_served_and_always_found_where_it_matters(path: Path, tmp_path: Path):
    pictures, whole = fill(path), path.read_bytes()
    places = random.Random(5)
    told = unharmed = 0
    for place in [*range(0, 100, 3), *range(4096 * 2, 4096 * 2 + 600, 5), *places.sample(range(len(whole)), 250)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << places.randrange(8)
        path.write_bytes(flipped)
        answers = [read_or_refuse(path, picture) for picture in pictures]
        assert "wrong" not in answers, place
        fault = examine_marks(path).fault
        assert fault or answers == ["same"] * 5, f"byte {place} was flipped, and the check says nothing"
        told, unharmed = told + bool(fault), unharmed + (fault is None)
    assert told > 200, (told, unharmed)


def test_repair_saves_what_can_be_read_and_keeps_the_damaged_file(path: Path):
    pictures = fill(path)
    for number in (1, 2):
        data = bytearray(path.read_bytes())
        data[data.index(pictures[number][4000:4100])] ^= 1
        path.write_bytes(data)
        damaged = path.read_bytes()
        assert examine_marks(path).readable == 4 + 1 - number
        save_readable(path)
        assert path.with_name(f"{MARKS}.damaged-{number}").read_bytes() == damaged
        pictures_left = [picture for place, picture in enumerate(pictures) if place not in range(1, number + 1)]
        assert list_kept(path, pictures_left) == list(range(5 - number))
        assert examine_marks(path) == MarksFound(readable=5 - number, fault=None)


@pytest.mark.parametrize(("pages", "least"), [(1, 1), (7, 0)])
def test_of_a_file_that_was_cut_short_the_rest_is_saved(path: Path, pages: int, least: int):
    pictures = fill(path)
    path.write_bytes(path.read_bytes()[: -4096 * pages])
    before = [read_or_refuse(path, picture) for picture in pictures]
    assert before == ["refused"] * 5
    found = examine_marks(path)
    assert found.fault and found.readable >= least
    save_readable(path)
    assert len(list_kept(path, pictures)) == found.readable
    assert examine_marks(path).fault is None


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_of_nonsense_is_told_set_aside_and_begun_anew(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(CollectionDamaged, match="seer check --repair"):
        Marks(path).keep_query(b"picture", "a.jpg")
    assert examine_marks(path).fault
    save_readable(path)
    assert path.with_name(f"{MARKS}.damaged-1").read_bytes() == content
    assert Marks(path).open_query(Marks(path).keep_query(b"picture", "a.jpg")).picture == b"picture"


@pytest.mark.parametrize("schema", [0, -5])
def test_a_schema_that_no_version_wrote_is_damage_and_costs_nothing(path: Path, schema: int):
    pictures = fill(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema}")
    connection.close()
    assert [read_or_refuse(path, picture) for picture in pictures] == ["refused"] * 5
    assert examine_marks(path).fault and examine_marks(path).readable == 5
    save_readable(path)
    assert list_kept(path, pictures) == list(range(5))


def test_what_a_time_that_is_damaged_says_deletes_nothing(path: Path):
    fill(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE marks SET used_at = 5 WHERE mark = 2")
    connection.close()
    Marks(path).forget_expired()
    assert examine_marks(path).readable == 4
    assert "1 of 5 are not what was written" in examine_marks(path).fault


def test_a_page_that_writes_meanwhile_waits_for_the_repair(path: Path, monkeypatch: pytest.MonkeyPatch):
    pictures = fill(path)
    late = make_picture(77)
    with ThreadPoolExecutor(1) as page:
        insert = marks_upkeep._fill

        def fill_slowly(new: Path, source: sqlite3.Connection) -> None:
            waiting.append(page.submit(Marks(path).keep_query, late, "late.jpg"))
            time.sleep(0.3)
            assert not waiting[0].done()
            insert(new, source)

        waiting: list = []
        monkeypatch.setattr(marks_upkeep, "_fill", fill_slowly)
        save_readable(path)
        with pytest.raises(CollectionUnwritable):
            waiting[0].result(30)
    assert list_kept(path, pictures) == list(range(5))
    assert examine_marks(path).fault is None
