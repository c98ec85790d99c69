"""What stands out in a collection: images far from each other, images that nothing is like, and a flat picture of all.

    exemplars   farthest-point sampling: each next one is the image least like all that were taken
    outliers    images whose own neighbours are least similar to them
    map         the two directions along which rows differ most

Rule: rows in, row numbers or places out; equal rows give equal answers.
"""

import numpy as np

EXEMPLARS, SAMPLE = 60, 8192
"""Images that are taken, and rows that they are taken among."""
COMMON = 0.2
"""Part of the sample, the least like its group, that is not taken: exemplars show what is there, not what is odd."""
OUTLIERS = 1000
DIRECTIONS_ROWS, STEPS = 16_384, 12
"""Rows that the map's directions are found on, and steps of finding them."""


def pick_exemplars(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Row numbers of images that differ, in the order in which they were taken: any first few differ most.

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
    while len(taken) < min(EXEMPLARS, len(sample)):
        taken.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[taken[-1]])
    return sample[taken]


def find_outliers(similarities: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are least like their own neighbours, the oddest first, and (m,) float32 how like they are.

    Args:
        similarities: (N, k) float32 of a neighbour graph; -inf where there are fewer.
        chosen: (n,) row numbers.
    """
    there = np.where(np.isfinite(similarities[chosen]), similarities[chosen], np.nan)
    with np.errstate(invalid="ignore"):
        likeness = np.nanmean(there, axis=1) if there.shape[1] else np.zeros(len(chosen), np.float32)
    order = np.argsort(likeness, kind="stable")[:OUTLIERS]
    return chosen[order], likeness[order].astype(np.float32)


def flatten(rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, 2) float32 places of some rows on a map: principal components about the mean row."""
    random = np.random.default_rng(0)
    sample = np.sort(random.permutation(chosen)[:DIRECTIONS_ROWS])
    unit = rows[sample].astype(np.float32) / norms[sample, None]
    mean = unit.mean(axis=0)
    unit -= mean
    directions = random.standard_normal((rows.shape[1], 2), dtype=np.float32)
    for _ in range(STEPS):
        directions, _ = np.linalg.qr(unit.T @ (unit @ directions))
    pieces = (chosen[first : first + SAMPLE] for first in range(0, len(chosen), SAMPLE))
    flat = [(rows[piece].astype(np.float32) / norms[piece, None] - mean) @ directions for piece in pieces]
    return np.concatenate([np.empty((0, 2), np.float32), *flat])


def fit_into_square(places: np.ndarray) -> np.ndarray:
    """(n, 2) float32 in [-1, 1], the aspect kept; what lies far outside of the rest stands at the edge."""
    if not len(places):
        return places.astype(np.float32)
    low, high = np.quantile(places, (0.002, 0.998), axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)
    return np.clip((places - middle) / reach, -1, 1).astype(np.float32)
