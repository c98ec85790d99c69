"""The exact index against numpy: the same rows in the same order, also when only some are allowed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import index
from indexer.errors import CollectionDamaged
from indexer.index import ExactIndex, find_nearest, open_approximate
from indexer.index_maker import open_trained, train
from indexer.recipes import Recipe


def make_rows(count: int, dimension: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float16)


def make_query(dimension: int, seed: int) -> np.ndarray:
    query = np.random.default_rng(seed + 1).normal(size=dimension).astype(np.float32)
    return query / np.linalg.norm(query)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 300), dimension=st.integers(2, 80), k=st.integers(1, 320), seed=st.integers(0, 9999),
    share=st.sampled_from([None, 0.0, 0.1, 0.9, 1.0]), at_once=st.sampled_from([8, 2048]),
)  # fmt: skip
def test_exact_search_equals_numpy(count: int, dimension: int, k: int, seed: int, share: float | None, at_once: int):
    rows, query = make_rows(count, dimension, seed), make_query(dimension, seed)
    allowed = None if share is None else np.random.default_rng(seed).random(count) < share
    there = np.arange(count) if allowed is None else np.flatnonzero(allowed)
    products = rows.astype(np.float32) @ query
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "MOST_AT_ONCE", at_once)
        found = ExactIndex(rows).search(query, k, allowed)
    assert len(set(found)) == len(found) == min(k, len(there)) and set(found) <= set(there)
    np.testing.assert_allclose(products[found], np.sort(products[there])[::-1][:k], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 200), seed=st.integers(0, 9999), least=st.floats(-3, 3))
def test_all_rows_above_a_product_are_found(count: int, seed: int, least: float):
    rows, query = make_rows(count, 16, seed), make_query(16, seed)
    products = rows.astype(np.float32) @ query
    found, told = ExactIndex(rows).find_above(query, least)
    assert set(np.flatnonzero(products > least + 1e-4)) <= set(found) <= set(np.flatnonzero(products > least - 1e-4))
    assert list(found) == sorted(found)
    np.testing.assert_allclose(told, products[found], atol=1e-5)


def test_an_exact_index_is_the_rows_themselves():
    """No copy is made: what the rows say later is what is searched."""
    rows = make_rows(50, 8, seed=3)
    exact, query = ExactIndex(rows), make_query(8, 3)
    rows[17] = query * 100
    assert exact.search(query, 1)[0] == 17


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(12, 200), k=st.integers(1, 12), seed=st.integers(0, 999), piece=st.integers(1, 40))
def test_many_questions_are_answered_as_each_alone(
    count: int, k: int, seed: int, piece: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "PIECE_BYTES", piece * 16 * 4)
    rows = make_rows(count, 16, seed)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    queries = np.stack([make_query(16, seed + number) for number in range(5)])
    similarities, found = find_nearest(rows, norms, queries, k)
    expected = (rows.astype(np.float32) / norms[:, None]) @ queries.T
    for number in range(5):
        assert len(set(found[number])) == k
        np.testing.assert_allclose(similarities[number], np.sort(expected[:, number])[::-1][:k], atol=1e-5)
        np.testing.assert_allclose(expected[found[number], number], similarities[number], atol=1e-5)


def test_fewer_rows_than_are_asked_for_leave_places_empty():
    rows = make_rows(3, 8, seed=1)
    similarities, found = find_nearest(rows, np.ones(3, np.float32), rows.astype(np.float32), 5)
    assert (found[:, 3:] == -1).all() and np.isneginf(similarities[:, 3:]).all() and (found[:, :3] >= 0).all()


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """2,000 rows of length 1 about 40 places, 64 wide."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 64)).repeat(50, axis=0) + 0.4 * random.normal(size=(2000, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def written(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An approximate index of the first 1,500, written."""
    path = tmp_path_factory.mktemp("index") / "index.faiss"
    maker = train(Recipe(reduced=32, lists=16), rows, np.arange(0, 1500, 2))
    maker.add(rows[:1500])
    maker.write(path)
    return path


def test_a_written_index_answers_as_it_did_and_grows(rows: np.ndarray, written: Path):
    before = open_approximate(written)
    assert before.shape == (1500, 64) and before.lists == 16
    maker = open_trained(written)
    maker.add(rows[1500:])
    assert maker.rows == 2000
    queries = rows[[3, 1700]].astype(np.float32)
    own = maker.show().search(queries, 50, probes=16)
    assert 3 in own[0] and 1700 in own[1]
    assert list(before.search(queries[:1], 50, probes=16)[0]) == list(own[0])


def test_all_lists_and_enough_candidates_miss_nothing(rows: np.ndarray, written: Path):
    found = open_approximate(written).search(rows[:4].astype(np.float32), 1500, probes=16)
    assert all(sorted(one) == list(range(1500)) for one in found)


def test_candidates_are_ranked_by_their_stored_rows_and_not_by_their_codes(rows: np.ndarray, written: Path):
    queries, stored = rows[:9].astype(np.float32), ExactIndex(rows[:1500])
    approximate = open_approximate(written)
    products, found = approximate.rank(queries, 40, 16, stored)
    np.testing.assert_allclose(products, np.take_along_axis(queries @ rows.T, found, axis=1), atol=1e-5)
    assert (np.diff(products, axis=1) <= 0).all()
    assert (np.sort(found) == np.sort(approximate.search(queries, 40, 16))).all()
    products, found = approximate.rank(queries, 1500, 1, stored)
    assert (found[:, -1] == -1).all() and np.isneginf(products[:, -1]).all() and (found[:, 0] >= 0).all()


def test_what_is_not_allowed_is_never_proposed(rows: np.ndarray, written: Path):
    allowed = np.arange(1500) % 7 == 0
    found = open_approximate(written).search(rows[:4].astype(np.float32), 300, probes=16, allowed=allowed)
    for one in found:
        assert sorted(one[one >= 0]) == list(np.flatnonzero(allowed)), "all of them, and -1 for the rest"
        assert (one[215:] == -1).all()


def test_a_file_that_is_no_index_is_told_as_damage(tmp_path: Path):
    (tmp_path / "index.faiss").write_bytes(b"IxNothing of FAISS" * 10)
    with pytest.raises(CollectionDamaged, match="seer check --repair"):
        open_approximate(tmp_path / "index.faiss")


def test_the_reduction_keeps_products(rows: np.ndarray):
    """Rows far from zero: what is kept is their products, not their distances from their mean."""
    shifted = rows.astype(np.float32) + 0.5
    shifted = (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)).astype(np.float16)
    maker = train(Recipe(reduced=40, lists=4), shifted, np.arange(2000))
    matrix = maker.read_reduction()
    reduced = shifted.astype(np.float32) @ matrix.T
    exact = shifted[:100].astype(np.float32) @ shifted.T.astype(np.float32)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=1e-5)
    assert np.abs(reduced[:100] @ reduced.T - exact).mean() < 0.01
