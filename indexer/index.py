"""The FAISS index over a store's rows. The only module that knows FAISS.

Here: the exact inner product of rows of length 1, which is the cosine.

Rule: derived from the store, and may be deleted; it proposes rows, the store says how similar they are.
"""

import os
from pathlib import Path

import faiss
import numpy as np

from indexer.errors import CollectionDamaged

KIND = "exact inner product"
CHUNK_BYTES = 64 << 20


def describe_faiss() -> dict:
    """What a bug report should know of FAISS, as JSON-able values."""
    return {
        "version": faiss.__version__,
        "compiled for": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }


def build_index(rows: np.ndarray, norms: np.ndarray, path: Path) -> None:
    """Write an index over rows (N, D) float16 with their norms (N,) float32."""
    index = faiss.IndexFlatIP(rows.shape[1])
    step = max(1, CHUNK_BYTES // (rows.shape[1] * 4))
    for first in range(0, len(rows), step):
        index.add(rows[first : first + step].astype(np.float32) / norms[first : first + step, None])
    # Through Python: FAISS's own writer says nothing of a disk that is full when it closes the file.
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, CHUNK_BYTES))


class RowIndex:
    """Proposes the rows nearest to a query; safe from several threads (parameters go with each query)."""

    def __init__(self, path: Path) -> None:
        # Two OpenMP runtimes live in a process that also runs torch: each is bounded to the processors there are.
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        try:
            self._index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise CollectionDamaged(
                f"{path} cannot be read as an index ({error}). Run seer check --repair: it makes the index anew."
            ) from None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self._index.ntotal, self._index.d

    def search(self, query: np.ndarray, count: int) -> np.ndarray:
        """Up to `count` rows, nearest first.

        Args:
            query: (D,) float32 of length 1.
        Returns: (k,) int64, k = the smaller of `count` and N.
        """
        if not self._index.ntotal:
            return np.empty(0, dtype=np.int64)  # FAISS takes no question to nothing.
        _, rows = self._index.search(query[None], min(count, self._index.ntotal))
        return rows[0]
