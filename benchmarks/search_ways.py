"""Ways to answer, asked the same queries in turn in one process; and what their answers, times and memory say.

Each way is a contender at one width of search. Ours is the product's: `Snapshot.rank` of a published generation, with
the candidates gathered from the mapped store, their checksums compared, the cosines computed, and the catalog asked
which images still have a file. It is as wide as the product makes it for one recall or another (`recall.find_width`, on
queries that the generation held out; none of them is asked here).

Rule: a row counts as found if it is as similar as the true tenth, whatever its number: equal rows are equally right.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.search_stage import Stage
from indexer.catalog_reader import CatalogReader
from indexer.fitting import read_held_out
from indexer.generations import open_generation
from indexer.layout import CATALOG
from indexer.recall import NEAREST, HeldOut, find_width
from indexer.recipes import Recipe
from indexer.snapshot import Snapshot
from indexer.vectors import Store, measure_row

OURS, OURS_EXACT = "ours", "ours, exact"
TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
ROUNDING = 2e-6
"""Of two products of the same rows."""
LEAD, LEAST = 5, 20
"""Queries before the clock is read in a round; and that are timed however long they take."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One contender at one width."""

    name: str
    width: str
    """In words; empty if there is none."""
    answer: Callable[[np.ndarray], np.ndarray]
    """(D,) float32 of length 1 -> (10,) rows."""
    begin: Callable[[], None] = lambda: None
    """Called when its turn comes."""


@dataclass(kw_only=True)
class Heard:
    """What one way answered, and how fast."""

    answers: list[np.ndarray] = field(default_factory=list)
    """Of the first queries, in their order."""
    rounds: list[list[float]] = field(default_factory=list)
    """Milliseconds of each query."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A way, measured."""

    name: str
    width: str
    recall: float
    median_ms: float
    p99_ms: float
    queries_per_second: float
    """One after the other."""
    bytes: int
    """Memory: of ours the larger of what was seen and what lies in files, of others the smaller."""

    def describe(self) -> dict:
        """As JSON-able values."""
        return asdict(self)

    def beats(self, other: "Point") -> bool:
        """Whether it is better in all three."""
        return (
            self.recall > other.recall
            and self.queries_per_second > other.queries_per_second
            and self.bytes < other.bytes
        )


def ask_in_turn(
    ways: Sequence[Way], queries: np.ndarray, rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Heard]:
    """Let all answer, one at a time; every second round in reverse order.

    Args:
        queries: (Q, D) float32.
        seconds: after which a way's part of a round ends, with fewer queries.
    """
    heard = [Heard() for _ in ways]
    for number in range(rounds):
        for way, found in list(zip(ways, heard, strict=True))[:: 1 if number % 2 == 0 else -1]:
            way.begin()
            answers, took = _ask(way, queries, seconds)
            found.answers = max(found.answers, answers, key=len)
            found.rounds.append(took)
            told = f"{statistics.median(took):,.2f} ms over {len(took)} queries"
            tell(f"round {number + 1} of {rounds}: {way.name} {way.width} {told}")
    return heard


def _ask(way: Way, queries: np.ndarray, seconds: float) -> tuple[list[np.ndarray], list[float]]:
    for query in queries[-LEAD:]:
        way.answer(query)
    answers: list[np.ndarray] = []
    took: list[float] = []
    for query in queries:
        started = time.perf_counter()
        answers.append(way.answer(query))
        took.append(1000 * (time.perf_counter() - started))
        if len(took) >= LEAST and sum(took) > 1000 * seconds:
            break
    return answers, took


def measure_recall(store: Store, truth: HeldOut, answers: Sequence[np.ndarray]) -> float:
    """The part of the true ten, or of as many as there are, that the answers to the first queries have, in the mean."""
    asked = zip(truth.queries, truth.similarities, answers, strict=False)
    return float(np.mean([_find_true_part(store, *one) for one in asked]))


def _find_true_part(store: Store, query: np.ndarray, similarities: np.ndarray, rows: np.ndarray) -> float:
    there = similarities[np.isfinite(similarities)]
    rows = np.unique(rows[(rows >= 0) & (rows < len(store.rows))])
    return (store.compare(query, rows) >= there[-1] - ROUNDING).sum() / len(there)


def make_point(way: Way, heard: Heard, recall: float, size: int) -> Point:
    """A round's figures are of its queries; a way's are the medians over rounds."""
    medians = [statistics.median(took) for took in heard.rounds]
    last = [float(np.quantile(took, 0.99)) for took in heard.rounds]
    rates = [1000 * len(took) / sum(took) for took in heard.rounds]
    return Point(
        name=way.name,
        width=way.width,
        recall=recall,
        median_ms=statistics.median(medians),
        p99_ms=statistics.median(last),
        queries_per_second=statistics.median(rates),
        bytes=size,
    )


# --- ours --------------------------------------------------------------------------------------------------------


class Ours:
    """A stage's published generation, opened as a reader opens it."""

    def __init__(self, stage: Stage) -> None:
        self.snapshot = Snapshot(stage.folder, open_generation(stage.folder))
        self.catalog = CatalogReader(stage.folder / CATALOG)
        self.published = self.snapshot.search

    def close(self) -> None:
        """Give the catalog back."""
        self.catalog.close()

    def answer(self, query: np.ndarray, **options: object) -> np.ndarray:
        """The nearest ten of a (D,) query; `options` as `Snapshot.rank` has them."""
        rows, _ = self.snapshot.rank(query, None, NEAREST, self.catalog.list_living, **options)
        return rows[:NEAREST]

    def list_ways(self) -> Iterator[Way]:
        """As it was published, at other widths, and exact."""
        if self.published:
            yield self._make_way("as published", self.published)
            for target, search in self._list_searches():
                yield self._make_way(f"for {target:g}", search)
        yield Way(name=OURS_EXACT, width="", answer=lambda query: self.answer(query, is_exact=True))

    def _make_way(self, what: str, search: dict) -> Way:
        def begin() -> None:
            self.snapshot.search = search

        width = f"{what}: {search['probes']} lists, {search['candidates']} candidates"
        return Way(name=OURS, width=width, answer=self.answer, begin=begin)

    def _list_searches(self) -> Iterator[tuple[float, dict]]:
        """The manifest's way to search, as wide as it would be for each recall that this index reaches."""
        choosing, _ = read_held_out(self.snapshot.generation.folder).halve()
        seen = {(self.published["probes"], self.published["candidates"])}
        sizes = Recipe(**self.published["recipe"]).row_bytes, measure_row(self.snapshot.dimension)
        for target in TARGETS:
            width, _ = find_width(self.snapshot.approximate, choosing, target, self.snapshot.rows, *sizes)
            if width and (width.probes, width.candidates) not in seen:
                seen.add((width.probes, width.candidates))
                yield target, {**self.published, "probes": width.probes, "candidates": width.candidates}


# --- what is concluded -------------------------------------------------------------------------------------------


def find_nearest_in_recall(points: Iterable[Point], recall: float) -> Point:
    """The one of a contender's points whose recall is nearest; of equals the fastest."""
    return min(points, key=lambda one: (round(abs(one.recall - recall), 4), one.median_ms))


def list_unbeaten(points: Sequence[Point]) -> list[Point]:
    """Those that no other is better than in recall, queries/s and memory at once."""
    return [one for one in points if not any(other.beats(one) for other in points)]


def find_fastest(points: Iterable[Point], recall: float) -> Point | None:
    """The fastest of those that reach a recall; None if none does."""
    return min((one for one in points if one.recall >= recall), key=lambda one: one.median_ms, default=None)


def measure_files(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
