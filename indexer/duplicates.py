"""Near-duplicates: groups of images about a medoid, read from the neighbour graph.

    pairs of the graph that are similar enough, less those that a person told apart
    the image with most of them takes these as its group; then the next among those that are left

So a group never chains: every image in it is as similar to its medoid as was asked, however many there are between two
of them. Identical content is one image here; its files stand in the catalog.

Rule: rows and pairs in, rows out; who may be told apart is decided elsewhere, by content.
"""

from collections.abc import Iterable
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
    unwanted = {pair for one, other in apart for pair in ((one, other), (other, one))}
    if unwanted:
        is_wanted = [pair not in unwanted for pair in zip(firsts.tolist(), seconds.tolist(), strict=True)]
        firsts, seconds, found = firsts[is_wanted], seconds[is_wanted], found[is_wanted]
    return Pairs(firsts, seconds, found)


def find_groups(pairs: Pairs) -> list[RowGroup]:
    """Groups about medoids, the largest first. A row is in one group; in none if nothing is left to be with it."""
    rows, starts, counts = np.unique(pairs.firsts, return_index=True, return_counts=True)
    weights = np.add.reduceat(pairs.similarities, starts) if len(rows) else np.empty(0)
    free = set(rows.tolist())
    groups = []
    # Whoever has most; of these the one that is most like its own; of these the first.
    for place in np.lexsort((rows, -weights, -counts)):
        medoid, mine = int(rows[place]), slice(starts[place], starts[place] + counts[place])
        if medoid not in free:
            continue
        is_free = np.array([one in free for one in pairs.seconds[mine].tolist()], dtype=bool)
        others, similarities = pairs.seconds[mine][is_free], pairs.similarities[mine][is_free]
        if len(others):
            order = np.lexsort((others, -similarities))
            groups.append(RowGroup(medoid, others[order], similarities[order]))
            free -= {medoid, *others.tolist()}
    return sorted(groups, key=lambda group: -len(group.rows))
