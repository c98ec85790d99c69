"""Recall as it is measured: against counting by hand, on queries that are their own judges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.recall import (
    CANDIDATES,
    NEAREST,
    NO_OWN,
    HeldOut,
    Width,
    answer_exactly,
    find_places,
    find_width,
    list_probes,
    measure,
)


class SlicedIndex:
    """Ten lists, row by row in turn; with `probes` of them all their rows are proposed in the right order."""

    lists = 10

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows.astype(np.float32)

    def search(self, queries: np.ndarray, count: int, probes: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """As `ApproximateIndex.search`."""
        seen = np.arange(len(self._rows)) % self.lists < probes
        found = np.full((len(queries), count), -1)
        for number, query in enumerate(queries):
            order = np.argsort(-self._rows @ query, kind="stable")
            order = order[seen[order] & (True if allowed is None else allowed[order])][:count]
            found[number, : len(order)] = order
        return found


def make_store(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(count, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return rows, np.linalg.norm(rows.astype(np.float32), axis=1)


def ask_rows(rows: np.ndarray, norms: np.ndarray, own: list[int]) -> HeldOut:
    return answer_exactly(rows[own].astype(np.float32) / norms[own, None], np.array(own), rows, norms)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 60), seed=st.integers(0, 999))
def test_the_exact_answer_leaves_out_the_own_row_alone(count: int, seed: int):
    rows, norms = make_store(count, seed)
    held = ask_rows(rows, norms, [0, count - 1])
    unit = rows.astype(np.float32) / norms[:, None]
    for query, own, nearest, told in zip(held.queries, held.own, held.nearest, held.similarities, strict=True):
        cosines = unit @ query
        cosines[own] = -np.inf
        expected = np.argsort(-cosines, kind="stable")[: min(NEAREST, count - 1)]
        assert list(nearest[: len(expected)]) == list(expected) and (nearest[len(expected) :] == -1).all()
        np.testing.assert_allclose(told[: len(expected)], cosines[expected], atol=1e-5)


def test_an_edited_copy_has_no_own_row():
    rows, norms = make_store(50, 1)
    held = answer_exactly(rows[[7]].astype(np.float32), np.array([NO_OWN]), rows, norms)
    assert held.nearest[0][0] == 7


@settings(max_examples=25, deadline=None)
@given(first=st.integers(2, 60), later=st.integers(0, 40), seed=st.integers(0, 999))
def test_answers_extended_by_later_rows_are_those_of_all_rows(first: int, later: int, seed: int):
    rows, norms = make_store(first + later, seed)
    before = ask_rows(rows[:first], norms[:first], [0, 1])
    extended = before.extend(rows[first:], norms[first:], first) if later else before
    whole = ask_rows(rows, norms, [0, 1])
    assert extended.nearest.tolist() == whole.nearest.tolist()
    np.testing.assert_allclose(extended.similarities, whole.similarities, atol=1e-6)


def test_recall_is_the_share_that_was_proposed_early_enough():
    rows, norms = make_store(400, 3)
    held, index = ask_rows(rows, norms, list(range(0, 400, 20))), SlicedIndex(rows)
    for probes in (1, 5, 10):
        places = find_places(index, held, Width(probes=probes, candidates=CANDIDATES[-1]))
        in_lists = np.isin(held.nearest % 10, np.arange(probes))
        assert measure(index, held, Width(probes=probes, candidates=CANDIDATES[-1])) == in_lists.mean()
        assert ((places < CANDIDATES[-1]) == in_lists).all()
    # With all lists the own row is proposed first, and the ten right after it.
    assert (places == np.arange(1, 11)).all()
    assert measure(index, held, Width(probes=10, candidates=6)) == 0.5


def test_recall_among_allowed_rows_counts_only_those():
    rows, norms = make_store(400, 4)
    allowed = np.arange(400) % 3 == 0
    chosen = np.flatnonzero(allowed)
    found = answer_exactly(rows[[1, 2]].astype(np.float32), np.array([NO_OWN] * 2), rows[chosen], norms[chosen])
    held = HeldOut(**{**vars(found), "nearest": chosen[found.nearest]})
    assert measure(SlicedIndex(rows), held, Width(probes=10, candidates=32), allowed) == 1.0


def test_the_narrowest_width_that_reaches_the_target_is_chosen():
    rows, norms = make_store(2000, 5)
    held, index = ask_rows(rows, norms, list(range(0, 2000, 25))), SlicedIndex(rows)
    width, _ = find_width(index, held, 0.75, 2000, 16, 64)
    assert width == Width(probes=8, candidates=32)
    width, best = find_width(index, held, 1.0, 2000, 16, 64)
    assert width == Width(probes=10, candidates=32) and best == 1.0


def test_where_no_width_reaches_the_target_the_best_recall_is_told():
    rows, norms = make_store(2000, 6)
    held = ask_rows(rows, norms, list(range(0, 2000, 25)))
    index = SlicedIndex(rows)
    index.search = lambda queries, count, probes, allowed=None: np.full((len(queries), count), -1)
    assert find_width(index, held, 0.5, 2000, 16, 64) == (None, 0.0)


@pytest.mark.parametrize(("lists", "expected"), [(1, [1]), (2, [1, 2]), (10, [1, 2, 3, 4, 5, 6, 7, 8, 10])])
def test_probes_go_up_to_all_lists(lists: int, expected: list[int]):
    assert list(list_probes(lists)) == expected


def test_halves_share_no_query():
    rows, norms = make_store(60, 8)
    held = ask_rows(rows, norms, list(range(31)))
    choosing, telling = held.halve()
    assert sorted([*choosing.own, *telling.own]) == list(range(31)) and len(choosing.own) == 16
