"""The store: what was appended is read back; what a crash left behind is dropped; a changed byte is never answered."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from indexer import vectors
from indexer.errors import CollectionDamaged
from indexer.vectors import ROWS_AT_ONCE, Store, StoreWriter, copy_rows, count_rows


def make_rows(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(folder: Path, rows: np.ndarray, known: int = 0) -> int:
    writer = StoreWriter(folder, rows.shape[1], known)
    first = writer.append(rows)
    writer.close()
    return first


def test_a_row_is_at_similarity_one_with_itself_and_cosines_are_true(tmp_path: Path):
    rows = make_rows(200, dimension=440)
    assert write(tmp_path, rows) == 0
    store = Store(tmp_path, 440, 200)
    for row in (0, 77, 199):
        similarities = store.compare(store.read_embedding(row), np.arange(200))
        assert similarities[row] == pytest.approx(1, abs=2e-7)
        np.testing.assert_allclose(similarities, rows @ rows[row], atol=2e-4)


@pytest.mark.parametrize("dimension", [7, 440, 3712])
def test_many_rows_are_compared_as_each_alone_to_the_bit_and_alike_from_both_sides(
    dimension: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vectors, "COMPARED_BYTES", 3 * 5 * dimension * 4)
    write(tmp_path, make_rows(40, dimension))
    store, random = Store(tmp_path, dimension, 40), np.random.default_rng(1)
    rows, others = np.arange(1, 21), random.integers(-1, 40, size=(20, 5))
    told = store.compare_many(rows, others)
    assert told.dtype == np.float32 and np.isneginf(told[others < 0]).all() and (others < 0).any()
    for row, one, similarities in zip(rows, others, told, strict=True):
        there = one >= 0
        assert (store.compare(store.read_embedding(row), one[there]) == similarities[there]).all()
        back = store.compare_many(one[there], np.full((there.sum(), 1), row))
        assert (back[:, 0] == similarities[there]).all()


def test_many_rows_are_checked_before_they_are_compared(tmp_path: Path):
    write(tmp_path, make_rows(6))
    with (tmp_path / "rows.f16").open("rb+") as file:
        file.seek(4 * 32)
        file.write(b"\x01")
    store = Store(tmp_path, 16, 6)
    store.compare_many(np.array([0, 1]), np.array([[2, 3], [5, -1]]))
    with pytest.raises(CollectionDamaged, match="Row 4 of"):
        store.compare_many(np.array([0, 1]), np.array([[2, 4], [5, 3]]))


def test_rows_behind_those_that_the_catalog_knows_are_dropped(tmp_path: Path):
    write(tmp_path, make_rows(5))
    with (tmp_path / "rows.f16").open("ab") as file:
        file.write(b"half a r")
    assert write(tmp_path, make_rows(2, seed=1), known=3) == 3
    store = Store(tmp_path, 16, 5)
    assert np.allclose(store.rows[3:], make_rows(2, seed=1), atol=1e-3)
    assert (tmp_path / "rows.f16").stat().st_size == 5 * 16 * 2


def test_a_store_that_is_shorter_than_the_catalog_says_tells_how_many_rows_it_has(tmp_path: Path):
    write(tmp_path, make_rows(5))
    with (tmp_path / "norms.f32").open("rb+") as file:
        file.truncate(3 * 4 + 1)
    assert count_rows(tmp_path, 16) == 3
    with pytest.raises(CollectionDamaged, match="seer build"):
        Store(tmp_path, 16, 5)


def test_a_store_begins_with_the_first_rows_of_another(tmp_path: Path):
    write(tmp_path / "old", make_rows(5))
    copy_rows(tmp_path / "old", tmp_path / "new", 16, 3)
    assert count_rows(tmp_path / "new", 16) == 3
    assert np.array_equal(Store(tmp_path / "new", 16, 3).rows, Store(tmp_path / "old", 16, 5).rows[:3])
    copy_rows(tmp_path / "gone", tmp_path / "empty", 16, 0)
    assert count_rows(tmp_path / "empty", 16) == count_rows(tmp_path / "gone", 16) == 0


def test_a_changed_norm_is_refused_too(tmp_path: Path):
    write(tmp_path, make_rows(5))
    with (tmp_path / "norms.f32").open("rb+") as file:
        file.seek(2 * 4)
        file.write(np.float32(0.5).tobytes())
    with pytest.raises(CollectionDamaged, match="Row 2"):
        Store(tmp_path, 16, 5).compare(make_rows(1)[0], np.array([2]))


def test_equal_rows_are_equally_similar_in_any_company(tmp_path: Path):
    rows = make_rows(64, dimension=440)
    rows[40] = rows[3]
    write(tmp_path, rows)
    store = Store(tmp_path, 440, 64)
    query = make_rows(1, dimension=440, seed=9)[0]
    seen = {float(store.compare(query, np.array(chosen))[-1]) for chosen in ([3], [1, 40], [*range(20), 3], [7, 8, 40])}
    assert len(seen) == 1


def test_a_changed_byte_is_refused_when_its_row_is_compared_and_only_then(tmp_path: Path):
    write(tmp_path, make_rows(5))
    with (tmp_path / "rows.f16").open("rb+") as file:
        file.seek(2 * 32 + 7)
        file.write(b"\x55")
    store = Store(tmp_path, 16, 5)
    store.compare(make_rows(1)[0], np.array([0, 1, 3, 4]))
    with pytest.raises(CollectionDamaged, match="Row 2"):
        store.compare(make_rows(1)[0], np.array([1, 2]))


def test_all_rows_are_checked_without_being_copied_at_once(tmp_path: Path):
    rows = make_rows(ROWS_AT_ONCE * 4, dimension=64)
    write(tmp_path, rows)
    store = Store(tmp_path, 64, len(rows))
    tracemalloc.start()
    try:
        store.check(np.arange(len(rows)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < store.rows.nbytes


def test_an_empty_store_opens(tmp_path: Path):
    StoreWriter(tmp_path, 16, 0).close()
    assert Store(tmp_path, 16, 0).rows.shape == (0, 16)
