"""Ranking: whatever an index proposes among equals, the answer is one order, without gaps or repeats."""

from pathlib import Path

import numpy as np
import pytest

from indexer.errors import CollectionDamaged
from indexer.snapshot import Snapshot
from indexer.vectors import Store, StoreWriter

DIMENSION, GROUPS, OF_EACH = 16, 5, 60


class UnrulyIndex:
    """A right index that settles ties by chance, anew for each question."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._random = np.random.default_rng(0)

    def search(self, query: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """As `ExactIndex.search`."""
        similarities = np.round(self._rows @ query, 5)
        order = np.lexsort((self._random.random(len(similarities)), -similarities))
        return (order if allowed is None else order[allowed[order]])[:count]


class ShyIndex:
    """An approximate index of ten lists, each of them rows of its own; nothing in the others is found."""

    lists = 10

    def __init__(self, rows: np.ndarray) -> None:
        self._rows, self.asked = rows, []

    def rank(
        self, queries: np.ndarray, count: int, probes: int, stored: object, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ApproximateIndex.rank`."""
        self.asked.append((count, probes))
        seen = np.arange(len(self._rows)) % self.lists < probes
        order = np.argsort(-self._rows @ queries[0], kind="stable")
        order = order[seen[order] & (True if allowed is None else allowed[order])][:count]
        missing = min(count, len(self._rows)) - len(order)
        products = self._rows[order] @ queries[0]
        return np.append(products, np.full(missing, -np.inf))[None], np.append(order, np.full(missing, -1))[None]


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
    snapshot.search = None
    snapshot.__dict__["exact"] = UnrulyIndex(rows)
    return snapshot


@pytest.fixture
def shy(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """The same with an approximate index, which looks through one of ten lists."""
    filtered = [{"share": 0.1, "probes": 4, "recall": 0.8}, {"share": 0.01, "probes": 10, "recall": 0.99}]
    snapshot.search = {"probes": 1, "candidates": 8, "filtered": filtered}
    snapshot.recall = 0.9
    snapshot.__dict__["approximate"] = ShyIndex(snapshot.store.rows.astype(np.float32))
    monkeypatch.setattr("indexer.snapshot.SMALL_BYTES", 0)
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


def test_the_same_holds_among_the_rows_that_are_allowed(snapshot: Snapshot):
    allowed = np.arange(0, 300, 3)
    rows, _ = snapshot.rank(snapshot.store.read_embedding(4), 4, 300, list_all, allowed=allowed)
    assert sorted(rows) == list(allowed)
    rows, _ = snapshot.rank(snapshot.store.read_embedding(3), 3, 1, list_all, allowed=allowed)
    assert rows[0] == 3


def test_a_row_that_changed_is_told_also_where_it_hides(snapshot: Snapshot, tmp_path: Path):
    """As zeros it would be among the nearest of nothing, and never be compared."""
    del snapshot.__dict__["exact"]
    with (tmp_path / "rows.f16").open("r+b") as file:
        file.seek(9 * DIMENSION * 2)
        file.write(bytes(DIMENSION * 2))
    with pytest.raises(CollectionDamaged, match="Row 9 of"):
        snapshot.rank(snapshot.store.read_embedding(4), 4, 3, list_all)


def test_every_cosine_is_compared(snapshot: Snapshot):
    del snapshot.__dict__["exact"]
    query = snapshot.store.read_embedding(7)
    np.testing.assert_allclose(snapshot.compare_all(query), snapshot.store.compare(query, np.arange(300)), atol=2e-6)


@pytest.mark.parametrize("wanted", [1, 8, 25, 31, 60, 299, 300, 1000])
def test_an_approximate_answer_has_as_many_as_there_are(shy: Snapshot, wanted: int):
    rows, _ = shy.rank(shy.store.read_embedding(0), None, wanted, list_all)
    assert len(rows) >= min(wanted, 300) and len(set(rows)) == len(rows)


def test_the_own_row_comes_first_even_where_the_index_misses_it(shy: Snapshot):
    rows, similarities = shy.rank(shy.store.read_embedding(9), 9, 5, list_all)
    assert rows[0] == 9 and similarities[0] >= 0.999999
    rows, _ = shy.rank(shy.store.read_embedding(9), 9, 5, list_all, allowed=np.arange(10, 300))
    assert 9 not in rows


def test_an_approximate_index_can_be_passed_over(shy: Snapshot):
    rows, _ = shy.rank(shy.store.read_embedding(9), None, 60, list_all, is_exact=True)
    assert sorted(rows[:60]) == list(range(4, 300, 5)) and not shy.approximate.asked


def test_gone_rows_make_room_in_an_approximate_answer(shy: Snapshot):
    living = {1000 + row for row in range(0, 300, 50)}
    rows, _ = shy.rank(shy.store.read_embedding(0), None, 6, lambda image_ids: living & set(image_ids))
    assert sorted(rows) == list(range(0, 300, 50))


def test_a_stricter_filter_widens_the_search_and_a_small_one_is_exact(shy: Snapshot, monkeypatch: pytest.MonkeyPatch):
    query = shy.store.read_embedding(0)
    told = {}
    for allowed in (np.arange(0, 300, 2), np.arange(0, 300, 75)):
        shy.approximate.asked.clear()
        shy.rank(query, None, 1, list_all, allowed=allowed)
        told[len(allowed)] = shy.approximate.asked[0][1], shy.read_recall(allowed)
    assert told == {150: (8, 0.8), 4: (20, 0.99)}
    assert not shy.is_answered_exactly(np.arange(4))
    monkeypatch.setattr("indexer.snapshot.SMALL_BYTES", 4 * DIMENSION * 2)
    assert shy.is_answered_exactly(np.arange(4)) and not shy.is_answered_exactly(np.arange(5))
    assert shy.read_recall(None) == 0.9
    shy.approximate.asked.clear()
    shy.rank(query, None, 1, list_all, allowed=np.arange(4))
    assert not shy.approximate.asked


def test_a_small_filter_reads_its_own_rows_alone(snapshot: Snapshot, tmp_path: Path):
    with (tmp_path / "rows.f16").open("r+b") as file:
        file.seek(9 * DIMENSION * 2)
        file.write(bytes(DIMENSION * 2))
    del snapshot.__dict__["exact"]
    query = snapshot.store.read_embedding(4)
    rows, _ = snapshot.rank(query, 4, 3, list_all, allowed=np.array([4, 5, 6]))
    assert rows[0] == 4 and sorted(rows) == [4, 5, 6]
    assert np.flatnonzero(snapshot.store._is_checked).tolist() == [4, 5, 6]
    rows, _ = snapshot.rank(query, None, 3, lambda image_ids: {1005} & set(image_ids), allowed=np.array([4, 5, 6]))
    assert list(rows) == [5]


@pytest.mark.parametrize("sign", [1, -1])
def test_no_row_beyond_those_proposed_may_be_nearer(snapshot: Snapshot, sign: int):
    query = sign * snapshot.store.read_embedding(4)
    whole = snapshot.store.compare(query, np.arange(300))
    rows, floor, _ = snapshot._propose_exactly(snapshot.exact, query, None, 40, None, 1)
    assert floor >= np.delete(whole, rows).max()


def test_those_that_are_gone_are_looked_up_once(snapshot: Snapshot):
    asked = []

    def list_living_rows() -> np.ndarray:
        asked.append(1)
        return np.arange(250, 300)

    living, query = {1000 + row for row in range(250, 300)}, snapshot.store.read_embedding(3)
    rows, _ = snapshot.rank(
        query, None, 50, lambda image_ids: living & set(image_ids), list_living_rows=list_living_rows
    )
    assert sorted(rows[:50]) == list(range(250, 300)) and len(asked) == 1


def test_pages_are_cut_from_the_same_candidates(shy: Snapshot):
    shy.search["candidates"] = 64
    query = shy.store.read_embedding(1)
    for wanted in (3, 10, 25):
        shy.rank(query, None, wanted, list_all)
    assert {count for count, _ in shy.approximate.asked} == {64}
