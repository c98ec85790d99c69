"""FAISS on a GPU, where it has one: k-means of a training, which list a row belongs to, exact answers to questions.

An index is made for the CPU in any case, and stored and asked there: what the GPU does is over before it is written.
What a GPU cannot do - its memory is another program's, its driver fails - the CPU does, and a GPU that failed is not
asked again.

Rule: one thread owns the GPU's resources, whoever asks; and they are bounded.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import faiss
import numpy as np

SCRATCH_BYTES = 512 << 20
"""What FAISS may keep for intermediate results; by itself it takes 1.5 GB."""

Found = TypeVar("Found")

log = logging.getLogger(__name__)
_failed: list[str] = []
"""What a GPU failed with, as FAISS says it."""


def add_nearest(
    best: faiss.ResultHeap, queries: np.ndarray, piece: np.ndarray, norms: np.ndarray, first: int
) -> None:
    """Let a piece of the rows compete: (n, D) float32, their norms (n,), the first of them row number `first`.

    Args:
        best: keeps the largest cosines with (Q, D) float32 queries of length 1.
    """

    def ask_gpu() -> tuple[np.ndarray, np.ndarray]:
        rows, count = piece / norms[:, None], min(best.k, len(piece))
        return faiss.knn_gpu(_open_resources(), queries, rows, count, metric=faiss.METRIC_INNER_PRODUCT)

    found = _run(ask_gpu, lambda: None)
    if found:
        best.add_result(found[0], found[1] + first)
        return
    # numpy's product: FAISS's own takes four times as long with a hundred queries.
    cosines = queries @ piece.T
    cosines /= norms
    best.heaps.addn(len(piece), faiss.swig_ptr(cosines), first)


def train_lists(index: faiss.IndexIVF, reduced: np.ndarray) -> None:
    """Train lists on (S, d) float32 rows, the nearest centres found on the GPU."""

    def train_on_gpu() -> None:
        index.clustering_index = faiss.index_cpu_to_gpu(_open_resources(), 0, faiss.IndexFlatIP(index.d))
        try:
            index.train(reduced)
        finally:
            index.clustering_index = None

    _run(train_on_gpu, lambda: index.train(reduced))


def add_rows(index: faiss.IndexPreTransform, rows: np.ndarray) -> None:
    """Append (n, D) float32 rows, the list of each found on the GPU."""

    def add_with_gpu() -> None:
        lists = faiss.extract_index_ivf(index)
        centres = lists.quantizer
        lists.quantizer = faiss.index_cpu_to_gpu(_open_resources(), 0, centres)
        try:
            index.add(rows)
        finally:
            lists.quantizer = centres

    _run(add_with_gpu, lambda: index.add(rows))


def assign_rows(index: faiss.IndexIVF, reduced: np.ndarray) -> np.ndarray:
    """The list of each of (n, d) float32 reduced rows, found on the GPU: (n,) int64."""

    def assign_on_gpu() -> np.ndarray:
        centres = faiss.index_cpu_to_gpu(_open_resources(), 0, index.quantizer)
        return centres.search(reduced, 1)[1][:, 0]

    return _run(assign_on_gpu, lambda: index.quantizer.search(reduced, 1)[1][:, 0])


def _run(on_gpu: Callable[[], Found], on_cpu: Callable[[], Found]) -> Found:
    if not _failed and faiss.get_num_gpus() > 0:
        try:
            return _own().submit(on_gpu).result()
        except RuntimeError as error:
            _failed.append(str(error))
            log.warning("FAISS goes on without the GPU: %s", str(error).strip().partition("\n")[0])
    return on_cpu()


@cache
def _own() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="gpu")


@cache
def _open_resources() -> faiss.StandardGpuResources:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    return resources
