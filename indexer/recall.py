"""How right an approximate index is, and how wide it must be searched for that: measured, on queries it has not seen.

    held-out queries: rows kept out of the training, and edited copies, each with its exact answer
    half of them     ->  the least work that reaches the target: how many lists, how many candidates
    the other half   ->  the recall that people are told

Recall is the share of the exactly nearest ten that are among the candidates: these are ranked exactly afterwards, so
none of the ten is lost that was proposed. The query's own row does not count.

Rule: what is told was measured on queries that chose nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from indexer.index import ApproximateIndex

NEAREST = 10
CANDIDATES = (32, 64, 128, 256, 512, 1024)
"""Rows that may be proposed, to be ranked exactly."""
SPARE = 0.002
"""Recall beyond the target that the half which chooses must show: it flatters its choice."""
NO_OWN = -1
SCAN_BYTES_PER_US, RANKING_BYTES_PER_US, RANKING_US = 28_000, 8_000, 0.2
"""What the work of a search takes, roughly: only its proportions decide (docs/decisions/0009-search.md)."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Queries with their exact answers."""

    queries: np.ndarray
    """(Q, D) float32, of length 1."""
    own: np.ndarray
    """(Q,) int64: the row that each was read from; `NO_OWN` for an edited copy."""
    nearest: np.ndarray
    """(Q, 10) int64: the rows nearest to each but its own, nearest first; -1 where there are fewer."""
    similarities: np.ndarray
    """(Q, 10) float32."""

    def choose(self, which: np.ndarray | slice) -> "HeldOut":
        """Some of them."""
        return HeldOut(**{name: values[which] for name, values in vars(self).items()})

    def join(self, other: "HeldOut") -> "HeldOut":
        """These and others."""
        return HeldOut(**{name: np.concatenate([values, vars(other)[name]]) for name, values in vars(self).items()})

    def halve(self) -> tuple["HeldOut", "HeldOut"]:
        """Those that choose, and those that tell."""
        return self.choose(slice(0, None, 2)), self.choose(slice(1, None, 2))

    def extend(self, rows: np.ndarray, norms: np.ndarray, first: int) -> "HeldOut":
        """With what (n, D) float16 rows that came since, numbered from `first` on, change about the answers."""
        later = answer_exactly(self.queries, np.full(len(self.own), NO_OWN), rows, norms)
        similarities = np.concatenate([self.similarities, later.similarities], axis=1)
        nearest = np.concatenate([self.nearest, np.where(later.nearest < 0, -1, later.nearest + first)], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :NEAREST]
        return HeldOut(
            queries=self.queries,
            own=self.own,
            nearest=np.take_along_axis(nearest, order, axis=1),
            similarities=np.take_along_axis(similarities, order, axis=1),
        )


@dataclass(frozen=True, kw_only=True)
class Width:
    """How wide a search is: lists that are looked through, and rows that are proposed."""

    probes: int
    candidates: int


def answer_exactly(
    queries: np.ndarray, own: np.ndarray, rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray | None = None
) -> HeldOut:
    """Find the exact answers to (Q, D) queries among (N, D) float16 rows, or, as places of these, among chosen ones."""
    from indexer.index import find_nearest

    similarities, nearest = find_nearest(rows, norms, queries, NEAREST + 1, chosen)
    # The row that the query was read from goes, or else the eleventh.
    is_own = (nearest == own[:, None]) & (own != NO_OWN)[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    nearest, similarities = (found[~is_own].reshape(-1, NEAREST) for found in (nearest, similarities))
    return HeldOut(queries=queries, own=own, nearest=nearest, similarities=similarities)


def find_places(
    index: "ApproximateIndex", held: HeldOut, width: Width, allowed: np.ndarray | None = None
) -> np.ndarray:
    """At which place each of the exactly nearest is proposed: (Q, 10) int64, counted from 0; `width.candidates` where
    it is not."""
    proposed = index.search(held.queries, width.candidates, width.probes, allowed)
    is_there = held.nearest[:, :, None] == proposed[:, None, :]
    return np.where(is_there.any(axis=2), is_there.argmax(axis=2), width.candidates)


def find_width(
    index: "ApproximateIndex", held: HeldOut, target: float, rows: int, row_bytes: int, stored_bytes: int
) -> tuple[Width | None, float]:
    """The width that reaches a recall with the least work.

    Args:
        row_bytes, stored_bytes: of a row, in the index and in the store.
    Returns: None if none does; and the best recall that was seen.
    """
    best, least, highest = None, np.inf, 0.0
    for probes in list_probes(index.lists):
        scanned = probes / index.lists * rows * row_bytes / SCAN_BYTES_PER_US
        if scanned >= least:
            break
        places = find_places(index, held, Width(probes=probes, candidates=CANDIDATES[-1]))
        for candidates in CANDIDATES:
            recall = _count_found(places, held, candidates)
            highest = max(highest, recall)
            work = scanned + candidates * (RANKING_US + stored_bytes / RANKING_BYTES_PER_US)
            if recall >= min(1.0, target + SPARE) and work < least:
                best, least = Width(probes=probes, candidates=candidates), work
    return best, highest


def measure(index: "ApproximateIndex", held: HeldOut, width: Width, allowed: np.ndarray | None = None) -> float:
    """Recall of a search of this width, among the (N,) bool rows that are allowed."""
    return _count_found(find_places(index, held, width, allowed), held, width.candidates)


def _count_found(places: np.ndarray, held: HeldOut, candidates: int) -> float:
    exists = held.nearest >= 0
    return float((places < candidates)[exists].mean()) if exists.any() else 1.0


def list_probes(lists: int) -> Iterator[int]:
    """1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 ... and all lists: four from each power of two to the next."""
    probes, step = 1, 1
    while probes < lists:
        yield probes
        probes += step
        if probes >= 8 * step:
            step *= 2
    yield lists
