"""A flat picture of a collection by t-SNE over its neighbour graph: look-alikes stand together. The door of openTSNE.

Rule: the neighbours are the graph's; nothing is searched for here. Without the library there is the map by principal
components alone.
Source: van der Maaten and Hinton, JMLR 9 (2008); Linderman et al., FIt-SNE, Nature Methods 16 (2019); the library's
`affinity.PrecomputedAffinities`.
"""

import importlib.util
import os

import numpy as np

EXAGGERATED, ROUNDS = 150, 350
"""Steps while groups are drawn together, and steps after that."""
STRETCH = 12.0
"""How much stronger neighbours attract each other in the first steps."""
WORTH_GRID = 10_000
"""Rows from which on a grid repels faster than a tree: 4.2 against 0.3 s for 700, 14 against 9 s for 10,000."""
START_SPREAD = 1e-4
"""Standard deviation of the places that it begins with."""


def can_unfold() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("openTSNE") is not None


def unfold(neighbours: np.ndarray, chosen: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, 2) places of some rows.

    Args:
        neighbours: (N, k) int32 row numbers of a neighbour graph, nearest first, -1 for none.
        chosen: (n,) ascending row numbers.
        places: (n, 2) to begin with: the map by principal components.
    Returns: finite numbers; float32.
    """
    from openTSNE import TSNEEmbedding, affinity
    from scipy.sparse import csr_matrix

    known = affinity.PrecomputedAffinities(csr_matrix(_weigh(neighbours, chosen)), normalize=True)
    start = _shrink(places.astype(np.float64))
    way = "bh" if len(chosen) < WORTH_GRID else "fft"
    found = TSNEEmbedding(start, known, n_jobs=os.cpu_count() or 1, random_state=0, negative_gradient_method=way)
    found = found.optimize(EXAGGERATED, exaggeration=STRETCH, momentum=0.5)
    unfolded = np.asarray(found.optimize(ROUNDS, momentum=0.8), dtype=np.float32)
    return unfolded if np.isfinite(unfolded).all() else start.astype(np.float32)


def _shrink(places: np.ndarray) -> np.ndarray:
    """Places so near each other as it begins with; by chance where nothing tells them apart."""
    spread = places.std(axis=0).max()
    if np.isfinite(places).all() and spread > 0:
        return places * (START_SPREAD / spread)
    # The library would divide by the spread, and end the process with a segmentation fault over what comes of it.
    return np.random.default_rng(0).normal(scale=START_SPREAD, size=places.shape)


def _weigh(neighbours: np.ndarray, chosen: np.ndarray) -> object:
    """How strongly each pair attracts each other, (n, n) sparse and symmetric: by rank, so that crowds and lone images
    are treated alike."""
    from scipy.sparse import coo_matrix

    place = np.full(len(neighbours), -1)
    place[chosen] = np.arange(len(chosen))
    ends = np.where(neighbours[chosen] >= 0, place[neighbours[chosen]], -1)
    starts = np.broadcast_to(np.arange(len(chosen))[:, None], ends.shape)
    strength = np.broadcast_to(1.0 / (1 + np.arange(ends.shape[1])), ends.shape)
    is_there = ends >= 0
    one_way = coo_matrix((strength[is_there], (starts[is_there], ends[is_there])), shape=(len(chosen),) * 2)
    return (one_way + one_way.T) / 2
