"""What stands out in a collection: images far from each other, images that nothing is like, and a flat picture of all.

    exemplars   farthest-point sampling: each next one is the image least like all that were taken
    typical     of a group the images nearest to its centre, one of each of its parts before others
    outliers    images that nothing is like, neither their own neighbours nor the rest
    map         the two directions along which rows differ most

Rule: rows in, row numbers or places out; equal rows give equal answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

EXEMPLARS, SAMPLE = 60, 8192
"""Images that are taken, and rows that they are taken among."""
COMMON = 0.2
"""Part of the sample, the least like its group, that is not taken: exemplars show what is there, not what is odd."""
EQUAL = 1 - 1e-5
"""The cosine of equal rows, whatever is rounded; two of these are not taken."""
OUTLIERS = 1000
PREVIEWS = 4
"""Images that stand for a group."""
DIRECTIONS_ROWS, STEPS = 16_384, 12
"""Rows that the map's directions are found on, and steps of finding them."""


def pick_exemplars(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Row numbers of images that differ, in the order in which they were taken: any first few differ most.

    Fewer than EXEMPLARS where all others are equal to one of them.

    Args:
        rows, norms: (N, D) float16 and (N,) float32.
        chosen: (n,) ascending row numbers.
        cosines: (n,) of each with the centre of its group.
    """
    random = np.random.default_rng(len(chosen))
    places = np.sort(random.permutation(len(chosen))[:SAMPLE])
    places = places[cosines[places] >= np.quantile(cosines[places], COMMON)]
    sample = chosen[places]
    unit = rows[sample].astype(np.float32) / norms[sample, None]
    taken = [int(cosines[places].argmax())]
    nearest = unit @ unit[taken[0]]
    while len(taken) < EXEMPLARS and nearest.min() < EQUAL:
        taken.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[taken[-1]])
    return sample[taken]


@dataclass(frozen=True)
class Grouping:
    """Rows with their groups, (n,) each: group by group, in each the most typical one first."""

    rows: np.ndarray
    small: np.ndarray
    large: np.ndarray

    def list_group(self, number: int, part: int | None = None) -> np.ndarray:
        """The rows of a large group, or of one of its parts."""
        mine = self._find(number)
        rows = self.rows[mine]
        return rows if part is None else rows[_renumber(self.small[mine]) == part]

    def list_typical(self, within: int | None = None) -> list[tuple[int, int, np.ndarray]]:
        """Number, size and a few rows of each large group, or of each part of one, the largest first."""
        mine = slice(None) if within is None else self._find(within)
        rows, parts = self.rows[mine], self.small[mine]
        numbers = self.large if within is None else _renumber(parts)
        sizes = np.bincount(numbers)
        found = ((number, numbers == number) for number in np.argsort(-sizes, kind="stable").tolist() if sizes[number])
        return [(number, int(sizes[number]), _pick_typical(rows[own], parts[own])) for number, own in found]

    def _find(self, number: int) -> slice:
        return slice(*np.searchsorted(self.large, [number, number + 1]))


def arrange(rows: np.ndarray, small: np.ndarray, above: np.ndarray, cosines: np.ndarray) -> Grouping:
    """Put rows in the order of their groups.

    Args:
        rows, small: (n,) ascending row numbers, and the small group of each.
        above: the large group of each small one.
        cosines: (n,) with the centre of the small group.
    """
    large = above[small]
    order = np.lexsort((-cosines, large))
    return Grouping(rows[order], small[order], large[order])


def _renumber(small: np.ndarray) -> np.ndarray:
    """Numbers from 0 in their order: small groups are numbered by size over the whole collection."""
    return np.unique(small, return_inverse=True)[1]


def _pick_typical(rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The first rows of parts, then others, in their order."""
    first_of_part = np.sort(np.unique(parts, return_index=True)[1])
    others = np.setdiff1d(np.arange(min(PREVIEWS, len(rows))), first_of_part)
    return rows[np.concatenate([first_of_part, others])[:PREVIEWS]]


def find_outliers(
    neighbours: np.ndarray, similarities: np.ndarray, chosen: np.ndarray, to_middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that nothing is like, the oddest first, and (m,) float32 mean similarities to their own neighbours.

    Odd is what is less like its neighbours than these are like theirs, and little like the collection as a whole: each
    by itself found fewer of pictures that were put among photos of one kind (docs/decisions/0011-survey.md).

    Args:
        neighbours, similarities: (N, k) of a neighbour graph; -1 and -inf where there are fewer.
        chosen: (n,) row numbers.
        to_middle: (n,) cosines with the mean row.
    """
    is_there = neighbours >= 0
    likeness = np.where(is_there, similarities, 0).sum(axis=1) / np.maximum(1, is_there.sum(axis=1))
    of_neighbours = np.where(is_there, likeness[neighbours], 0).sum(axis=1) / np.maximum(1, is_there.sum(axis=1))
    relative = likeness[chosen] / np.where(of_neighbours[chosen] > 0, of_neighbours[chosen], 1)
    order = np.argsort(_scale(relative) + _scale(to_middle), kind="stable")[:OUTLIERS]
    return chosen[order], likeness[chosen][order].astype(np.float32)


def _scale(values: np.ndarray) -> np.ndarray:
    """By their spread, so that two measures count alike."""
    spread = values.std() if len(values) else 0
    return values / spread if spread > 0 else values


def compare_with_mean(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n,) float32 cosines of some rows, of (N, D) float16 with their norms, with the mean of them."""
    total = sum((unit.sum(axis=0) for unit in _cut(rows, norms, chosen)), np.zeros(rows.shape[1], np.float32))
    mean = total / max(float(np.linalg.norm(total)), 1e-9)
    return np.concatenate([np.empty(0, np.float32), *(unit @ mean for unit in _cut(rows, norms, chosen))])


def _cut(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Chosen rows at length 1, in pieces that memory holds."""
    for first in range(0, len(chosen), SAMPLE):
        piece = chosen[first : first + SAMPLE]
        yield rows[piece].astype(np.float32) / norms[piece, None]


def flatten(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, 2) float32 places of some rows on a map: principal components about the mean row."""
    random = np.random.default_rng(0)
    sample = chosen[np.sort(random.permutation(len(chosen))[:DIRECTIONS_ROWS])]
    if not len(sample):
        return np.empty((0, 2), np.float32)
    unit = rows[sample].astype(np.float32) / norms[sample, None]
    mean = unit.mean(axis=0)
    unit -= mean
    directions = random.standard_normal((rows.shape[1], 2), dtype=np.float32)
    for _ in range(STEPS):
        directions, _ = np.linalg.qr(unit.T @ (unit @ directions))
    flat = ((unit - mean) @ directions for unit in _cut(rows, norms, chosen))
    return np.concatenate([np.empty((0, 2), np.float32), *flat])


def fit_into_square(places: np.ndarray) -> np.ndarray:
    """(n, 2) float32 in [-1, 1], the aspect kept; what lies far outside of the rest stands at the edge."""
    if not len(places):
        return places.astype(np.float32)
    low, high = np.quantile(places, (0.002, 0.998), axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)
    return np.clip((places - middle) / reach, -1, 1).astype(np.float32)
