"""The index against numpy: the same rows in the same order, also when some are left out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.index import RowIndex, build_index


def make_index(path: Path, count: int, dimension: int, seed: int) -> tuple[RowIndex, np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float16)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    build_index(rows, norms, path)
    return RowIndex(path), rows.astype(np.float32) / norms[:, None]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 300), dimension=st.integers(2, 80), k=st.integers(1, 320), seed=st.integers(0, 9999))
def test_exact_search_equals_numpy(tmp_path: Path, count: int, dimension: int, k: int, seed: int):
    index, rows = make_index(tmp_path / "index.faiss", count, dimension, seed)
    query = np.random.default_rng(seed + 1).normal(size=dimension).astype(np.float32)
    query /= np.linalg.norm(query)
    expected = rows @ query
    found = index.search(query, k)
    assert len(set(found)) == len(found) == min(k, count)
    np.testing.assert_allclose(expected[found], np.sort(expected)[::-1][:k], atol=1e-6)


def test_more_neighbours_than_rows_gives_every_row_once(tmp_path: Path):
    index, rows = make_index(tmp_path / "index.faiss", 7, 5, seed=3)
    assert sorted(index.search(rows[0], 100)) == list(range(7))
    assert index.shape == (7, 5)


def test_chunks_make_the_same_index_as_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, rows = make_index(tmp_path / "whole.faiss", 50, 8, seed=4)
    monkeypatch.setattr("indexer.index.CHUNK_BYTES", 8 * 4 * 7)
    pieces, _ = make_index(tmp_path / "pieces.faiss", 50, 8, seed=4)
    assert list(whole.search(rows[3], 50)) == list(pieces.search(rows[3], 50))


def test_an_empty_index_answers_with_nothing(tmp_path: Path):
    build_index(np.empty((0, 8), dtype=np.float16), np.empty(0, dtype=np.float32), tmp_path / "empty.faiss")
    assert len(RowIndex(tmp_path / "empty.faiss").search(np.ones(8, dtype=np.float32), 5)) == 0
