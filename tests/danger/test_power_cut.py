"""A power cut at any moment of a build, a prune or a repair: every state that the disk may then hold opens, has all
that was committed, answers nothing wrong, and the next build ends as if undisturbed."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.check import check_collection
from indexer.decode import hash_content
from indexer.layout import CATALOG, MARKS, STORES, name_store
from indexer.marks import Marks
from indexer.schema import connect_to_write
from indexer.upkeep import prune_collection
from indexer.vectors import Store, count_rows
from tests.danger.oracle import read_truth, require_equal, require_no_wrong
from tests.danger.power import Recorder, write_state
from tests.danger.tally import add
from tests.indexer.making import build, draw
from tests.indexer.pixel_backbone import PixelBackbone

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

DIMENSION = PixelBackbone.dimension
ROWS = "stores/000001/rows.f16"
KEPT = b"a picture that was searched with"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Five pictures: the number of states grows with each."""
    for seed in range(5):
        draw(tmp_path / "few" / f"{seed}.png", seed)
    return tmp_path / "few"


def build_first(place: Path, few: Path) -> Callable:
    place.mkdir()
    return lambda: build(place, few, batch_size=2)


def build_more(place: Path, few: Path) -> Callable:
    build(place, few, batch_size=2)
    for seed in (20, 21, 22):
        draw(few / f"{seed}.png", seed)
    (few / "1.png").unlink()
    return lambda: build(place, few, batch_size=2)


def change_model(place: Path, few: Path) -> Callable:
    build(place, few, batch_size=4)
    return lambda: build(place, few, batch_size=4, model="regnety-400mf")


def prune(place: Path, few: Path) -> Callable:
    build_more(place, few)()
    return lambda: prune_collection(place)


def build_on_short(place: Path, few: Path) -> Callable:
    """The store has lost its last two rows; what is left of it goes on in another."""
    build(place, few, batch_size=2)
    os.truncate(place / ROWS, (place / ROWS).stat().st_size * 3 // 5)
    return lambda: build(place, few, batch_size=2)


def repair(place: Path, few: Path) -> Callable:
    """A row has changed, and one of two pictures that were kept."""
    build(place, few, batch_size=4)
    rows = bytearray((place / ROWS).read_bytes())
    rows[len(rows) // 2] ^= 1
    (place / ROWS).write_bytes(rows)
    for picture in (KEPT, b"another"):
        Marks(place / MARKS).keep_query(picture, "query.png")
    with closing(sqlite3.connect(place / MARKS)) as connection, connection:
        connection.execute("UPDATE marks SET picture = 'damaged' WHERE picture != ?", (KEPT,))
    return lambda: check_collection(place, repair=True, sample=0)


@pytest.mark.parametrize("prepare", [build_first, build_more, change_model, prune, build_on_short, repair])
def test_every_state_that_a_power_cut_may_leave_is_gone_on_from(
    prepare: Callable, place: Path, few: Path, tmp_path: Path
):
    change = prepare(place, few)
    build(tmp_path / "undisturbed", few)
    truth = read_truth(tmp_path / "undisturbed", few)
    harmed, marks = list_harmed(place), read_marks(place)
    recorder = Recorder(place)
    with recorder.recording():
        change()
    states = recorder.list_states()
    print(f"{len(recorder.moments)} moments, {len(states)} states")
    assert len(states) > 40
    shutil.rmtree(place)
    for files in states:
        write_state(files, place)
        add("faults injected")
        require_no_wrong(place, truth, few, is_damaged=bool(harmed))
        assert list_harmed(place) <= harmed, "rows that were committed"
        if prepare is repair:
            assert marks <= read_marks(place), "the damaged file is kept"
            assert check_collection(place, repair=True, sample=0).is_sound
            assert Marks(place / MARKS).open_query(hash_content(KEPT).hex()).picture == KEPT
        build(place, few)
        require_equal(place, truth, few)
        shutil.rmtree(place)


def list_harmed(place: Path) -> set[int]:
    """Stores of which the catalog names rows that are not on the disk as they were written."""
    if not (place / CATALOG).is_file():
        return set()
    with closing(connect_to_write(place / CATALOG)) as connection:
        named = connection.execute("SELECT store, max(row) + 1 FROM rows GROUP BY store").fetchall()
    return {store for store, rows in named if not is_whole(place / STORES / name_store(store), rows)}


def is_whole(folder: Path, rows: int) -> bool:
    if count_rows(folder, DIMENSION) < rows:
        return False
    return not Store(folder, DIMENSION, rows).list_damaged(np.arange(rows))


def read_marks(place: Path) -> set[bytes]:
    """What the files of marks hold, whatever they are called."""
    return {file.read_bytes() for file in place.glob(f"{MARKS}*")}
