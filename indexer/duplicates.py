"""Near-duplicates: groups of images about a medoid, read from the neighbour graph and, where that ends, from the rows.

    pairs of the graph that are similar enough, less those that a person told apart
    the image with most of them takes these as its group; then the next among those that are left

The graph holds few neighbours of each row. Where all of a row's are similar enough, there may be more: it stands in a
crowd, and its group grows from pair to pair, every row compared with the medoid itself. Crowds that no pair joins are
looked for among posts, a few rows that have all the others of their crowd about them.

So a group never chains: every image in it is as similar to its medoid as was asked, however many there are between two
of them. Identical content is one image here; its files stand in the catalog.

Rule: rows and pairs in, rows out; who may be told apart is decided elsewhere, by content.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

MOST_POSTS = 1024
"""Rows of crowds that are compared each with each."""
READ_AT_ONCE = 4096
"""Rows that are compared with a medoid at a time."""
ReadRows = Callable[[np.ndarray], np.ndarray]
"""Reads stored rows, (k,) row numbers -> (k, D) float32 of length 1."""


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
    """Pairs of N rows, each from both sides, by their first row and then by their second."""

    starts: np.ndarray
    """(N + 1,) where the pairs of each row begin, and where the last ones end."""
    seconds: np.ndarray
    """(P,) int64."""
    similarities: np.ndarray
    """(P,) float32."""
    at_least: float
    is_crowded: np.ndarray
    """(N,) bool: rows all of whose neighbours in the graph are similar enough."""
    apart: dict[int, set[int]]
    """Row -> the rows that it is not to be in one group with."""

    def find(self, row: int) -> slice:
        """Where its pairs stand."""
        return slice(self.starts[row], self.starts[row + 1])


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
        apart: pairs of rows that are not to be in one group, whatever is between them.
    """
    is_near = similarities >= at_least
    is_crowded = living & is_near.all(axis=1)
    firsts, places = np.nonzero(is_near)
    seconds, found = neighbours[firsts, places].astype(np.int64), similarities[firsts, places]
    alive = living[firsts] & living[seconds]
    unwanted: dict[int, set[int]] = {}
    for one, other in apart:
        unwanted.setdefault(one, set()).add(other)
        unwanted.setdefault(other, set()).add(one)
    nothing = np.empty(0, np.int64)
    none = Pairs(np.zeros(len(living) + 1, np.int64), nothing, nothing, at_least, is_crowded, unwanted)
    return _add(none, firsts[alive], seconds[alive], found[alive])


def _add(pairs: Pairs, firsts: np.ndarray, seconds: np.ndarray, similarities: np.ndarray) -> Pairs:
    """With more pairs, from either side or from both; less those that were told apart."""
    rows = len(pairs.is_crowded)
    old = np.arange(rows).repeat(np.diff(pairs.starts)), pairs.seconds, pairs.similarities
    mirrored = zip(old, (firsts, seconds, similarities), (seconds, firsts, similarities), strict=True)
    firsts, seconds, similarities = map(np.concatenate, mirrored)
    codes = firsts * rows + seconds
    order = np.argsort(codes)
    codes = codes[order]
    is_kept = np.ones(len(codes), dtype=bool)
    is_kept[1:] = codes[1:] != codes[:-1]
    unwanted = np.array([one * rows + other for one, others in pairs.apart.items() for other in others], np.int64)
    for place, end in zip(np.searchsorted(codes, unwanted), np.searchsorted(codes, unwanted, "right"), strict=True):
        is_kept[place:end] = False
    order = order[is_kept]
    starts = np.searchsorted(firsts[order], np.arange(rows + 1))
    return Pairs(starts, seconds[order], similarities[order], pairs.at_least, pairs.is_crowded, pairs.apart)


def find_groups(pairs: Pairs, read: ReadRows) -> list[RowGroup]:
    """Groups about medoids, the largest first. A row is in one group; in none if nothing is left to be with it.

    Raises: what `read` raises.
    """
    pairs = _bridge(pairs, read)
    waiting, groups = _Waiting(pairs), []
    for medoid in waiting:
        grow = _grow if pairs.is_crowded[medoid] else _look_up
        rows, similarities = grow(pairs, medoid, waiting, read)
        order = _keep_apart(rows, np.lexsort((rows, -similarities)), pairs.apart)
        if len(order):
            groups.append(RowGroup(medoid, rows[order], similarities[order]))
            waiting.take([medoid, *rows[order].tolist()])
    return sorted(groups, key=lambda group: -len(group.rows))


class _Waiting:
    """The rows that are in no group yet. In turn: who has most of these about it, of equals the one that is most like
    its own, of equals the first. What is taken makes others poorer, which is found out when it is their turn."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs, counts = pairs, np.diff(pairs.starts)
        rows = len(counts)
        self.is_free, self.asked_by = np.ones(rows, dtype=bool), np.full(rows, -1)
        sums = np.concatenate([[0.0], np.cumsum(pairs.similarities, dtype=np.float64)])[pairs.starts]
        self._ranked = np.lexsort((np.arange(rows), -np.diff(sums).round(6)))
        self._counts, self._most = counts.tolist(), int(counts.max(initial=0))
        # One number for each row that has any, its lack of pairs before its rank: numbers are compared fastest.
        ranks = np.flatnonzero(counts[self._ranked])
        self._queue = np.sort((self._most - counts[self._ranked[ranks]]) * rows + ranks).tolist()

    def __iter__(self) -> Iterator[int]:
        rows = len(self._ranked)
        while self._queue:
            lack, rank = divmod(heapq.heappop(self._queue), rows)
            row = int(self._ranked[rank])
            count = self._counts[row]
            if not self.is_free[row] or not count:
                continue
            if count == self._most - lack:
                yield row
            else:
                heapq.heappush(self._queue, (self._most - count) * rows + rank)

    def take(self, rows: list[int]) -> None:
        """These are in a group now."""
        self.is_free[rows] = False
        for row in rows:
            for other in self._pairs.seconds[self._pairs.find(row)].tolist():
                self._counts[other] -= 1


def _look_up(pairs: Pairs, medoid: int, waiting: _Waiting, _: ReadRows) -> tuple[np.ndarray, np.ndarray]:
    """The free rows of its pairs, and their similarities."""
    mine = pairs.find(medoid)
    is_free = waiting.is_free[pairs.seconds[mine]]
    return pairs.seconds[mine][is_free], pairs.similarities[mine][is_free]


def _grow(pairs: Pairs, medoid: int, waiting: _Waiting, read: ReadRows) -> tuple[np.ndarray, np.ndarray]:
    """The free rows that pairs lead to, by way of rows that are similar enough to the medoid themselves."""
    query, edge, found = read(np.array([medoid]))[0], np.array([medoid]), []
    waiting.asked_by[[medoid, *pairs.apart.get(medoid, ())]] = medoid
    while len(edge):
        rows = _list_around(pairs, edge)
        rows = np.unique(rows[waiting.is_free[rows] & (waiting.asked_by[rows] != medoid)])
        waiting.asked_by[rows] = medoid
        similarities = _compare(query, rows, read)
        is_near = similarities >= pairs.at_least
        edge = rows[is_near]
        found.append((edge, similarities[is_near]))
    rows, similarities = map(np.concatenate, zip(*found, strict=True))
    return rows, similarities


def _list_around(pairs: Pairs, rows: np.ndarray) -> np.ndarray:
    """The second rows of all pairs of some rows."""
    firsts, counts = pairs.starts[rows], pairs.starts[rows + 1] - pairs.starts[rows]
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return pairs.seconds[np.repeat(firsts, counts) + steps]


def _compare(query: np.ndarray, rows: np.ndarray, read: ReadRows) -> np.ndarray:
    # Not a matrix product: to the bit what the graph and a search say of a pair.
    pieces = (rows[first : first + READ_AT_ONCE] for first in range(0, len(rows), READ_AT_ONCE))
    found = [np.clip((read(piece) * query).sum(axis=1), -1.0, 1.0) for piece in pieces]
    return np.concatenate([np.empty(0, np.float32), *found])


def _bridge(pairs: Pairs, read: ReadRows) -> Pairs:
    """With the pairs of posts: crowds may be too large for any list to lead from one to the next."""
    posts = _choose_posts(pairs)
    if len(posts) < 2:
        return pairs
    unit = read(posts)
    cosines = unit @ unit.T
    firsts, seconds = np.nonzero(np.triu(cosines >= pairs.at_least, 1))
    return _add(pairs, posts[firsts], posts[seconds], cosines[firsts, seconds])


def _choose_posts(pairs: Pairs) -> np.ndarray:
    """Crowded rows, those with most pairs first, none of them beside an earlier one."""
    crowded = np.flatnonzero(pairs.is_crowded)
    counts = pairs.starts[crowded + 1] - pairs.starts[crowded]
    is_covered, posts = np.zeros(len(pairs.is_crowded), dtype=bool), []
    for row in crowded[np.argsort(-counts, kind="stable")].tolist():
        if not is_covered[row]:
            posts.append(row)
            is_covered[pairs.seconds[pairs.find(row)]] = True
            if len(posts) == MOST_POSTS:
                break
    return np.array(posts, dtype=np.int64)


def _keep_apart(rows: np.ndarray, order: np.ndarray, apart: dict[int, set[int]]) -> np.ndarray:
    """The places of those that may stand together, each with all before it."""
    if not apart:
        return order
    kept: set[int] = set()
    is_kept = np.ones(len(order), dtype=bool)
    for place, row in enumerate(rows[order].tolist()):
        if unwanted := apart.get(row):
            is_kept[place] = not unwanted & kept
            kept |= {row} if is_kept[place] else set()
    return order[is_kept]
