"""The benchmarks of search: rows that are made are like the real ones, and all who take part answer the same question.

No speed is asserted, and no library is needed that the product does not need.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import search, search_growth, search_opening, search_parts, search_peers, search_race, search_rows
from benchmarks.search_aside import AsideFailed, Outcome, read_mapped, run_aside
from benchmarks.search_peers import FLAT_16, FLAT_32, Absent, choose_as_autofaiss
from benchmarks.search_rows import Stretch, Wanted, find_spectrum, find_store, measure_spread, study
from benchmarks.search_stage import FOLDERS, Stage, stage_real, stage_stretched
from benchmarks.search_ways import (
    OURS,
    OURS_EXACT,
    Ours,
    Point,
    Way,
    ask_in_turn,
    find_fastest,
    find_nearest_in_recall,
    list_unbeaten,
    measure_recall,
)
from indexer import parts
from indexer.collection import Collection, Filter
from indexer.fitting import Demands
from indexer.generations import open_generation
from indexer.recall import NO_OWN, answer_exactly
from indexer.vectors import Store
from tests.indexer.making_rows import keep_rows

SETTING = search_race.Setting(recall=0.9, memory_bytes=10**9, queries=40, rounds=1, seconds=60)
MADE = Wanted(rows=2000, dimension=64)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 rows of 48 numbers in families, most of what they are in few directions."""
    random, scale = np.random.default_rng(0), np.arange(1, 49) ** -0.3
    rows = np.repeat(random.normal(size=(60, 48)), 15, axis=0) * 0.8 + random.normal(size=(900, 48))
    rows *= scale
    return keep_rows(tmp_path_factory.mktemp("real") / "c", rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def stage(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """2,000 rows made of them, with an approximate index."""
    stage = stage_stretched(collection, tmp_path_factory.mktemp("stage"), MADE)
    search_race.publish_index(stage.folder, Demands(recall=0.9))
    return stage


# --- rows --------------------------------------------------------------------------------------------------------


def test_made_rows_have_the_stated_spectrum_up_to_the_last_direction(collection: Path):
    store = Store(*find_store(collection))
    stretch = Stretch(Wanted(rows=36_000, dimension=64), study(store, 900, 0))
    (real, _), (spectrum, _) = find_spectrum(store.rows), find_spectrum(stretch.make_piece(0, 8000))
    law = np.arange(1, 65.0) ** -stretch.alpha
    assert 0.1 < stretch.alpha < 1
    # Beyond the 48 numbers of the real rows as well.
    for part in (slice(0, 16), slice(16, 48), slice(48, 64)):
        assert spectrum[part].sum() / spectrum.sum() == pytest.approx(law[part].sum() / law.sum(), rel=0.1)
    assert measure_spread(spectrum) == pytest.approx(measure_spread(real), rel=0.15)


def test_neighbours_of_made_rows_are_as_similar_as_those_of_real_ones(collection: Path, stage: Stage):
    found = search_rows.quote_similarities(stage.answer_exactly().similarities)
    store = Store(*find_store(collection))
    own = np.arange(900)
    real = answer_exactly(store.rows.astype(np.float32) / store.norms[:, None], own, store.rows, store.norms)
    expected = search_rows.quote_similarities(real.similarities)
    assert found["tenth"] == pytest.approx(expected["tenth"], abs=0.03)
    assert found["first"] == pytest.approx(expected["first"], abs=0.08)
    strangers = stage.read_queries() @ np.roll(stage.read_queries(), 1, axis=0).T
    assert found["tenth"] > np.median(strangers) + 0.3


def test_what_is_made_follows_from_the_seed(collection: Path, stage: Stage):
    real = study(Store(*find_store(collection)), MADE.sources, MADE.seed)
    again, other = Stretch(MADE, real), Stretch(replace(MADE, seed=1), real)
    piece = again.make_piece(0, MADE.rows)
    assert np.array_equal(piece.astype("<f2"), stage.open_store().rows)
    assert abs(other.make_piece(0, MADE.rows) - piece).mean() > 0.01
    assert np.allclose(np.linalg.norm(piece, axis=1), 1, atol=1e-5)
    assert (stage.read_queries() @ piece.T).max() < 0.99, "a query is none of the rows"


def test_rows_can_be_made_closer(collection: Path):
    real = study(Store(*find_store(collection)), MADE.sources, MADE.seed)
    tenth = [np.median(Stretch(replace(MADE, closer=closer), real).kept ** 2) for closer in (0.0, 0.2)]
    assert tenth[1] - tenth[0] == pytest.approx(0.2, abs=0.05)


def test_a_folder_that_has_the_rows_is_used_as_it_is(collection: Path, stage: Stage):
    stamp = (stage.place / "rows.f16").stat().st_mtime_ns
    assert stage_stretched(collection, stage.folder, MADE).described == stage.described
    assert (stage.place / "rows.f16").stat().st_mtime_ns == stamp


def test_queries_of_real_rows_are_kept_out_of_them(collection: Path, tmp_path: Path):
    stage = stage_real(collection, tmp_path)
    rows = stage.open_store()
    assert (len(rows.rows), len(stage.read_queries())) == (810, 90)
    assert not rows.list_damaged(np.arange(810))
    assert stage.answer_exactly().similarities.max() < 0.999


def test_filters_by_folder_let_the_stated_shares_through(stage: Stage):
    with Collection(stage.folder) as opened:
        assert opened.count_images() == MADE.rows
        for share, folder in FOLDERS.items():
            expected = share * MADE.rows
            assert abs(opened.count_images(Filter(under=[Path(folder)])) - expected) <= 3 * expected**0.5


# --- who takes part ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "dimension", "gigabytes", "expected"),
    [
        (999, 512, 16, "Flat"),
        (9_999, 512, 16, "HNSW15"),
        (64_000, 1024, 6, "HNSW32"),
        (100_000, 3712, 1.5, "HNSW19"),
        (500_000, 96, 0.2, "IVF2048,Flat"),
        (100_000, 3712, 1.49, "OPQ256_1792,IVF1024_HNSW32,PQ256x8"),
        (1_000_000, 3712, 6, "OPQ256_1792,IVF16384_HNSW32,PQ256x8"),
        (1_000_000, 512, 0.1, "OPQ64_448,IVF16384_HNSW32,PQ64x8"),
        (10_000_000, 100, 1.2, "OPQ64_128,IVF65536_HNSW32,PQ64x8"),
    ],
)
def test_autofaiss_chooses_by_rows_and_memory(rows: int, dimension: int, gigabytes: float, expected: str):
    assert choose_as_autofaiss(rows, dimension, int(gigabytes * 1e9)) == expected


def test_autofaiss_has_nothing_for_too_little_memory():
    with pytest.raises(Absent, match="within 100,000 bytes"):
        choose_as_autofaiss(1_000_000, 512, 100_000)


def test_an_index_of_product_codes_is_searched_as_wide_as_it_is_told(stage: Stage, monkeypatch):
    monkeypatch.setattr(search_peers, "choose_as_autofaiss", lambda *_: "OPQ8_16,IVF16_HNSW32,PQ8x4")
    truth, store = stage.answer_exactly(), stage.open_store()
    search_race.build_peer(stage.folder, search_peers.AUTOFAISS, 10**9)
    ways = search_race.open_ways(stage, search_peers.AUTOFAISS)
    heard = ask_in_turn([ways[0], ways[4]], truth.queries[:40], 1, 60, lambda text: None)
    one_list, all_lists = (measure_recall(store, truth, found.answers) for found in heard)
    assert 0 < one_list < all_lists < 1


@pytest.mark.parametrize("name", [FLAT_32, FLAT_16])
def test_who_compares_every_row_finds_the_true_ten(stage: Stage, name: str):
    search_race.build_peer(stage.folder, name, 10**9)
    (way,) = search_race.open_ways(stage, name)
    truth = stage.answer_exactly()
    (heard,) = ask_in_turn([way], truth.queries, 1, 60, lambda text: None)
    # fp16 rounds what stands next to each other into another order.
    assert measure_recall(stage.open_store(), truth, heard.answers) >= (1 if name == FLAT_32 else 0.995)


def test_ours_is_what_was_published_and_wider_searches_of_it(stage: Stage):
    ours, truth, store = Ours(stage), stage.answer_exactly(), stage.open_store()
    ways = list(ours.list_ways())
    heard = ask_in_turn(ways, truth.queries, 1, 60, lambda text: None)
    recalls = [measure_recall(store, truth, found.answers) for found in heard]
    ours.close()
    assert ways[0].width.startswith("as published") and ways[-1].name == OURS_EXACT and len(ways) > 2
    assert recalls[0] > 0.85 and recalls[-1] == 1
    assert max(recalls[1:-1]) > recalls[0]


# --- what is concluded -------------------------------------------------------------------------------------------


def test_rows_as_similar_as_the_tenth_are_found_whatever_their_number(tmp_path: Path):
    rows = np.eye(12, 16)
    rows[9] = rows[10] = rows[11]  # Three equals at the edge, of which the true ten have some.
    query = (rows * np.arange(24, 0, -2)[:, None]).sum(axis=0)
    query[11] = 0.5
    store = Store(*find_store(keep_rows(tmp_path / "c", rows)))
    query = (query / np.linalg.norm(query)).astype(np.float32)
    truth = answer_exactly(query[None], np.array([NO_OWN]), store.rows, store.norms)
    for last, expected in ((9, 1.0), (10, 1.0), (11, 1.0), (0, 0.9), (-1, 0.9)):
        assert measure_recall(store, truth, [np.array([*range(9), last])]) == pytest.approx(expected)


def make(name: str, recall: float, rate: float, size: int) -> Point:
    return Point(
        name=name, width="", recall=recall, median_ms=1000 / rate, p99_ms=1, queries_per_second=rate, bytes=size
    )


def test_who_is_better_in_all_three_beats_and_who_is_as_good_in_one_does_not():
    ours, better, as_large = make(OURS, 0.9, 100, 10), make("b", 0.91, 101, 9), make("c", 0.99, 500, 10)
    assert better.beats(ours) and not as_large.beats(ours) and not ours.beats(ours)
    assert list_unbeaten([ours, better, as_large]) == [better, as_large]
    assert search.compare([ours, as_large])["beaten_by"] == []
    assert search.compare([ours, better])["beaten_by"] == [{"ours": "", "by": "b", "width": ""}]
    assert search.compare([ours, better])["nearest"]["b"]["is_better_in_all"]


def test_points_are_compared_at_the_nearest_recall_and_goals_at_the_fastest_that_reaches_it():
    points = [make("a", recall, rate, 1) for recall, rate in ((0.8, 900), (0.95, 500), (0.96, 600), (0.99, 100))]
    assert find_nearest_in_recall(points, 0.951).queries_per_second == 500
    assert find_fastest(points, 0.95).queries_per_second == 600
    assert find_fastest(points, 0.995) is None


def test_all_are_asked_in_turn_and_back_and_a_slow_one_is_asked_less(monkeypatch):
    order: list[str] = []
    clock = iter(np.arange(0, 1e6, 0.25))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    ways = [
        Way(name=name, width="", answer=lambda query: np.arange(10), begin=lambda name=name: order.append(name))
        for name in "ab"
    ]
    heard = ask_in_turn(ways, np.zeros((30, 4), np.float32), 2, 1.0, lambda text: None)
    assert order == ["a", "b", "b", "a"]
    assert [[len(took) for took in one.rounds] for one in heard] == [[20, 20], [20, 20]]
    assert heard[0].rounds[0][0] == 250 and len(heard[0].answers) == 20


def test_a_power_is_found_again():
    assert search_growth.fit_exponent((10, 100, 1000), (3e1, 3e2, 3e3)) == pytest.approx(1)
    assert search_growth.fit_exponent((10, 1000), (7, 70)) == pytest.approx(0.5)
    assert search_growth.fit_exponent((10, 1000), (0, 5)) is None


# --- processes of their own --------------------------------------------------------------------------------------


def test_a_function_aside_is_told_with_the_memory_of_its_process(tmp_path: Path):
    # Neither of them makes the process import this module.
    found = run_aside(os.urandom, 96 << 20)
    assert len(found.result) == 96 << 20 < found.own_bytes < 500 << 20
    with pytest.raises(AsideFailed, match="find_store: Nothing can be searched"):
        run_aside(find_store, tmp_path)


def test_mapped_pages_count_once_they_are_touched(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("in/a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    inner, outer = (np.memmap(tmp_path / name, mode="r") for name in ("in/a", "b"))
    assert read_mapped(tmp_path / "in") == 0
    assert inner.sum() + outer.sum() == 0
    assert read_mapped(tmp_path / "in") == 1 << 20


# --- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run in a process of its own is run here: each of these takes seconds to start."""

    def run_here(function: Callable, *given: object) -> Outcome:
        return Outcome(result=function(*given), seconds=1.0, own_bytes=1 << 20, mapped_bytes=0)

    for module in (search, search_race, search_growth, search_opening, search_parts):
        if hasattr(module, "run_aside"):
            monkeypatch.setattr(module, "run_aside", run_here)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not these libraries are here, they are not found."""

    def refuse_import(name: str) -> None:
        raise Absent(f"it cannot be imported (No module named {name!r})")

    monkeypatch.setattr(search_peers, "_import", refuse_import)


def test_the_command_prints_all_its_figures(collection: Path, stage: Stage, in_process: None, alone: None):
    given = ["--collection", collection, "--rows", MADE.rows, "--dimension", MADE.dimension, "--folder", stage.folder]
    given += ["--recall", 0.9, "--queries", 30, "--rounds", 1, "--json"]
    done = CliRunner().invoke(search.main, list(map(str, given)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["absent"]) == {"hnswlib", "usearch"}
    names = {OURS, OURS_EXACT, FLAT_32, FLAT_16, "FAISS HNSW32", "autofaiss"}
    assert {one["name"] for one in report["points"]} == names == set(report["builds"]) | {OURS_EXACT}
    assert all(len(took) == 30 for rounds in report["rounds"] for took in rounds)
    by_name = {one["name"]: one for one in report["points"]}
    assert by_name[FLAT_32]["recall"] == 1 and by_name["FAISS HNSW32"]["recall"] > 0.99, "the widest is the last"
    assert [one["share"] for one in report["filters"]] == list(FOLDERS)
    assert all(one["recall"] == 1 and one["is_exact"] for one in report["filters"])
    assert set(report["beside_peers"]["nearest"]) == names - {OURS, OURS_EXACT}
    assert len(report["goals"]) == 4 and report["goals"][0]["found"] > 0.9
    text = search.show_report(report)
    assert "hnswlib" in text and "Goal: median of FAISS flat, fp16" in text and "Spectrum i^-" in text
    assert not list(stage.folder.glob("*.peer")), "what peers wrote is gone"


def test_rows_without_their_numbers_are_refused(collection: Path):
    done = CliRunner().invoke(search.main, ["--collection", str(collection), "--rows", "2000"])
    assert done.exit_code == 1 and "belong together" in done.stderr


def test_a_process_opens_a_collection_and_answers(stage: Stage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", str(stage.folder), "7"])
    exec(search_opening.SCRIPT, {})
    told = json.loads(capsys.readouterr().out)
    assert told["is_first"] and told["answers"] == [10, 10] and len(told["seconds"]) == len(search_opening.STEPS)


def test_an_index_that_grew_has_the_new_rows(stage: Stage, tmp_path: Path):
    grown = stage_stretched(stage.folder, tmp_path, Wanted(rows=1515, dimension=64))
    search_race.publish_index(grown.folder, Demands(recall=0.9), 1500)
    search_growth.grow_index(grown.folder, Demands(recall=0.9))
    manifest = open_generation(grown.folder).manifest
    assert (manifest["rows"], manifest["search"]["trained_among"]) == (1515, 1500)
    assert search_growth.find_recall(grown, 1515) > 0.85


@pytest.mark.long
def test_indexes_in_parts_are_measured_beside_one_in_memory(
    collection: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "PART_ROWS", parts.PART_ROWS)  # the command changes it
    given = ["--collection", collection, "--rows", 2000, "--dimension", 64, "--part", 2000, "--part", 600]
    given += ["--recall", 0.9, "--rounds", 1, "--folder", tmp_path, "--json"]
    done = CliRunner().invoke(search_parts.main, list(map(str, given)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    one, many = report["builds"]
    assert not (tmp_path / "generations" / one["name"] / parts.LISTS).exists()
    assert (tmp_path / "generations" / many["name"] / parts.LISTS).exists()
    assert not (tmp_path / "stores" / "000001" / parts.PARTS).exists(), "nothing is left of them"
    assert all(build["answers"]["recall"] > 0.85 for build in report["builds"])
    assert "training alone" in search_parts.show_report(report)


@pytest.mark.long
def test_growth_is_measured_and_drawn(collection: Path, tmp_path: Path, in_process: None):
    given = ["--collection", collection, "--rows", 2000, "--rows", 4000, "--grown", 2000, "--dimension", 64]
    given += ["--recall", 0.9, "--folder", tmp_path / "f", "--plot", tmp_path / "g.png", "--json"]
    done = CliRunner().invoke(search_growth.main, list(map(str, given)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [one["rows"] for one in report["builds"]] == [2000, 4000] and report["growth"]["new_rows"] == 20
    assert report["exponents"]["seconds"] == pytest.approx(0) and len(report["goals"]) == 3
    assert (tmp_path / "g.png").read_bytes()[:4] == b"\x89PNG" and not list((tmp_path / "f").iterdir())
    assert "rows to the power" not in search_growth.show_report(report)


@pytest.mark.long
def test_opening_is_measured_warm_and_cold(collection: Path, stage: Stage, in_process: None):
    given = ["--collection", collection, "--rows", MADE.rows, "--dimension", MADE.dimension, "--folder", stage.folder]
    done = CliRunner().invoke(search_opening.main, [*map(str, given), "--rounds", "1", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    for name in ("warm", "cold"):
        (one,) = report["rounds"][name]
        assert one["is_first"] and not one["has_torch"]
        assert report["opened_and_answered"][name]["median"] == pytest.approx(
            one["seconds"]["opening"] + one["seconds"]["first answer"]
        )
    assert "from Collection(folder) to its answer" in search_opening.show_report(report)
