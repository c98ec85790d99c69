"""Near-duplicates: groups about a medoid that never chain, found by hand in few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.duplicates import ReadRows, RowGroup, find_groups, list_pairs
from tests.indexer.making_rows import draw_embeddings


def link(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A neighbour graph of a matrix of cosines."""
    alone = cosines.copy()
    np.fill_diagonal(alone, -np.inf)
    neighbours = np.argsort(-alone, axis=1, kind="stable")[:, :count].astype(np.int32)
    similarities = np.take_along_axis(alone, neighbours, axis=1).astype(np.float32)
    return np.where(np.isfinite(similarities), neighbours, -1), similarities


def shorten(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def compare(rows: np.ndarray) -> np.ndarray:
    return shorten(rows) @ shorten(rows).T


def find(rows: np.ndarray, count: int, at_least: float, living: np.ndarray | None = None, **more: object) -> list:
    """Groups of rows by their neighbour graph."""
    living = np.ones(len(rows), bool) if living is None else living
    return find_groups(list_pairs(*link(compare(rows), count), at_least, living, **more), shorten(rows).__getitem__)


def list_members(group: RowGroup) -> list[int]:
    return [group.medoid, *group.rows.tolist()]


def refuse(rows: np.ndarray) -> np.ndarray:
    raise AssertionError(f"{rows} are read, where the graph says it all")


def test_a_chain_is_not_one_group():
    """Each is like the next, the first and the last are not: an angle of 20 degrees from one to the next."""
    angles = np.radians(20 * np.arange(6))
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    groups = find(rows, 5, np.cos(np.radians(25)))
    assert [(one.medoid, one.rows.tolist()) for one in groups] == [(1, [0, 2]), (4, [3, 5])]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.95), st.sampled_from([2, 8]))
def test_every_member_is_as_near_to_its_medoid_as_was_asked_and_stands_once(seed: int, at_least: float, count: int):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(12, 4)).repeat(4, axis=0) + 0.4 * random.normal(size=(48, 4))
    cosines, living = compare(rows), random.random(48) < 0.9
    groups = find(rows, count, at_least, living)
    named = [row for one in groups for row in (one.medoid, *one.rows.tolist())]
    assert len(named) == len(set(named)) and living[named].all()
    for one in groups:
        np.testing.assert_allclose(one.similarities, cosines[one.medoid, one.rows], atol=1e-6)
        assert (one.similarities >= at_least - 1e-6).all() and (np.diff(one.similarities) <= 0).all()
    assert [len(one.rows) for one in groups] == sorted((len(one.rows) for one in groups), reverse=True)
    left = [row for row in np.flatnonzero(living) if row not in named]
    near = [(a, b) for a in left for b in left if a < b and cosines[a, b] >= at_least + 1e-6]
    linked = {tuple(sorted((a, int(b)))) for a in range(48) for b in link(cosines, count)[0][a] if b >= 0}
    assert not [pair for pair in near if pair in linked], "two that are left are not near each other in the graph"


@pytest.mark.parametrize("count", [2, 3], ids=["a full list", "a list with room"])
def test_a_pair_that_was_told_apart_is_none(count: int):
    rows = np.array([[1, 0], [1, 0.1], [1, 0.2]])
    whole = find(rows, count, 0.9)
    assert [(one.medoid, sorted(one.rows.tolist())) for one in whole] == [(1, [0, 2])]
    parted = find(rows, count, 0.9, apart=[(1, 0), (2, 0)])
    assert [(one.medoid, one.rows.tolist()) for one in parted] == [(1, [2])]
    assert len(find(rows[:2], count, 0.9)) == 1 and find(rows[:2], count, 0.9, apart=[(0, 1)]) == []


def test_two_that_were_told_apart_are_in_no_group_by_way_of_a_third():
    (group,) = find(np.array([[1, 0], [1, 0.1], [1, 0.2]]), 2, 0.9, apart=[(0, 2)])
    assert {*list_members(group)} in ({0, 1}, {1, 2})


@pytest.mark.parametrize("count", [0, 1])
def test_of_nothing_there_are_no_groups(count: int):
    neighbours, similarities = np.full((count, 3), -1, np.int32), np.full((count, 3), -np.inf, np.float32)
    assert find_groups(list_pairs(neighbours, similarities, 0.5, np.ones(count, bool)), refuse) == []


# --- where the lists of the graph end ----------------------------------------------------------------------------


def draw_crowd(count: int, spread: float, seed: int = 3) -> np.ndarray:
    """Rows about one place."""
    return shorten(draw_embeddings(1, 64, seed) + spread * draw_embeddings(count, 64, seed + 1))


def test_near_copies_of_one_picture_are_one_group_however_many_there_are():
    rows = draw_crowd(200, 0.05)
    (group,) = find(rows, 16, 0.9)
    assert sorted(list_members(group)) == list(range(200))
    np.testing.assert_allclose(group.similarities, compare(rows)[group.medoid, group.rows], atol=1e-6)
    assert (np.diff(group.similarities) <= 0).all()


def test_crowds_that_no_list_joins_are_one_group_if_they_are_near_enough():
    """Ten bursts of twenty: each row's list names its own burst alone."""
    places = draw_crowd(10, 0.2)
    rows = shorten(places.repeat(20, axis=0) + 0.01 * draw_embeddings(200, 64, 7))
    assert (link(compare(rows), 16)[0] // 20 == np.arange(200)[:, None] // 20).all()
    assert [len(list_members(one)) for one in find(rows, 16, 0.9)] == [200]
    assert [len(list_members(one)) for one in find(rows, 16, 0.99)] == [20] * 10


def test_a_crowd_does_not_chain_either():
    """A slow pan: 100 rows half a degree apart, each like a list of 16 and many more."""
    angles = np.radians(0.5 * np.arange(100))
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    bound = np.cos(np.radians(10.1))
    groups = find(rows, 16, bound)
    assert len(groups) <= 5 and sum(len(list_members(one)) for one in groups) >= 95
    for one in groups:
        assert (compare(rows)[one.medoid, one.rows] >= bound - 1e-6).all()


def test_copies_that_are_left_are_found_where_all_that_a_list_names_are_gone():
    rows = draw_crowd(1, 0.1).repeat(40, axis=0)
    living = np.arange(40) >= 17
    assert not living[link(compare(rows), 16)[0]].any()
    (group,) = find(rows, 16, 0.9, living)
    assert sorted(list_members(group)) == list(range(17, 40))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_pairs_that_were_told_apart_are_in_no_group_of_a_crowd(seed: int):
    rows, random = draw_crowd(60, 0.1), np.random.default_rng(seed)
    apart = random.integers(60, size=(20, 2))
    apart = [(int(one), int(other)) for one, other in apart if one != other]
    groups = find(rows, 6, 0.9, apart=apart)
    for one in groups:
        assert not [pair for pair in apart if {*pair} <= {*list_members(one)}]
    assert len(list_members(groups[0])) >= 40


def test_two_posts_that_were_told_apart_are_not_joined():
    rows = draw_crowd(1, 0.1).repeat(6, axis=0)
    apart = [(one, other) for one in range(6) for other in range(one)]
    assert find(rows, 2, 0.9, apart=apart) == []
    assert [len(list_members(one)) for one in find(rows, 2, 0.9, apart=apart[1:])] == [2]


def test_the_rows_of_a_crowd_are_read_about_once():
    rows, read = draw_crowd(3000, 0.6), []
    reader: ReadRows = lambda asked: (read.append(len(asked)), rows[asked])[1]  # noqa: E731
    find_groups(list_pairs(*link(compare(rows), 16), 0.7, np.ones(3000, bool)), reader)
    assert sum(read) <= 3 * 3000
