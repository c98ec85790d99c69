"""A power cut at any moment of a build or a prune: every state that the disk may then hold opens, has all that was
committed, answers nothing wrong, and the next build ends as if undisturbed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.schema import connect_to_write
from indexer.upkeep import prune_collection
from indexer.vectors import Store, count_rows
from tests.danger.oracle import Truth, read_truth, require_equal, require_no_wrong
from tests.danger.power import Files, Recorder, write_state
from tests.danger.tally import add
from tests.indexer.making import build, draw
from tests.indexer.pixel_backbone import PixelBackbone

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

DIMENSION = PixelBackbone.dimension


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


@pytest.mark.parametrize("prepare", [build_first, build_more, change_model, prune])
def test_every_state_that_a_power_cut_may_leave_is_gone_on_from(
    prepare: Callable, place: Path, few: Path, tmp_path: Path
):
    change = prepare(place, few)
    build(tmp_path / "undisturbed", few)
    truth = read_truth(tmp_path / "undisturbed", few)
    recorder = Recorder(place)
    with recorder.recording():
        change()
    states = recorder.list_states()
    print(f"{len(recorder.moments)} moments, {len(states)} states")
    assert len(states) > 40
    shutil.rmtree(place)
    for files in states:
        go_on_from(files, place, few, truth)


def go_on_from(files: Files, place: Path, few: Path, truth: Truth) -> None:
    """Write a state in the collection's place, look at it, and build on."""
    write_state(files, place)
    add("faults injected")
    require_no_wrong(place, truth, few)
    require_committed(place)
    build(place, few)
    require_equal(place, truth, few)
    shutil.rmtree(place)


def require_committed(place: Path) -> None:
    """Each row that the catalog names, of a store that is there, is on the disk as it was written."""
    if not (place / "catalog.sqlite").is_file():
        return
    connection = connect_to_write(place / "catalog.sqlite")
    named = connection.execute("SELECT store, max(row) + 1 FROM rows GROUP BY store").fetchall()
    connection.close()
    for store, rows in named:
        folder = place / "stores" / f"{store:06d}"
        assert count_rows(folder, DIMENSION) >= rows, f"{rows} rows of store {store} were committed"
        stored = Store(folder, DIMENSION, rows)
        assert not stored.list_damaged(np.arange(rows))
