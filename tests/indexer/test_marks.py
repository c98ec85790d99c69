"""Marks: what people decided is kept as it was, is given back to the byte, and goes when it is due or unwanted."""

import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from indexer import marks, marks_file
from indexer.decode import hash_content
from indexer.errors import CatalogTooNew, CollectionUnwritable
from indexer.layout import MARKS
from indexer.marks import KEPT_SECONDS, Marks
from indexer.marks_upkeep import MarksFound, examine_marks, save_readable

DAY = 86_400


def make_picture(seed: int, size_bytes: int = 3000) -> bytes:
    """Bytes that stand for an upload."""
    return random.Random(seed).randbytes(size_bytes)


def name_hash(picture: bytes) -> str:
    return hash_content(picture).hex()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / MARKS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, in its one element."""
    now = [time.time()]
    monkeypatch.setattr(marks.time, "time", lambda: now[0])
    return now


def list_kept(path: Path, pictures: list[bytes]) -> list[int]:
    """Which of these are kept, by their place in the list."""
    return [
        number for number, picture in enumerate(pictures) if Marks(path).open_query(name_hash(picture)) is not None
    ]


def test_a_kept_picture_comes_back_to_the_byte_with_its_name(path: Path):
    picture = make_picture(1)
    content_hash = Marks(path).keep_query(picture, "été.jpg")
    kept = Marks(path).open_query(content_hash)
    assert (kept.content_hash, kept.name, kept.picture) == (name_hash(picture), "été.jpg", picture)
    assert kept.until - datetime.now() > timedelta(days=29, hours=23)
    assert Marks(path).measure_queries() == (1, 3000)


@pytest.mark.parametrize("name", ["a\udcff.jpg", "", "\0", "<img src=x>", "'; DROP TABLE marks; --"])
def test_any_name_can_be_kept(path: Path, name: str):
    kept = Marks(path).open_query(Marks(path).keep_query(b"picture", name))
    assert kept.name == name.replace("\udcff", "?")


def test_questions_to_what_nobody_has_decided_make_no_file(path: Path):
    empty = Marks(path)
    assert empty.open_query("00" * 32) is None and empty.measure_queries() == (0, 0)
    empty.forget_query("00" * 32)
    empty.forget_queries()
    empty.forget_expired()
    assert not path.exists() and examine_marks(path).fault is None


@pytest.mark.parametrize("asked", ["no hash", "../../etc/passwd", "", "ab", "\0", "00" * 32])
def test_what_is_not_kept_is_none(path: Path, asked: str):
    Marks(path).keep_query(b"picture", "a.jpg")
    assert Marks(path).open_query(asked) is None
    Marks(path).forget_query(asked)
    assert Marks(path).measure_queries()[0] == 1


def test_what_is_forgotten_is_gone_and_nowhere_in_the_folder(path: Path):
    secrets = [b"the first secret" * 400, b"another matter" * 400]
    for secret in secrets:
        Marks(path).keep_query(secret, "secret.jpg")
    Marks(path).forget_query(name_hash(secrets[0]))
    assert list_kept(path, secrets) == [1]
    assert b"the first secret" not in path.read_bytes()
    size_bytes = path.stat().st_size
    Marks(path).forget_queries()
    assert list_kept(path, secrets) == [] and b"another matter" not in path.read_bytes()
    assert path.stat().st_size < size_bytes, "its space is given back"
    assert [file.name for file in path.parent.iterdir()] == [MARKS]


def test_a_picture_is_kept_for_a_month_after_its_last_use(path: Path, clock: list[float]):
    picture = make_picture(1)
    content_hash = Marks(path).keep_query(picture, "a.jpg")
    clock[0] += KEPT_SECONDS - 10
    kept = Marks(path).open_query(content_hash)
    assert kept.until == datetime.fromtimestamp(clock[0] + KEPT_SECONDS)
    clock[0] += KEPT_SECONDS - 10
    assert Marks(path).open_query(content_hash).picture == picture
    clock[0] += KEPT_SECONDS + 10
    assert Marks(path).open_query(content_hash) is None


@pytest.mark.parametrize("by", ["the next that is kept", "the start of a server"])
def test_what_is_due_is_deleted(path: Path, clock: list[float], by: str):
    Marks(path).keep_query(make_picture(1), "old.jpg")
    clock[0] += 20 * DAY
    Marks(path).keep_query(make_picture(2), "newer.jpg")
    clock[0] += 15 * DAY
    if by == "the start of a server":
        Marks(path).forget_expired()
        assert Marks(path).measure_queries()[0] == 1
    else:
        Marks(path).keep_query(make_picture(3), "new.jpg")
        assert Marks(path).measure_queries()[0] == 2
    assert list_kept(path, [make_picture(1), make_picture(2)]) == [1]


def test_the_longest_unused_make_room(path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "KEPT_BYTES", 10_000)
    pictures = [make_picture(seed) for seed in range(5)]
    for picture in pictures[:3]:
        Marks(path).keep_query(picture, "a.jpg")
        clock[0] += 2 * DAY
    Marks(path).open_query(name_hash(pictures[0]))
    clock[0] += 1
    Marks(path).keep_query(pictures[3], "a.jpg")
    assert list_kept(path, pictures) == [0, 2, 3]
    clock[0] -= 300 * DAY
    Marks(path).keep_query(pictures[4], "a.jpg")
    assert 4 in list_kept(path, pictures), "a clock that was set back does not cost the one that was just kept"
    assert Marks(path).measure_queries()[1] <= 10_000


def test_what_is_larger_than_all_the_room_is_not_kept_and_costs_no_other(path: Path, monkeypatch: pytest.MonkeyPatch):
    Marks(path).keep_query(make_picture(1), "a.jpg")
    monkeypatch.setattr(marks, "KEPT_BYTES", 5_000_000)
    with pytest.raises(CollectionUnwritable, match="6 MB; up to 5 MB"):
        Marks(path).keep_query(bytes(6_000_000), "b.jpg")
    assert list_kept(path, [make_picture(1)]) == [0]


def test_a_picture_that_is_kept_twice_is_there_once(path: Path):
    for name in ("a.jpg", "b.jpg"):
        content_hash = Marks(path).keep_query(make_picture(1), name)
    assert Marks(path).measure_queries() == (1, 3000)
    assert Marks(path).open_query(content_hash).name == "b.jpg"


def test_marks_of_a_later_version_are_left_alone(path: Path):
    content_hash = Marks(path).keep_query(b"picture", "a.jpg")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = path.read_bytes()
    for ask in (
        lambda: Marks(path).keep_query(b"other", "b.jpg"),
        lambda: Marks(path).open_query(content_hash),
        lambda: save_readable(path),
    ):
        with pytest.raises(CatalogTooNew, match="has schema 7"):
            ask()
    assert "schema 7" in examine_marks(path).fault
    assert path.read_bytes() == before


# --- danger ------------------------------------------------------------------------------------------------------


def die_while_keeping(path: Path, picture: bytes) -> None:
    """Another process keeps a picture and is killed when it has written most of it."""
    child = os.fork()
    if child == 0:
        marks._let_go = lambda *_: os.kill(os.getpid(), 9)
        Marks(path).keep_query(picture, "dying.jpg")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9


def test_a_kill_while_keeping_costs_nothing_that_was_kept(path: Path):
    pictures = [make_picture(seed, 50_000) for seed in range(4)]
    for picture in pictures[:3]:
        Marks(path).keep_query(picture, "a.jpg")
    large = make_picture(9, 12_000_000)
    die_while_keeping(path, large)
    assert path.with_name(f"{MARKS}-journal").exists(), "it was killed with half of it in the file"
    assert list_kept(path, [*pictures[:3], large]) == [0, 1, 2]
    assert examine_marks(path).fault is None
    Marks(path).keep_query(large, "large.jpg")
    assert list_kept(path, [*pictures[:3], large]) == [0, 1, 2, 3]


def test_a_kill_before_anything_was_kept_leaves_a_file_that_opens(path: Path):
    die_while_keeping(path, make_picture(9, 12_000_000))
    assert Marks(path).measure_queries() == (0, 0)
    Marks(path).keep_query(make_picture(1), "a.jpg")
    assert list_kept(path, [make_picture(1)]) == [0]


def test_a_full_disk_costs_nothing_that_was_kept(path: Path, monkeypatch: pytest.MonkeyPatch):
    pictures = [make_picture(seed, 50_000) for seed in range(10)]
    monkeypatch.setattr(marks_file, "SETTINGS", (*marks_file.SETTINGS, "PRAGMA max_page_count=60"))
    kept = 0
    with pytest.raises(CollectionUnwritable, match="database or disk is full"):
        for picture in pictures:
            Marks(path).keep_query(picture, "a.jpg")
            kept += 1
    assert 2 <= kept < 10
    assert list_kept(path, pictures) == list(range(kept))
    assert examine_marks(path) == MarksFound(readable=kept, fault=None)
    Marks(path).forget_query(name_hash(pictures[0]))
    Marks(path).keep_query(pictures[9], "a.jpg")


def test_processes_that_keep_at_once_lose_nothing(path: Path):
    pictures = [make_picture(seed, 20_000) for seed in range(40)]
    children = []
    for part in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            for picture in pictures[part::4]:
                Marks(path).keep_query(picture, f"{part}.jpg")
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert list_kept(path, pictures) == list(range(40))


def test_threads_of_one_page_keep_and_ask_at_once(path: Path):
    pictures = [make_picture(seed, 20_000) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        hashes = list(pool.map(lambda picture: Marks(path).keep_query(picture, "a.jpg"), pictures))
        assert [kept.picture for kept in pool.map(Marks(path).open_query, hashes)] == pictures


def test_a_page_that_looks_while_another_makes_the_file_calls_nothing_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    ask, others = marks_file.read_value, [lambda: Marks(path).keep_query(b"another page's", "b.jpg")]

    def ask_and_wait(connection: sqlite3.Connection, query: str) -> int:
        answer = ask(connection, query)
        while others:
            others.pop()()
        return answer

    monkeypatch.setattr(marks_file, "read_value", ask_and_wait)
    Marks(path).keep_query(b"picture", "a.jpg")
    assert Marks(path).measure_queries()[0] == 2


def test_a_folder_that_may_not_be_written_is_a_sentence_and_what_was_kept_is_read(path: Path):
    path.mkdir()  # What stands in the way of a file stops root too.
    with pytest.raises(CollectionUnwritable, match="cannot be read or written now"):
        Marks(path).keep_query(b"picture", "a.jpg")
