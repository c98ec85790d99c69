"""Groups of look-alikes by k-means on the sphere, at two levels: small groups, and these together in few large ones.

    a sample of the rows -> FAISS's k-means -> centres of the small groups -> every row to its nearest centre
    centres of the small groups, each as heavy as it is large -> k-means -> large groups

FAISS does the k-means; an image belongs to one small group, and that to one large group. The centres of the small
groups may be a model's prototypes.

Rule: equal rows give equal groups: what chance decides follows from the rows' number.
"""

import faiss
import numpy as np

from indexer.index import PIECE_BYTES, decode, use_threads

LARGE_POWER, MOST_LARGE = 0.3, 48
"""As many large groups as the images to this power: 7 of 700, 16 of 10,000, 28 of 64,000."""
IMAGES_IN_SMALL, MOST_SMALL = 24, 10
"""Images that a small group has in the mean, unless a large one would have more than so many of these."""
ROUNDS, ATTEMPTS = 20, 3
ROWS_FOR_A_CENTRE = 256
"""FAISS draws no more than these for each to find the centres with."""


def count_groups(images: int) -> tuple[int, int]:
    """How many (large, small) groups so many images make; (0, 0) of none."""
    large = min(MOST_LARGE, round(images**LARGE_POWER))
    return large, max(large, min(large * MOST_SMALL, images // IMAGES_IN_SMALL))


def group_rows(
    rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray, centres: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group some rows of a store.

    Args:
        rows, norms: (N, D) float16 and (N,) float32.
        chosen: (n,) ascending row numbers.
        centres: (K, D) float32 of length 1, of small groups; None: they are found.
    Returns: (n,) int32 the small group of each; (n,) float32 cosines with its centre; and (small,) int32, the large
        group of each small one. Groups are numbered by size, the largest first.
    """
    large, small = count_groups(len(chosen))
    if centres is None:
        random = np.random.default_rng(len(chosen))
        sample = chosen[np.sort(random.permutation(len(chosen))[: small * ROWS_FOR_A_CENTRE])]
        centres = _find_centres(decode(rows[sample]) / norms[sample, None], small)
        labels, cosines = _assign(rows, norms, chosen, centres)
    else:
        labels, cosines = _assign(rows, norms, chosen, centres)
        used, labels = np.unique(labels, return_inverse=True)
        centres = centres[used]
    sizes = np.bincount(labels, minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    labels = np.argsort(order)[labels].astype(np.int32)
    above = _join(centres[order], sizes[order], large)
    return labels, cosines, above


def _find_centres(rows: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """(count, D) float32 of length 1."""
    use_threads(len(rows) * count * ROUNDS)
    # Few rows are warned of as too few to train with; here they are all there are.
    means = faiss.Kmeans(
        rows.shape[1], count, niter=ROUNDS, nredo=ATTEMPTS, spherical=True, seed=1, min_points_per_centroid=1,
        max_points_per_centroid=ROWS_FOR_A_CENTRE,
    )  # fmt: skip
    means.train(np.ascontiguousarray(rows), weights)
    return means.centroids


def _assign(
    rows: np.ndarray, norms: np.ndarray, chosen: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each chosen row, and its cosine."""
    labels, cosines = np.empty(len(chosen), np.int32), np.empty(len(chosen), np.float32)
    step = max(1, PIECE_BYTES // (rows.shape[1] * 4))
    for first in range(0, len(chosen), step):
        piece = chosen[first : first + step]
        products = (decode(rows[piece]) / norms[piece, None]) @ centres.T
        labels[first : first + step] = products.argmax(axis=1)
        cosines[first : first + step] = products.max(axis=1)
    return labels, cosines


def _join(centres: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """The large group of each small one, the largest first."""
    if count >= len(centres):
        return np.arange(len(centres), dtype=np.int32)
    heavy = _find_centres(centres, count, sizes.astype(np.float32))
    above = (centres @ heavy.T).argmax(axis=1)
    together = np.bincount(above, weights=sizes, minlength=count)
    return np.argsort(np.argsort(-together, kind="stable"))[above].astype(np.int32)
