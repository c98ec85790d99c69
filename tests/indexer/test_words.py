"""Words for similarities: bounds that copies reach and others do not, measured on copies that chose nothing."""

from pathlib import Path

import numpy as np
import pytest

from indexer.vectors import Store, StoreWriter
from indexer.words import LEAST_COPIES, Words, calibrate


def store_rows(folder: Path, rows: np.ndarray) -> Store:
    writer = StoreWriter(folder, rows.shape[1], 0)
    writer.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    writer.close()
    return Store(folder, rows.shape[1], len(rows))


def draw(count: int, noise: float, seed: int = 0, dimension: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, copies of 100 of them under noise, and which."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, dimension))
    own = random.permutation(count)[:100]
    copies = rows[own] + noise * random.normal(size=(len(own), dimension))
    return rows, (copies / np.linalg.norm(copies, axis=1, keepdims=True)).astype(np.float32), own


def test_copies_get_their_word_and_others_do_not(tmp_path: Path):
    rows, copies, own = draw(1500, 0.3)
    store = store_rows(tmp_path / "store", rows)
    words = calibrate(store, copies, own)
    to_own = (copies * store.read_embeddings(own)).sum(axis=1)
    assert words.is_telling and words.same_picture > words.same_scene > words.same_kind
    assert words.same_picture == pytest.approx(np.quantile(to_own[::2], 0.04), abs=1e-6), "one half chooses"
    assert words.copies_found == (to_own[1::2] >= words.same_picture).mean() >= 0.9, "the other half tells"
    named = [words.name(value) for value in (1.0, words.same_scene, words.same_kind, words.same_kind - 0.01)]
    assert named == ["same picture", "same scene", "same kind", "weak"]


def test_neighbours_choose_the_lower_bounds_by_hand(tmp_path: Path):
    rows, copies, own = draw(200, 0.3)
    store = store_rows(tmp_path / "store", rows)
    words = calibrate(store, copies, own)
    unit = store.rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    nearest = -np.sort(-cosines, axis=1)[:, :10].ravel()
    others = nearest[nearest < words.same_picture]
    assert (words.same_scene, words.same_kind) == pytest.approx(tuple(np.quantile(others, (0.9, 0.5))), abs=1e-5)


def test_a_collection_full_of_copies_learns_its_words_from_the_others(tmp_path: Path):
    rows, _, _ = draw(600, 0.3)
    random = np.random.default_rng(1)
    full = np.repeat(rows, 3, axis=0) + 0.05 * random.normal(size=(1800, 32))
    own = random.permutation(1800)[:100]
    copies = full[own] + 0.3 * random.normal(size=(100, 32))
    copies = (copies / np.linalg.norm(copies, axis=1, keepdims=True)).astype(np.float32)
    words = calibrate(store_rows(tmp_path / "store", full), copies, own)
    assert words.is_telling and words.same_scene < 0.8 < words.same_picture


def test_a_model_that_sees_no_difference_has_no_words(tmp_path: Path):
    rows, _, own = draw(500, 0)
    alike = 1 + 0.02 * rows
    copies = alike[own] + 0.05 * np.random.default_rng(3).normal(size=(100, 32))
    copies = (copies / np.linalg.norm(copies, axis=1, keepdims=True)).astype(np.float32)
    words = calibrate(store_rows(tmp_path / "store", alike), copies, own)
    assert not words.is_telling and words.name(1.0) is None


def test_too_few_say_nothing(tmp_path: Path):
    rows, copies, own = draw(200, 0.3)
    store = store_rows(tmp_path / "store", rows)
    assert calibrate(store, copies[: LEAST_COPIES - 1], own[: LEAST_COPIES - 1]) is None
    few = store_rows(tmp_path / "few", rows[:10])
    assert calibrate(few, copies, np.zeros(100, np.int64)) is None


def test_words_survive_a_manifest(tmp_path: Path):
    rows, copies, own = draw(200, 0.3)
    words = calibrate(store_rows(tmp_path / "store", rows), copies, own)
    assert Words(**words.describe()) == Words(**Words(**words.describe()).describe())
