"""FAISS on a GPU, where it has one: k-means of a training, and exact answers to many questions.

An index is made for the CPU in any case, and stored and asked there: what the GPU does is over before it is written.

Rule: one thread owns the GPU's resources, whoever asks; and they are bounded.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import faiss
import numpy as np

SCRATCH_BYTES = 512 << 20
"""What FAISS may keep for intermediate results; by itself it takes 1.5 GB."""


def has_gpu() -> bool:
    """Whether FAISS can use one."""
    return faiss.get_num_gpus() > 0


def find_nearest_piece(queries: np.ndarray, piece: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest products of (Q, D) with (n, D), both float32: (Q, count) float32 and (Q, count) int64."""
    return _own().submit(_search, queries, piece, count).result()


def train_lists(index: faiss.IndexIVF, reduced: np.ndarray) -> None:
    """Train lists on (S, d) float32 rows, the nearest centres found on the GPU."""
    _own().submit(_train, index, reduced).result()


@cache
def _own() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="gpu")


@cache
def _open_resources() -> faiss.StandardGpuResources:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    return resources


def _search(queries: np.ndarray, piece: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    return faiss.knn_gpu(_open_resources(), queries, piece, count, metric=faiss.METRIC_INNER_PRODUCT)


def _train(index: faiss.IndexIVF, reduced: np.ndarray) -> None:
    index.clustering_index = faiss.index_cpu_to_gpu(_open_resources(), 0, faiss.IndexFlatIP(index.d))
    index.train(reduced)
    index.clustering_index = None
