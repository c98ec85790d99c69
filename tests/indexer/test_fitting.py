"""The index that fits a store: exact, trained, grown or trained anew, and never claimed to be better than it is."""

from pathlib import Path

import numpy as np
import pytest

from indexer import fitting, index_maker, recall
from indexer.fitting import NEW_QUERIES, Before, Demands, Fitted, fit_index, read_edited, read_held_out
from indexer.index import open_approximate
from indexer.recipes import choose_lists, list_recipes
from indexer.vectors import Store
from tests.indexer.making_rows import store_rows

ROWS, DIMENSION = 1600, 48


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows of length 1 about 80 places."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(80, DIMENSION)).repeat(20, axis=0) + 0.5 * random.normal(size=(ROWS, DIMENSION))
    rows = random.permutation(rows).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def store(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of them, stored."""
    return store_rows(tmp_path_factory.mktemp("store"), rows)


FORCED = Demands(exact_ms=0, recall=0.95)


def write(fitted: Fitted, folder: Path, rows: int) -> Before:
    folder.mkdir()
    fitted.write(folder)
    return Before(folder=folder, search=fitted.described["search"], rows=rows)


@pytest.fixture(scope="module")
def first(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Before:
    """The index of the first 1,200 rows."""
    folder = tmp_path_factory.mktemp("first")
    fitted = fit_index(store_rows(folder / "store", rows[:1200]), FORCED, embed_edited=lambda: rows[:30])
    return write(fitted, folder / "index", 1200)


def test_few_rows_are_answered_exactly(store: Store, tmp_path: Path):
    fitted = fit_index(store, Demands())
    assert (fitted.described["index"], fitted.described["recall"]) == ("exact", 1.0)
    fitted.write(tmp_path)
    assert not list(tmp_path.iterdir()), "no copy of the rows"


def test_a_fast_exact_answer_is_kept_and_a_slow_one_is_not(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "INSTANT_BYTES", 0)
    monkeypatch.setattr(fitting, "time_exact", lambda *_: 12.34)
    fitted = fit_index(store, Demands(exact_ms=15))
    assert fitted.described["chosen"] == "exact: an answer takes 12.3 ms"
    slow = fit_index(store, Demands(exact_ms=5, recall=0.95))
    assert slow.described["index"].startswith("PCA48,IVF32,PQ24x4fs") and "12 ms" in slow.described["chosen"]


def test_what_is_claimed_is_what_a_reader_measures(store: Store, rows: np.ndarray, tmp_path: Path):
    fitted = fit_index(store, FORCED)
    before = write(fitted, tmp_path / "index", ROWS)
    index, search = open_approximate(before.folder / "index.faiss"), before.search
    held = read_held_out(before.folder).halve()[1]
    places = [
        len(set(nearest) & set(proposed[: search["candidates"]])) / 10
        for nearest, proposed in zip(
            held.nearest, index.search(held.queries, search["candidates"], search["probes"]), strict=True
        )
    ]
    assert np.mean(places) == pytest.approx(fitted.described["recall"], abs=1e-3) and np.mean(places) >= 0.945
    assert search["queries"] == len(held.own) == 160
    assert [one["share"] for one in search["filtered"]] == [0.1, 0.01, 0.001]


def test_held_out_rows_have_no_part_in_the_training(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    trained, train = [], index_maker.train
    monkeypatch.setattr(
        index_maker, "train", lambda recipe, rows, sample: (trained.append(sample), train(recipe, rows, sample))[1]
    )
    before = write(fit_index(store, FORCED), tmp_path / "index", ROWS)
    held = read_held_out(before.folder)
    assert len(held.own) == 320 and not set(held.own) & set(trained[0])
    assert len(trained[0]) == ROWS - 320


def test_edited_copies_are_held_out_and_told_apart(store: Store, rows: np.ndarray, first: Before):
    assert first.search["recall_of_edits"] is not None
    np.testing.assert_allclose(np.sort(read_edited(first.folder), axis=0), np.sort(rows[:30], axis=0), atol=1e-3)


def test_an_index_grows_without_being_trained_anew(store: Store, first: Before, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(index_maker, "train", lambda *_: pytest.fail("it was trained again"))
    notes: list[str] = []
    grown = fit_index(store, FORCED, before=first, on_note=notes.append)
    after = write(grown, tmp_path / "grown", ROWS)
    assert notes == ["adding 400 rows to PCA48,IVF16,PQ24x4fs"] and after.search["trained_among"] == 1200
    assert open_approximate(after.folder / "index.faiss").shape == (ROWS, DIMENSION)
    held = read_held_out(after.folder)
    assert len(held.own) == len(read_held_out(first.folder).own) + NEW_QUERIES
    assert (held.own >= 1200).sum() == NEW_QUERIES
    exact = recall.answer_exactly(held.queries, held.own, store.rows, store.norms)
    assert (held.nearest == exact.nearest).mean() > 0.999


def test_a_width_that_is_wide_enough_stays(store: Store, first: Before, monkeypatch: pytest.MonkeyPatch):
    wide = Before(folder=first.folder, search={**first.search, "probes": 16, "candidates": 512}, rows=1200)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "find_width", lambda *_: pytest.fail("it was looked for again"))
        grown = fit_index(store, FORCED, before=wide).described["search"]
    assert (grown["probes"], grown["candidates"]) == (16, 512)
    assert [one["probes"] for one in grown["filtered"]] == [16, 16, 16]
    narrow = Before(folder=first.folder, search={**first.search, "probes": 1, "candidates": 10}, rows=1200)
    widened = fit_index(store, FORCED, before=narrow).described["search"]
    assert (widened["probes"], widened["candidates"]) > (1, 10)


def test_an_index_that_new_rows_do_not_fit_is_trained_anew(rows: np.ndarray, first: Before, tmp_path: Path):
    """New rows that the code book knows nothing of: of a few numbers that the old ones do not use."""
    random = np.random.default_rng(5)
    strange = np.zeros((400, DIMENSION), np.float32)
    strange[:, :3] = random.normal(size=(400, 3)) * 0.05 + 5
    strange[:, 3:] = 0.02 * random.normal(size=(400, DIMENSION - 3))
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    store, notes = store_rows(tmp_path / "store", np.concatenate([rows[:1200], strange])), []
    narrow = Before(folder=first.folder, search=first.search, rows=1200)
    fitted = fit_index(store, Demands(exact_ms=0, recall=0.999), before=narrow, on_note=notes.append)
    assert "trained anew" in notes[1] and fitted.described.get("search", {}).get("trained_among") in (None, 1600)


def test_one_new_row_says_nothing_of_an_index(rows: np.ndarray, first: Before, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(index_maker, "train", lambda *_: pytest.fail("it was trained again"))
    far = -rows[:1200].mean(axis=0, keepdims=True)
    store = store_rows(tmp_path / "store", np.concatenate([rows[:1200], far / np.linalg.norm(far)]))
    assert fit_index(store, FORCED, before=first).described["search"]["trained_among"] == 1200


def test_the_clock_does_not_train_an_index_every_other_time(store: Store, first: Before, monkeypatch):
    monkeypatch.setattr(fitting, "INSTANT_BYTES", 0)
    monkeypatch.setattr(fitting, "time_exact", lambda *_: 18.0)
    demands = Demands(exact_ms=20, recall=0.95)
    assert fit_index(store, demands).described["index"] == "exact"
    assert fit_index(store, demands, before=first).described["index"] != "exact"
    monkeypatch.setattr(fitting, "time_exact", lambda *_: 9.0)
    assert fit_index(store, demands, before=first).described["index"] == "exact"


def test_held_out_queries_do_not_grow_without_end(store: Store, first: Before, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_HELD", 280)
    after = write(fit_index(store, FORCED, before=first), tmp_path / "grown", ROWS)
    held = read_held_out(after.folder)
    assert len(held.own) == 280 and (held.own >= 1200).any() and (held.own == recall.NO_OWN).any()


def test_an_index_with_twice_the_rows_is_trained_anew(store: Store, first: Before):
    notes: list[str] = []
    old = Before(folder=first.folder, search={**first.search, "trained_among": 799}, rows=1200)
    fitted = fit_index(store, FORCED, before=old, on_note=notes.append)
    assert notes[0].startswith("training") and fitted.described["search"]["trained_among"] == ROWS


def test_an_index_that_cannot_reach_the_recall_is_not_published(store: Store, monkeypatch: pytest.MonkeyPatch):
    notes: list[str] = []
    monkeypatch.setattr(recall, "CANDIDATES", (10,))
    fitted = fit_index(store, Demands(exact_ms=0, recall=1.0), on_note=notes.append)
    assert fitted.described["index"] == "exact" and "no better recall than" in fitted.described["chosen"]
    assert "1 is asked for" in notes[-1]


def test_what_was_in_vain_is_not_tried_at_every_build(store: Store, monkeypatch: pytest.MonkeyPatch):
    demands = Demands(exact_ms=0, recall=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(recall, "CANDIDATES", (10,))
        first = fit_index(store, demands).described
    monkeypatch.setattr(index_maker, "train", lambda *_: pytest.fail("it was tried again"))
    again = fit_index(store, demands, last=first).described
    assert (again["index"], again["chosen"]) == ("exact", first["chosen"]) and again["tried"]["rows"] == ROWS
    for last, asked in ((first, FORCED), ({**first, "tried": {**first["tried"], "rows": ROWS // 2}}, demands)):
        with pytest.raises(pytest.fail.Exception, match="tried again"):
            fit_index(store, asked, last=last)


def test_edited_copies_stay_held_out_however_many_rows_come(store: Store, first: Before, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_HELD", 60)
    after = write(fit_index(store, FORCED, before=first), tmp_path / "grown", ROWS)
    assert len(read_held_out(after.folder).own) == 60 and len(read_edited(after.folder)) == 30


def test_what_chose_a_width_never_tells_of_it(store: Store, first: Before, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_HELD", 100)
    chose, told = (set(half.own) - {recall.NO_OWN} for half in read_held_out(first.folder).halve())
    after = write(fit_index(store, FORCED, before=first), tmp_path / "grown", ROWS)
    choosing, telling = (set(half.own) - {recall.NO_OWN} for half in read_held_out(after.folder).halve())
    assert choosing & chose and telling & told and not choosing & told and not telling & chose


def test_an_exact_answer_is_timed_no_longer_than_it_takes_to_know(store: Store, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Timed:
        def __init__(self, rows: np.ndarray) -> None:
            pass

        def search(self, query: np.ndarray, count: int) -> None:
            asked.append(count)

    clock = iter(range(100))
    monkeypatch.setattr("indexer.index.ExactIndex", Timed)
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: next(clock))
    for limit, scans in ((2000.0, 1), (900.0, 6), (100.0, 2)):
        asked.clear()
        assert fitting.time_exact(store, limit) == 1000 and len(asked) == scans


def test_a_budget_that_nothing_fits_in_is_said(store: Store):
    fitted = fit_index(store, Demands(exact_ms=0, memory_bytes=1000))
    assert fitted.described["index"] == "exact"
    assert fitted.described["chosen"].endswith("but no index fits in 1,000 bytes (--memory)")


def test_recipes_follow_from_the_numbers():
    assert [one.title for one in list_recipes(64_000, 1024, 4 << 30)] == [
        "PCA256,IVF256,PQ128x4fs", "PCA512,IVF256,PQ256x4fs", "PCA768,IVF256,PQ384x4fs", "PCA1024,IVF256,PQ512x4fs",
    ]  # fmt: skip
    assert [one.reduced for one in list_recipes(64_000, 3712, 4 << 30)] == [256, 512, 768, 1024]
    (small,) = list_recipes(1_000_000, 3712, 50 << 20)
    assert small.title == "PCA128,IVF2048,PQ64x4fs" and small.measure(1_000_000, 3712) < 50 << 20
    assert not list_recipes(1_000_000, 3712, 1 << 20)
    counts = 30, 1000, 64_000, 10**6, 10**7, 10**9
    assert list(map(choose_lists, counts)) == [1, 16, 256, 2048, 4096, 16_384]
