"""The index that fits a store: exact while that is fast enough; else grown from the one before, or trained; measured.

    exact answer timed on this machine -> fast enough: no index at all
    the generation before on the same store -> new rows added, recall measured on them too -> kept while it holds
    recipes in turn -> trained, filled, searched with held-out queries -> the first that reaches the recall asked for

An approximate index that cannot reach it is not published: the answer stays exact, however long that takes.

Rule: nothing is claimed of an index that was not measured on queries it has not seen.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.parts import LISTS, FillParts, PartedIndex, is_large, keep_trained, train_once
from indexer.recall import (
    NO_OWN,
    HeldOut,
    Width,
    answer_exactly,
    find_width,
    list_probes,
    measure,
)
from indexer.recipes import Recipe, list_recipes
from indexer.vectors import Store, measure_row

if TYPE_CHECKING:
    from indexer.index import ApproximateIndex
    from indexer.index_maker import IndexMaker

EXACT = "exact"
INDEX, HELD_OUT = "index.faiss", "held_out.npz"
LEAST_ROWS, INSTANT_BYTES = 1_000, 8 << 20
"""Fewer rows, or rows of fewer bytes, are not worth a measurement."""
QUERIES, NEW_QUERIES, FILTERED_QUERIES = 400, 32, 128
"""Rows held out of a training; those that came since and are asked about before an index is kept; with filters."""
MOST_HELD = 1000
"""Queries that are kept, however often an index grows."""
LEAST_NEW, NEW_APART = 16, 0.03
"""Of new rows fewer say nothing by themselves; and by how much the recall of so few may fall short by chance."""
FAR = 3
"""How many times the limit an exact answer takes that need not be timed again."""
LEAST_SHARE = 5
"""No more than one row in so many is held out."""
SHARES = (0.1, 0.01, 0.001)
"""Of the rows, that filters let through when recall is measured with them."""
MOST_GROWTH = 2
"""An index is trained anew when there are more rows than so many times those that it was trained among."""
TRIED_AGAIN = 1.5
"""With so many times the rows, what was in vain is tried again."""
MEMORY_SHARE = 4
"""Without a limit, an index in memory may take this part of the machine's."""


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What is asked of an index."""

    recall: float = 0.98
    memory_bytes: int | None = None
    exact_ms: float = 20.0
    """An exact answer that takes no longer is kept."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """The index of the generation before, on the same store."""

    folder: Path
    search: dict
    rows: int


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An index, ready to be written."""

    described: dict
    """For the manifest: `index`, `recall`, `chosen` (why, in a line) and, unless it is exact, `search`."""
    write: Callable[[Path], None] = field(default=lambda folder: None)
    """Writes its files into a folder."""


def fit_index(
    store: Store,
    demands: Demands,
    *,
    before: Before | None = None,
    last: dict | None = None,
    embed_edited: Callable[[], np.ndarray | None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
    fill: FillParts | None = None,
) -> Fitted:
    """Find the index for a store.

    Args:
        before: where there is one, it is gone on with if it holds.
        last: what a generation of the same model says of its index (`Fitted.described`): what was tried in vain among
            nearly as many rows is not tried again.
        embed_edited: gives embeddings of edited copies of stored images, (E, D) float32, to be held out as well.
        on_note: is told what is tried, line by line.
        fill: makes parts of a large index elsewhere.
    """
    if len(store.rows) < LEAST_ROWS or (store.rows.nbytes < INSTANT_BYTES and demands.exact_ms):
        return _stay_exact("exact: there are few rows")
    # Who has an approximate index keeps it near the limit: the clock must not train one every other time.
    limit = demands.exact_ms / (2 if before else 1)
    milliseconds = time_exact(store, limit)
    if milliseconds <= limit:
        return _stay_exact(f"exact: an answer takes {milliseconds:.1f} ms")
    if tried := _find_tried(last, demands, len(store.rows)):
        return _stay_exact(last["chosen"], tried)
    return _Fitting(store, demands, before, embed_edited, on_note, fill).run(milliseconds)


def _find_tried(last: dict | None, demands: Demands, rows: int) -> dict | None:
    tried = (last or {}).get("tried")
    is_same = tried is not None and tried["demands"] == asdict(demands) and rows <= TRIED_AGAIN * tried["rows"]
    return tried if is_same else None


def time_exact(store: Store, limit: float) -> float:
    """Milliseconds of an exact answer, the least of five: whatever else the machine does only adds to it.

    Fewer are enough where one is within the limit, or far beyond it.
    """
    from indexer.index import ExactIndex

    index, query = ExactIndex(store.rows), store.rows[0].astype(np.float32)
    least = math.inf
    # The first brings the rows into memory.
    for turn in range(6):
        started = time.perf_counter()
        index.search(query, 1)
        least = min(least, (time.perf_counter() - started) * 1000)
        if least <= limit or (turn and least > FAR * limit):
            break
    return least


def _stay_exact(why: str, tried: dict | None = None) -> Fitted:
    return Fitted(described={"index": EXACT, "recall": 1.0, "chosen": why, **({"tried": tried} if tried else {})})


class _Fitting:
    """One search for an index; its methods stand in the order in which they run."""

    def __init__(
        self,
        store: Store,
        demands: Demands,
        before: Before | None,
        embed_edited: Callable[[], np.ndarray | None],
        on_note: Callable[[str], None],
        fill: FillParts | None,
    ) -> None:
        self.demands, self.before, self.on_note = demands, before, on_note
        self.store, self.fill = store, fill
        self.rows, self.norms = store.rows, store.norms
        self.embed_edited = embed_edited
        self.random = np.random.default_rng(len(self.rows))
        # Lists that are mapped need no memory: the system keeps of them what it has room for.
        at_first = sys.maxsize if is_large(len(self.rows)) else _read_memory() // MEMORY_SHARE
        self.memory_bytes = demands.memory_bytes or at_first

    def run(self, milliseconds: float) -> Fitted:
        """Grow, or else train; or stay exact."""
        self.slow = f"an exact answer takes {milliseconds:.0f} ms"
        return (self.before and self._grow(self.before)) or self._train_in_turn()

    def _grow(self, before: Before) -> Fitted | None:
        """The index before with the rows that came since, if it still reaches what is asked for."""
        recipe, trained = Recipe(**before.search["recipe"]), before.search["trained_among"]
        fits = recipe.measure(*self.rows.shape) <= self.memory_bytes
        if not fits or len(self.rows) > MOST_GROWTH * trained:
            return None
        new = self.random.permutation(np.arange(before.rows, len(self.rows)))
        self.on_note(f"adding {len(new):,} rows to {recipe.title}")
        maker = self._open(before)
        held = read_held_out(before.folder).extend(self.rows[before.rows :], self.norms[before.rows :], before.rows)
        asked = self._ask(np.sort(new[:NEW_QUERIES]))
        fitted, recall = self._measure(recipe, maker, held, trained, asked, before.search)
        if not fitted:
            self.on_note(f"{recipe.title} has fallen to a recall of {recall:.3f}: it is trained anew")
        return fitted

    def _open(self, before: Before) -> "IndexMaker | PartedIndex":
        """The index before with the new rows in it."""
        from indexer.index_maker import open_trained

        maker, lists = open_trained(before.folder / INDEX), before.folder / LISTS
        if lists.exists() or is_large(len(self.rows)):
            known = (lists, before.rows) if lists.exists() else None
            return self._fill_parts(keep_trained(maker, self.store), known)
        maker.add(self.rows[before.rows :])
        return maker

    def _make(self, recipe: Recipe, sample: np.ndarray) -> "IndexMaker | PartedIndex":
        """An index of all rows, trained with a sample of them."""
        from indexer.index_maker import train

        if is_large(len(self.rows)):
            return self._fill_parts(train_once(recipe, self.store, sample))
        maker = train(recipe, self.rows, sample)
        maker.add(self.rows)
        return maker

    def _fill_parts(self, trained: Path, known: tuple[Path, int] | None = None) -> PartedIndex:
        index = PartedIndex(self.store, trained, known, self.fill, self.on_note)
        index.fill()
        return index

    def _train_in_turn(self) -> Fitted:
        from indexer.index_maker import count_sample

        recipes = list_recipes(*self.rows.shape, self.memory_bytes)
        if not recipes:
            return _stay_exact(f"exact: {self.slow}, but no index fits in {self.memory_bytes:,} bytes (--memory)")
        asked = min(QUERIES, len(self.rows) // LEAST_SHARE)
        drawn = self._draw(asked + count_sample(recipes[0]))
        held, rest = self._hold_out(np.sort(drawn[:asked])), drawn[asked:]
        for recipe in recipes:
            self.on_note(f"training {recipe.title} for {len(self.rows):,} rows")
            maker = self._make(recipe, np.sort(rest[: count_sample(recipe)]))
            fitted, recall = self._measure(recipe, maker, held, len(self.rows))
            if fitted:
                return fitted
            self.on_note(f"{recipe.title} reaches a recall of {recall:.3f}; {self.demands.recall:g} is asked for")
            if isinstance(maker, PartedIndex):
                maker.remove()
            del maker  # Memory for the next one.
        why = f"exact: {self.slow}, but {recipe.title} reaches no better recall than {recall:.3f}"
        return _stay_exact(why, {"rows": len(self.rows), "demands": asdict(self.demands)})

    def _draw(self, least: int) -> np.ndarray:
        """So many different row numbers, in a random order; of few rows all, of many no more than are needed."""
        if is_large(len(self.rows)):
            return self.random.choice(len(self.rows), min(least, len(self.rows)), replace=False)
        return self.random.permutation(len(self.rows))

    def _hold_out(self, own: np.ndarray) -> HeldOut:
        """These rows and edited copies, in a random order: every second one chooses, the others tell."""
        edited = self.embed_edited()
        if edited is None:
            edited = np.empty((0, self.rows.shape[1]), np.float32)
        by_edits = answer_exactly(edited, np.full(len(edited), NO_OWN), self.rows, self.norms)
        joined = self._ask(own).join(by_edits)
        return joined.choose(self.random.permutation(len(joined.own)))

    def _ask(self, own: np.ndarray) -> HeldOut:
        queries = self.rows[own].astype(np.float32) / self.norms[own, None]
        return answer_exactly(queries, own, self.rows, self.norms)

    def _measure(
        self,
        recipe: Recipe,
        maker: "IndexMaker | PartedIndex",
        held: HeldOut,
        trained: int,
        new: HeldOut | None = None,
        known: dict | None = None,
    ) -> tuple[Fitted | None, float]:
        """What to publish, if the recall that was asked for is reached, and the recall.

        Args:
            new: queries that must do as well, and are held out from now on.
            known: what the index before was searched with; it stays, and is measured alone, while it is wide enough.
        """
        index, (choosing, telling) = maker.show(), held.halve()
        width, best = self._find_width(recipe, index, choosing, known)
        if width is None:
            return None, best
        if new is not None and len(new.own):
            of_new = measure(index, new, width)
            if len(new.own) >= LEAST_NEW and of_new < self.demands.recall - NEW_APART:
                return None, of_new
            telling = telling.join(new)
        told = measure(index, telling, width)
        edits = telling.choose(telling.own == NO_OWN)
        search = {
            "recipe": {"reduced": recipe.reduced, "lists": recipe.lists},
            "trained_among": trained,
            "probes": width.probes,
            "candidates": width.candidates,
            "queries": len(telling.own),
            "recall_of_edits": round(measure(index, edits, width), 4) if len(edits.own) else None,
            "filtered": _widen(known["filtered"], width)
            if known
            else [self._measure_filtered(index, held, width, share) for share in SHARES],
        }
        why = f"{recipe.title}: {self.slow}; recall@10 {told:.3f} on {len(telling.own)} queries it has not seen"
        described = {"index": recipe.title, "recall": round(told, 4), "chosen": why, "search": search}
        kept = held if new is None else held.join(new)
        if len(kept.own) > MOST_HELD:
            kept = kept.choose(self._thin(kept.own))
        return Fitted(described=described, write=partial(_write, maker, kept)), told

    def _find_width(
        self, recipe: Recipe, index: "ApproximateIndex", choosing: HeldOut, known: dict | None
    ) -> tuple[Width | None, float]:
        if known:
            width = Width(probes=known["probes"], candidates=known["candidates"])
            recall = measure(index, choosing, width)
            if recall >= self.demands.recall:
                return width, recall
        stored = measure_row(self.rows.shape[1])
        return find_width(index, choosing, self.demands.recall, len(self.rows), recipe.row_bytes, stored)

    def _thin(self, own: np.ndarray) -> np.ndarray:
        """Which queries are kept. Those that chose and those that told stay apart: a width may be kept for long."""
        halves = [self._thin_half(own, np.arange(which, len(own), 2)) for which in (0, 1)]
        return np.stack(halves, axis=1).ravel()

    def _thin_half(self, own: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Its edited copies, and rows drawn among the others, in a random order."""
        is_edit = own[places] == NO_OWN
        drawn = np.concatenate([places[is_edit], self.random.permutation(places[~is_edit])])
        return self.random.permutation(drawn[: MOST_HELD // 2])

    def _measure_filtered(self, index: "ApproximateIndex", held: HeldOut, width: Width, share: float) -> dict:
        """The probes that reach the target where a filter lets this share of the rows through, chosen at random."""
        allowed = np.random.default_rng(1).random(len(self.rows)) < share
        choosing, telling = self._ask_within(held.choose(slice(0, FILTERED_QUERIES)), np.flatnonzero(allowed)).halve()
        for probes in list_probes(index.lists):
            wider = Width(probes=probes, candidates=width.candidates)
            if probes >= width.probes and measure(index, choosing, wider, allowed) >= self.demands.recall:
                break
        return {"share": share, "probes": probes, "recall": round(measure(index, telling, wider, allowed), 4)}

    def _ask_within(self, held: HeldOut, chosen: np.ndarray) -> HeldOut:
        """The exact answers among these rows alone."""
        own = np.where(np.isin(held.own, chosen), np.searchsorted(chosen, held.own), NO_OWN)
        found = answer_exactly(held.queries, own, self.rows, self.norms, chosen)
        nearest = np.where(found.nearest < 0, -1, np.append(chosen, -1)[found.nearest])
        return HeldOut(queries=held.queries, own=held.own, nearest=nearest, similarities=found.similarities)


def _widen(filtered: list[dict], width: Width) -> list[dict]:
    """What was measured with filters when the index was trained; no search is narrower than one without."""
    return [{**one, "probes": max(one["probes"], width.probes)} for one in filtered]


def _write(maker: "IndexMaker | PartedIndex", held: HeldOut, folder: Path) -> None:
    maker.write(folder / INDEX)
    with (folder / HELD_OUT).open("wb") as file:
        np.savez(file, **{**vars(held), "queries": held.queries.astype(np.float16)})


def read_held_out(folder: Path) -> HeldOut:
    """The held-out queries of a generation, with their answers at that time."""
    with np.load(folder / HELD_OUT, allow_pickle=False) as kept:
        held = HeldOut(**{name: kept[name] for name in kept.files})
    queries = held.queries.astype(np.float32)
    return HeldOut(**{**vars(held), "queries": queries / np.linalg.norm(queries, axis=1, keepdims=True)})


def read_edited(folder: Path) -> np.ndarray:
    """The embeddings of edited copies among them, (E, D) float32."""
    held = read_held_out(folder)
    return held.queries[held.own == NO_OWN]


def _read_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
