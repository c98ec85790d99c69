"""Ranking: whatever an index proposes among equals, the answer is one order, without gaps or repeats."""

from pathlib import Path

import numpy as np
import pytest

from indexer.snapshot import Snapshot
from indexer.vectors import Store, StoreWriter

DIMENSION, GROUPS, OF_EACH = 16, 5, 60


class UnrulyIndex:
    """A right index that settles ties by chance, anew for each question."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._random = np.random.default_rng(0)

    def search(self, query: np.ndarray, count: int) -> np.ndarray:
        """As `RowIndex.search`."""
        similarities = np.round(self._rows @ query, 5)
        return np.lexsort((self._random.random(len(similarities)), -similarities))[:count]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Five groups of sixty equal rows."""
    distinct = np.random.default_rng(1).normal(size=(GROUPS, DIMENSION)).astype(np.float32)
    distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
    rows = np.tile(distinct, (OF_EACH, 1))
    writer = StoreWriter(tmp_path, DIMENSION, 0)
    writer.append(rows)
    writer.close()
    snapshot = Snapshot.__new__(Snapshot)
    snapshot.rows, snapshot.image_ids = len(rows), np.arange(len(rows)) + 1000
    snapshot.store = Store(tmp_path, DIMENSION, len(rows))
    snapshot.__dict__["index"] = UnrulyIndex(rows)
    return snapshot


def list_all(image_ids: list[int]) -> set[int]:
    return set(image_ids)


def test_each_row_comes_first_among_its_equals(snapshot: Snapshot):
    for row in range(0, 300, 7):
        rows, similarities = snapshot.rank(snapshot.store.read_embedding(row), row, 1, list_all)
        assert rows[0] == row and similarities[0] > 0.999999


@pytest.mark.parametrize("count", [1, 10, 24, 59, 60, 61])
def test_longer_answers_begin_with_the_shorter_ones(snapshot: Snapshot, count: int):
    query = snapshot.store.read_embedding(202)
    whole, _ = snapshot.rank(query, 202, 300, list_all)
    assert sorted(whole) == list(range(300))
    for wanted in range(count, 300, count):
        rows, _ = snapshot.rank(query, 202, wanted, list_all)
        assert list(rows[:wanted]) == list(whole[:wanted])


def test_rows_of_images_that_are_gone_make_room_for_others(snapshot: Snapshot):
    living = {1000 + row for row in range(250, 300)}
    rows, _ = snapshot.rank(snapshot.store.read_embedding(3), None, 50, lambda image_ids: living & set(image_ids))
    assert sorted(rows[:50]) == list(range(250, 300))
