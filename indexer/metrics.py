"""What an embedding is worth, as figures: retrieval, classification by neighbours and by a linear probe, copies.

Every figure is a mean over queries and comes with the values of its queries, so that `bootstrap_interval` can say how
far it may be trusted. Similarity is the cosine: rows are brought to length 1 here, whatever they come as.

A picture whose label no other picture has cannot be told by its label: with labels it is no query, but it stays among
the others as something to be mistaken for.

Rule: rows and labels in, numbers out; equal input gives equal figures, and similarities are held a block at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_BYTES = 16 << 20
"""Similarities that are held at a time."""
NEIGHBOURS, SIGMA = 20, 0.07
"""Of the classification by neighbours, as the configuration for SEER 10B in VISSL has them."""
FOLDS = 5
PROBE_C = 0.1
"""How freely a probe may fit: scikit-learn's C, on rows of mean square 1."""
PROBE_STEPS = 1000
DRAWS = 10
TIE = 1e-6
"""Similarities that are this close are the same one: float32 rounds differently in blocks of another shape."""
ROUNDS, LEVEL = 2000, 0.95


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How well pictures of one label find each other; Q queries, each searched among all other rows."""

    queries: np.ndarray
    """(Q,) int64: the rows that were queries."""
    first_is_right: np.ndarray
    """(Q,) float64: 1 where the nearest other row has the query's label, else 0."""
    right_among_5: np.ndarray
    """(Q,) float64: the share of the five nearest others (of all, where there are fewer) with the query's label."""
    average_precisions: np.ndarray
    """(Q,) float64: over all others ranked by similarity, the mean of the precisions at the ranks of those with the
    query's label; the precision at rank r is the share of the first r that have it."""

    @property
    def precision_at_1(self) -> float:
        """P@1, the mean of `first_is_right`."""
        return float(self.first_is_right.mean())

    @property
    def precision_at_5(self) -> float:
        """P@5, the mean of `right_among_5`."""
        return float(self.right_among_5.mean())

    @property
    def mean_average_precision(self) -> float:
        """mAP, the mean of `average_precisions`."""
        return float(self.average_precisions.mean())


@dataclass(frozen=True, kw_only=True)
class Classification:
    """How often the labels of Q queries were told rightly, once or in T draws of what was learnt from."""

    queries: np.ndarray
    """(Q,) int64: the rows that were queries."""
    is_right: np.ndarray
    """(Q,) or (T, Q) float64: 1 where the label was told, 0 where another one was, NaN where it was learnt from."""

    @property
    def accuracy(self) -> float:
        """The share that was told rightly: with draws the mean of their shares, since each tests equally many."""
        return float(np.nanmean(self.is_right))


@dataclass(frozen=True, kw_only=True)
class Copies:
    """How well Q edited copies find their originals; each has one right answer."""

    ranks: np.ndarray
    """(Q,) int64, from 1 on: the place of the original. A tie counts against it, so that an embedding to which all
    pictures are the same finds nothing."""

    @property
    def is_first(self) -> np.ndarray:
        """(Q,) float64: 1 where the original came first, else 0."""
        return (self.ranks == 1).astype(float)

    @property
    def average_precisions(self) -> np.ndarray:
        """(Q,) float64: 1 / rank. With one right answer the average precision is its reciprocal rank."""
        return 1.0 / self.ranks

    @property
    def recall_at_1(self) -> float:
        """The share of copies whose original came first."""
        return float(self.is_first.mean())

    @property
    def mean_average_precision(self) -> float:
        """mAP: here the same as the mean reciprocal rank."""
        return float(self.average_precisions.mean())


def measure_retrieval(rows: np.ndarray, labels: Sequence[str]) -> Retrieval:
    """Leave-one-out retrieval: every picture is searched among all others; those of its label are right.

    Equal similarities stand in the order of their rows.

    Args:
        rows: (N, D) float, finite, none of them zero.
        labels: N labels.
    Raises: ValueError if no label occurs twice, or the rows are not as said.
    """
    rows, codes = normalise(rows), encode_labels(labels, len(rows))
    queries = list_queries(codes)
    found = [_judge_ranking(order, codes, block) for block, order, _ in _rank_others(rows, queries)]
    first, five, precisions = (np.concatenate(part) for part in zip(*found, strict=True))
    return Retrieval(queries=queries, first_is_right=first, right_among_5=five, average_precisions=precisions)


def _judge_ranking(order: np.ndarray, codes: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, ...]:
    is_right = codes[order] == codes[block][:, None]
    precisions = np.cumsum(is_right, axis=1) / np.arange(1, order.shape[1] + 1)
    average = (precisions * is_right).sum(axis=1) / is_right.sum(axis=1)
    return is_right[:, 0].astype(float), is_right[:, :5].mean(axis=1), average


def classify_by_neighbours(
    rows: np.ndarray, labels: Sequence[str], *, neighbours: int = NEIGHBOURS, sigma: float = SIGMA
) -> Classification:
    """Weighted vote of the nearest others, leave one out: each votes for its label with exp(similarity / sigma).

    The label with the largest sum is told; of equal sums the label that sorts first.

    Args:
        rows: (N, D) float. labels: N of them.
        neighbours: that vote; all others, where there are fewer.
        sigma: how fast a vote's weight falls; towards 0 the nearest decides alone.
    Raises: ValueError as `measure_retrieval`.
    Source: VISSL, nearest-neighbour evaluation of SEER 10B (spec/seer.md, 4.4).
    """
    rows, codes = normalise(rows), encode_labels(labels, len(rows))
    queries, classes = list_queries(codes), codes.max() + 1
    is_right = []
    for block, order, similarities in _rank_others(rows, queries):
        nearest = order[:, :neighbours]
        # The largest is taken out of the exponent: a small sigma would overflow, and the vote stays the same.
        closeness = np.take_along_axis(similarities, nearest, axis=1).astype(np.float64)
        weights = np.exp((closeness - closeness[:, :1]) / sigma)
        votes = np.zeros((len(block), classes))
        np.add.at(votes, (np.arange(len(block))[:, None], codes[nearest]), weights)
        is_right.append(votes.argmax(axis=1) == codes[block])
    return Classification(queries=queries, is_right=np.concatenate(is_right).astype(float))


def probe_linear(rows: np.ndarray, labels: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> Classification:
    """Linear probe: logistic regression on the embeddings, by cross-validation.

    Each label's pictures are dealt out to the folds by a seeded shuffle; each fold's labels are told by a regression
    that has learnt from the others. Rows have length 1; the mean of the rows learnt from is taken off, and one number
    brings their mean square to 1. The regression is multinomial, with C = PROBE_C.

    Raises: ValueError as `measure_retrieval`.
    """
    rows, codes = normalise(rows), encode_labels(labels, len(rows))
    queries, fold = list_queries(codes), _deal_folds(codes, folds, np.random.default_rng(seed))
    is_right = np.zeros(len(rows))
    for number in np.unique(fold):
        tested = np.flatnonzero(fold == number)
        learnt = np.flatnonzero(fold != number)
        is_right[tested] = _fit_and_tell(rows, codes, learnt, tested) == codes[tested]
    return Classification(queries=queries, is_right=is_right[queries])


def _deal_folds(codes: np.ndarray, folds: int, random: np.random.Generator) -> np.ndarray:
    """(N,) int64, the fold of each row. A label of two pictures or more lies in two folds or more."""
    shuffled = random.permutation(len(codes))
    # Dealt through, not begun anew with each label, so that the folds are of one size.
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    fold = np.empty(len(codes), dtype=np.int64)
    fold[order] = np.arange(len(codes)) % folds
    return fold


def measure_few_labels(
    rows: np.ndarray, labels: Sequence[str], *, share: float, draws: int = DRAWS, seed: int = 0
) -> Classification:
    """Low-shot: the linear probe, taught by few pictures.

    A draw takes `share` of each label's pictures, rounded, at least one; the regression learns from them and tells the
    labels of all others. It is done `draws` times. Labels of one picture only take no part.

    Returns: `is_right` (draws, Q).
    Raises: ValueError as `measure_retrieval`, or if share is not above 0 and up to 0.5.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share is {share}; it must be above 0 and at most 0.5.")
    rows, codes = normalise(rows), encode_labels(labels, len(rows))
    queries, random = list_queries(codes), np.random.default_rng(seed)
    is_right = np.full((draws, len(rows)), np.nan)
    for draw in range(draws):
        learnt = np.concatenate([_draw_share(codes, code, share, random) for code in np.unique(codes[queries])])
        tested = np.setdiff1d(queries, learnt)
        is_right[draw, tested] = _fit_and_tell(rows, codes, learnt, tested) == codes[tested]
    return Classification(queries=queries, is_right=is_right[:, queries])


def _draw_share(codes: np.ndarray, code: int, share: float, random: np.random.Generator) -> np.ndarray:
    members = random.permutation(np.flatnonzero(codes == code))
    return members[: max(1, round(share * len(members)))]


def _fit_and_tell(rows: np.ndarray, codes: np.ndarray, learnt: np.ndarray, tested: np.ndarray) -> np.ndarray:
    # Imported here: scikit-learn takes a second to load, and only a probe needs it.
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(codes[learnt])) == 1:
        return np.full(len(tested), codes[learnt[0]])
    mean = rows[learnt].mean(axis=0)
    centred = rows[learnt] - mean
    # Rows that are all the same have no spread; whatever they are divided by, they stay zeros.
    scale = float(np.sqrt(np.mean(centred**2))) or 1.0
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_STEPS).fit(centred / scale, codes[learnt])
    return probe.predict((rows[tested] - mean) / scale)


def rank_originals(copies: np.ndarray, right: np.ndarray, originals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Search edited copies among the originals.

    Args:
        copies: (Q, D) float. right: (Q,) int, the row of each copy's original. originals: (N, D) float.
    Returns: ranks (Q,) int64 from 1 on, as in `Copies`; and (Q,) float32, the similarity of each copy to its original.
    """
    copies, originals = normalise(copies), normalise(originals)
    ranks, nearness = np.empty(len(copies), dtype=np.int64), np.empty(len(copies), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * len(originals)))
    for start in range(0, len(copies), step):
        block = slice(start, start + step)
        similarities, own = copies[block] @ originals.T, right[block][:, None]
        nearness[block] = np.take_along_axis(similarities, own, axis=1)[:, 0]
        # Taken out by its place: by its similarity it would be one of those that tie with it.
        np.put_along_axis(similarities, own, -np.inf, axis=1)
        ranks[block] = 1 + (similarities >= nearness[block][:, None] - TIE).sum(axis=1)
    return ranks, nearness


def count_nearer(copies: np.ndarray, similarity: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of `others` (M, D) are as near to each copy (Q, D) as `similarity` (Q,) says, or nearer: (Q,) int64.

    Added to the ranks that `rank_originals` gives, it is the rank with these distractors among the originals.
    """
    copies, counts = normalise(copies), np.zeros(len(copies), dtype=np.int64)
    step = max(1, BLOCK_BYTES // (4 * len(copies)))
    for start in range(0, len(others), step):
        block = copies @ normalise(others[start : start + step]).T
        counts += (block >= similarity[:, None] - TIE).sum(axis=1)
    return counts


def bootstrap_interval(values: np.ndarray, *, seed: int = 0, rounds: int = ROUNDS) -> tuple[float, float]:
    """Between which two numbers the mean of `values` lies with 95 %, were the queries drawn again.

    Percentile bootstrap: `rounds` times, as many queries as there are, are drawn with replacement and averaged. The
    interval is about the choice of queries alone; what they are searched among stays as it is.

    Args:
        values: (Q,), or (T, Q) with NaN where a draw has no value; then draws are drawn anew as well as queries.
    """
    table, random = np.atleast_2d(np.asarray(values, dtype=np.float64)), np.random.default_rng(seed)
    is_there = ~np.isnan(table)
    filled, step = np.where(is_there, table, 0.0), max(1, BLOCK_BYTES // (8 * table.shape[1]))
    means = []
    for start in range(0, rounds, step):
        draws, queries = (_draw_again(size, min(step, rounds - start), random) for size in table.shape)
        # How often each draw and each query was drawn weighs its value; none of a round may be there.
        sums, counts = ((draws * (queries @ part.T)).sum(axis=1) for part in (filled, is_there))
        means.append(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.concatenate(means), [outside, 1 - outside])
    return float(low), float(high)


def _draw_again(size: int, rounds: int, random: np.random.Generator) -> np.ndarray:
    """(rounds, size) float64: how often each of `size` things comes up in `size` draws with replacement."""
    drawn = random.integers(size, size=(rounds, size)) + np.arange(rounds)[:, None] * size
    return np.bincount(drawn.reshape(-1), minlength=rounds * size).reshape(rounds, size).astype(np.float64)


def normalise(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32.

    Raises: ValueError if a row is zero or not finite, or there is none.
    """
    rows = np.asarray(rows, dtype=np.float32)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows must be (N, D) with N of 1 or more; they are {rows.shape}.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a row is zero or not finite; it points nowhere.")
    return rows / lengths


def encode_labels(labels: Sequence[str], count: int) -> np.ndarray:
    """Labels as (N,) int64 numbers from 0 on, in the labels' sorted order.

    Raises: ValueError if there are not `count` of them.
    """
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} rows.")
    return np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1].astype(np.int64)


def list_queries(codes: np.ndarray) -> np.ndarray:
    """The rows whose label another row has as well, (Q,) int64.

    Raises: ValueError if there is none.
    """
    queries = np.flatnonzero(np.bincount(codes)[codes] > 1)
    if not len(queries):
        raise ValueError("no label occurs twice; there is nothing to find.")
    return queries


def _rank_others(rows: np.ndarray, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of b queries: their rows (b,), all other rows by similarity (b, N - 1), similarities to all (b, N)."""
    step = max(1, BLOCK_BYTES // (4 * len(rows)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        similarities = rows[block] @ rows.T
        # The query itself comes last then, and is cut off.
        similarities[np.arange(len(block)), block] = -np.inf
        yield block, np.argsort(-similarities, axis=1, kind="stable")[:, :-1], similarities
