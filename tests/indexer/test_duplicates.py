"""Near-duplicates: groups about a medoid that never chain, found by hand in few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.duplicates import find_groups, list_pairs


def link(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A neighbour graph of a matrix of cosines."""
    alone = cosines.copy()
    np.fill_diagonal(alone, -np.inf)
    neighbours = np.argsort(-alone, axis=1, kind="stable")[:, :count].astype(np.int32)
    similarities = np.take_along_axis(alone, neighbours, axis=1).astype(np.float32)
    return np.where(np.isfinite(similarities), neighbours, -1), similarities


def compare(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_a_chain_is_not_one_group():
    """Each is like the next, the first and the last are not: an angle of 20 degrees from one to the next."""
    angles = np.radians(20 * np.arange(6))
    cosines = compare(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    groups = find_groups(list_pairs(*link(cosines, 5), np.cos(np.radians(25)), np.ones(6, bool)))
    assert [(one.medoid, one.rows.tolist()) for one in groups] == [(1, [0, 2]), (4, [3, 5])]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.95))
def test_every_member_is_as_near_to_its_medoid_as_was_asked_and_stands_once(seed: int, at_least: float):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(12, 4)).repeat(4, axis=0) + 0.4 * random.normal(size=(48, 4))
    cosines, living = compare(rows), random.random(48) < 0.9
    groups = find_groups(list_pairs(*link(cosines, 8), at_least, living))
    named = [row for one in groups for row in (one.medoid, *one.rows.tolist())]
    assert len(named) == len(set(named)) and living[named].all()
    for one in groups:
        np.testing.assert_allclose(one.similarities, cosines[one.medoid, one.rows], atol=1e-6)
        assert (one.similarities >= at_least - 1e-6).all() and (np.diff(one.similarities) <= 0).all()
    assert [len(one.rows) for one in groups] == sorted((len(one.rows) for one in groups), reverse=True)
    left = [row for row in np.flatnonzero(living) if row not in named]
    near = [(a, b) for a in left for b in left if a < b and cosines[a, b] >= at_least + 1e-6]
    linked = {tuple(sorted((a, int(b)))) for a in range(48) for b in link(cosines, 8)[0][a] if b >= 0}
    assert not [pair for pair in near if pair in linked], "two that are left are not near each other in the graph"


def test_a_pair_that_was_told_apart_is_none():
    cosines = compare(np.array([[1, 0], [1, 0.1], [1, 0.2]]))
    graph = link(cosines, 2)
    whole = find_groups(list_pairs(*graph, 0.9, np.ones(3, bool)))
    assert [(one.medoid, sorted(one.rows.tolist())) for one in whole] == [(1, [0, 2])]
    parted = find_groups(list_pairs(*graph, 0.9, np.ones(3, bool), apart=[(1, 0), (2, 0)]))
    assert [(one.medoid, one.rows.tolist()) for one in parted] == [(1, [2])]


def test_two_that_were_told_apart_are_in_no_group_by_way_of_a_third():
    cosines = compare(np.array([[1, 0], [1, 0.1], [1, 0.2]]))
    apart = [(0, 2)]
    (group,) = find_groups(list_pairs(*link(cosines, 2), 0.9, np.ones(3, bool), apart), apart)
    assert {group.medoid, *group.rows.tolist()} in ({0, 1}, {1, 2})


@pytest.mark.parametrize("count", [0, 1])
def test_of_nothing_there_are_no_groups(count: int):
    neighbours, similarities = np.full((count, 3), -1, np.int32), np.full((count, 3), -np.inf, np.float32)
    assert find_groups(list_pairs(neighbours, similarities, 0.5, np.ones(count, bool))) == []
