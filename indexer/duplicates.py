"""Near-duplicates: groups of images about a medoid, read from the neighbour graph.

    pairs of the graph that are similar enough, less those that a person told apart
    the image with most of them takes these as its group; then the next among those that are left

So a group never chains: every image in it is as similar to its medoid as was asked, however many there are between two
of them. Identical content is one image here; its files stand in the catalog.

Rule: rows and pairs in, rows out; who may be told apart is decided elsewhere, by content.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowGroup:
    """Rows about a medoid."""

    medoid: int
    rows: np.ndarray
    """(m,) the others, the most similar first."""
    similarities: np.ndarray
    """(m,) float32 cosines with the medoid."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, each from both sides, by their first row: (P,) each."""

    firsts: np.ndarray
    seconds: np.ndarray
    similarities: np.ndarray


def list_pairs(
    neighbours: np.ndarray,
    similarities: np.ndarray,
    at_least: float,
    living: np.ndarray,
    apart: Iterable[tuple[int, int]] = (),
) -> Pairs:
    """The pairs of a neighbour graph, (N, k) each, that are similar enough.

    Args:
        living: (N,) bool, the rows that may be named.
        apart: pairs of rows that are not to be.
    """
    firsts, places = np.nonzero(similarities >= at_least)
    seconds, found = neighbours[firsts, places].astype(np.int64), similarities[firsts, places]
    both = np.concatenate([firsts, seconds]), np.concatenate([seconds, firsts]), np.concatenate([found, found])
    firsts, seconds, found = both
    _, unique = np.unique(firsts * len(neighbours) + seconds, return_index=True)
    kept = unique[living[firsts[unique]] & living[seconds[unique]]]
    firsts, seconds, found = firsts[kept], seconds[kept], found[kept]
    unwanted = _mirror(apart)
    if unwanted:
        is_wanted = [pair not in unwanted for pair in zip(firsts.tolist(), seconds.tolist(), strict=True)]
        firsts, seconds, found = firsts[is_wanted], seconds[is_wanted], found[is_wanted]
    return Pairs(firsts, seconds, found)


def find_groups(pairs: Pairs, apart: Iterable[tuple[int, int]] = ()) -> list[RowGroup]:
    """Groups about medoids, the largest first. A row is in one group; in none if nothing is left to be with it.

    Args:
        apart: pairs of rows that are not to be in one group, whatever is between them.
    """
    unwanted = _mirror(apart)
    rows, starts, counts = np.unique(pairs.firsts, return_index=True, return_counts=True)
    spans = zip(rows.tolist(), starts.tolist(), counts.tolist(), strict=True)
    mine = {row: slice(start, start + count) for row, start, count in spans}
    free, groups = set(mine), []
    # Who has most; of these the one that is most like its own; of these the first. What is taken makes others poorer,
    # which is found out when it is their turn.
    waiting = [(-count, -weight, row) for row, count, weight in _weigh(pairs, mine)]
    heapq.heapify(waiting)
    while waiting:
        count, weight, row = heapq.heappop(waiting)
        if row not in free:
            continue
        is_free = np.array([one in free for one in pairs.seconds[mine[row]].tolist()], dtype=bool)
        if is_free.sum() < -count:
            if is_free.any():
                heapq.heappush(waiting, (-int(is_free.sum()), weight, row))
            continue
        others, similarities = pairs.seconds[mine[row]][is_free], pairs.similarities[mine[row]][is_free]
        order = _keep_apart(others[order := np.lexsort((others, -similarities))], order, unwanted)
        groups.append(RowGroup(row, others[order], similarities[order]))
        free -= {row, *others[order].tolist()}
    return sorted(groups, key=lambda group: -len(group.rows))


def _mirror(pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    return {pair for one, other in pairs for pair in ((one, other), (other, one))}


def _keep_apart(rows: np.ndarray, order: np.ndarray, unwanted: set[tuple[int, int]]) -> np.ndarray:
    """The places of those that may stand together, each with all before it."""
    if not unwanted:
        return order
    kept: list[int] = []
    for place, row in enumerate(rows.tolist()):
        if not any((row, rows[other]) in unwanted for other in kept):
            kept.append(place)
    return order[kept]


def _weigh(pairs: Pairs, mine: dict[int, slice]) -> Iterator[tuple[int, int, float]]:
    """Each row, how many pairs it has, and their similarities together."""
    for row, own in mine.items():
        yield row, own.stop - own.start, round(float(pairs.similarities[own].sum()), 6)
