"""An approximate index, trained on a sample of a store's rows, filled, and written. Knows FAISS, as `index` does.

    sample -> reduction -> centres of the lists, code book -> all rows, piece by piece -> file

FAISS's factory, training and formats do the work, but for the matrix of the reduction. That one is PCA about zero and
not about the mean row: the product of two rows is what is asked for, and it is kept best by the directions in which
rows are long. It is found by subspace iteration (Halko et al., arXiv:0909.4061), where FAISS takes minutes for 3,712
numbers; and turned at random, so that every code has as much to tell (figures: docs/decisions/0009-search.md).

Rule: what held-out queries are measured with has no part in the training.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from indexer.index import CHUNK_BYTES, ApproximateIndex, decode, use_threads
from indexer.index_gpu import add_rows, assign_rows, train_lists
from indexer.recipes import Recipe

ROWS_FOR_A_LIST = 64
"""To train its centre with."""
LEAST_SAMPLE = 20_000
ITERATIONS, ROUNDS = 8, 10
"""Of the subspace iteration, and of k-means as FAISS does it."""
REDUCTION_ROWS = 16_384
"""Rows that the reduction is fitted on."""


class IndexMaker:
    """An index under way.

    Args:
        index: FAISS's, trained; as `train` and `open_trained` make it.
    """

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        self._index = index

    @property
    def rows(self) -> int:
        """Rows that are in it."""
        return self._index.ntotal

    def add(self, rows: np.ndarray) -> None:
        """Append (n, D) float16 rows: the first one is row number `rows`."""
        lists = faiss.extract_index_ivf(self._index).nlist
        for piece in _cut(rows):
            use_threads(len(piece) * lists)
            add_rows(self._index, piece)

    @property
    def lists(self) -> tuple[int, int]:
        """How many lists it has, and bytes of a row's code in them."""
        found = faiss.extract_index_ivf(self._index)
        return found.nlist, found.code_size

    def encode(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `add` would put into lists: (n,) int32, the list of each row, and (n, c) uint8 codes."""
        found = faiss.downcast_index(faiss.extract_index_ivf(self._index))
        reduction = faiss.downcast_VectorTransform(self._index.chain.at(0))
        lists, codes, first = np.empty(len(rows), np.int32), np.empty((len(rows), found.code_size), np.uint8), 0
        for piece in _cut(rows):
            use_threads(len(piece) * found.nlist)
            reduced, some = reduction.apply(piece), slice(first, first + len(piece))
            assigned = np.ascontiguousarray(assign_rows(found, reduced))
            given = (faiss.swig_ptr(values) for values in (reduced, assigned, codes[some]))
            found.encode_vectors(len(piece), *given)
            lists[some], first = assigned, some.stop
        return lists, codes

    def clear(self) -> None:
        """Take all rows out; it stays trained."""
        self._index.reset()

    def read_reduction(self) -> np.ndarray:
        """The matrix of the reduction, (reduced, D) float32, its rows of length 1 and at right angles."""
        reduction = faiss.downcast_VectorTransform(self._index.chain.at(0))
        return faiss.vector_to_array(reduction.A).reshape(reduction.d_out, reduction.d_in)

    def show(self) -> ApproximateIndex:
        """The index as it stands, to be asked."""
        return ApproximateIndex(self._index)

    def write(self, path: Path) -> None:
        """Write the file that `index.ApproximateIndex` reads."""
        # Through Python: FAISS's own writer says nothing of a disk that is full when it closes the file.
        with path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write, CHUNK_BYTES))


def train(recipe: Recipe, rows: np.ndarray, sample: np.ndarray) -> IndexMaker:
    """Train an index; none of the rows is in it yet.

    Args:
        rows: (N, D) float16.
        sample: ascending row numbers to train with (`count_sample`).
    """
    use_threads(len(sample) * recipe.lists * ROUNDS)
    reduction = _fit_reduction(rows, _thin(sample, REDUCTION_ROWS), recipe.reduced)
    index = faiss.index_factory(recipe.reduced, recipe.factory, faiss.METRIC_INNER_PRODUCT)
    reduced, first = np.empty((len(sample), recipe.reduced), np.float32), 0
    for piece in _cut(rows, sample):
        reduced[first : first + len(piece)] = reduction.apply(piece)
        first += len(piece)
    train_lists(index, reduced)
    index = faiss.IndexPreTransform(reduction, index)
    return IndexMaker(index)


def _fit_reduction(rows: np.ndarray, sample: np.ndarray, reduced: int) -> faiss.LinearTransform:
    """The directions in which the sample's rows are longest, in a random order and sense: (reduced, D)."""
    dimension, random = rows.shape[1], np.random.default_rng(0)
    directions = random.standard_normal((dimension, reduced), dtype=np.float32)
    for _ in range(ITERATIONS):
        # By the rows: their moments would be numbers by numbers, gigabytes for the widest of embeddings.
        directions, _ = np.linalg.qr(sum(piece.T @ (piece @ directions) for piece in _cut(rows, sample)))
    turn, _ = np.linalg.qr(random.standard_normal((reduced, reduced), dtype=np.float32))
    reduction = faiss.LinearTransform(dimension, reduced, False)
    faiss.copy_array_to_vector(np.ascontiguousarray((directions @ turn).T).ravel(), reduction.A)
    reduction.is_trained = True
    return reduction


def count_sample(recipe: Recipe) -> int:
    """Rows to train it with, if there are so many."""
    return max(LEAST_SAMPLE, ROWS_FOR_A_LIST * recipe.lists)


def open_trained(path: Path) -> IndexMaker:
    """An index that was written, to add to it; the file stays as it is. Raises: RuntimeError of FAISS."""
    return IndexMaker(faiss.read_index(os.fspath(path)))


def _thin(numbers: np.ndarray, most: int) -> np.ndarray:
    return numbers[:: max(1, -(-len(numbers) // most))]


def _cut(rows: np.ndarray, numbers: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Rows, or those of these numbers, as float32, in pieces that memory holds."""
    step = max(1, CHUNK_BYTES // (rows.shape[1] * 4))
    for first in range(0, len(rows if numbers is None else numbers), step):
        chosen = slice(first, first + step)
        yield decode(rows[chosen if numbers is None else numbers[chosen]])
