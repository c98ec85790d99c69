"""From rows to figures: which measures are taken, each with its interval. Their definitions stand in `metrics`.

Rule: what is measured on embeddings is measured on the reference in the same way, with the same draws.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from indexer.evaluation import (
    ALL_EDITS,
    FEW_1,
    FEW_10,
    LINEAR_PROBE,
    MEAN_AVERAGE_PRECISION,
    NEIGHBOUR_VOTE,
    PRECISION_AT_1,
    PRECISION_AT_5,
    RECALL_AT_1,
    Crowd,
    Figure,
)
from indexer.metrics import (
    Copies,
    bootstrap_interval,
    classify_by_neighbours,
    count_nearer,
    encode_labels,
    list_queries,
    measure_few_labels,
    measure_retrieval,
    probe_linear,
    rank_originals,
)

NO_PROBES = "The linear probe and the figures from few labels are left out: scikit-learn is not installed."


def can_probe() -> bool:
    """Whether scikit-learn is here."""
    return importlib.util.find_spec("sklearn") is not None


def measure_labels(name: str, rows: np.ndarray, labels: Sequence[str], *, seed: int) -> Iterator[Figure]:
    """The figures with labels, for rows (N, D) called `name`.

    Raises: ValueError as `metrics.measure_retrieval`.
    """
    retrieval = measure_retrieval(rows, labels)
    yield _average(name, PRECISION_AT_1, retrieval.first_is_right, seed)
    yield _average(name, PRECISION_AT_5, retrieval.right_among_5, seed)
    yield _average(name, MEAN_AVERAGE_PRECISION, retrieval.average_precisions, seed)
    yield _average(name, NEIGHBOUR_VOTE, classify_by_neighbours(rows, labels).is_right, seed)
    if can_probe():
        yield _average(name, LINEAR_PROBE, probe_linear(rows, labels, seed=seed).is_right, seed)
        for measure, share in ((FEW_1, 0.01), (FEW_10, 0.1)):
            yield _average(name, measure, measure_few_labels(rows, labels, share=share, seed=seed).is_right, seed)


def measure_chance(labels: Sequence[str]) -> float:
    """P@1 when the others come in an order left to chance: the mean share of the others that have a query's label.

    Raises: ValueError if no label occurs twice.
    """
    codes = encode_labels(labels, len(labels))
    return float((np.bincount(codes)[codes[list_queries(codes)]] - 1).mean() / (len(codes) - 1))


def measure_copies(
    name: str,
    copies: np.ndarray,
    right: np.ndarray,
    edits: np.ndarray,
    originals: np.ndarray,
    crowds: Iterable[tuple[Crowd, np.ndarray]],
    *,
    seed: int,
) -> Iterator[Figure]:
    """The figures of copy detection, for rows called `name`: for each crowd, each edit, and all edits together.

    Args:
        copies: (Q, D). right: (Q,) int, the rows of their originals. edits: (Q,) str, titles.
        originals: (N, D). crowds: each with the rows of its distractors, (M, D).
    """
    ranks, similarity = rank_originals(copies, right, originals)
    for crowd, distractors in crowds:
        nearer = count_nearer(copies, similarity, distractors)
        yield from _measure_crowd(name, Copies(ranks=ranks + nearer), right, edits, crowd, seed)


def _measure_crowd(
    name: str, found: Copies, right: np.ndarray, edits: np.ndarray, crowd: Crowd, seed: int
) -> Iterator[Figure]:
    for measure, values in ((RECALL_AT_1, found.is_first), (MEAN_AVERAGE_PRECISION, found.average_precisions)):
        for title in dict.fromkeys(edits.tolist()):
            edit, _, strength = title.partition(" ")
            of = {"edit": edit, "strength": strength, "crowd": crowd.name}
            yield _average(name, measure, values[edits == title], seed, **of)
        # Copies of one picture are found or missed together: the interval is about pictures, not about copies.
        by_picture = np.bincount(right, weights=values)[np.unique(right)] / np.unique(right, return_counts=True)[1]
        yield _average(name, measure, by_picture, seed, edit=ALL_EDITS, strength="", crowd=crowd.name)


def _average(name: str, measure: str, values: np.ndarray, seed: int, **of: str) -> Figure:
    value, (low, high) = float(np.nanmean(values)), bootstrap_interval(values, seed=seed)
    return Figure(
        measure=measure,
        rows=name,
        value=value,
        # Where all values are equal, their mean may be a rounding beside the interval.
        low=min(low, value),
        high=max(high, value),
        queries=values.shape[-1],
        **of,
    )
