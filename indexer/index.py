"""FAISS over a store's rows, opened to be asked. Only `index_maker` and `index_gpu` know FAISS besides.

    ExactIndex        compares a query with every row, in the store's own mapped bytes: nothing is copied
    ApproximateIndex  rows reduced to a few bytes, in lists of which the nearest ones are looked through

Both propose rows; how similar they are is computed from the store (`vectors`).

Rule: parameters go with each question, never onto the index: any number of threads may ask.
"""

import math
import os
from pathlib import Path

import faiss
import numpy as np

from indexer.errors import CollectionDamaged
from indexer.index_gpu import add_nearest
from indexer.lists import BLOCK, ListsFile

CHUNK_BYTES = 64 << 20
PIECE_BYTES = 16 << 20
"""Of rows, as float32, that many questions are compared with at a time."""
WORTH_THREADS = 20_000_000
"""Comparisons of two rows from which on a second thread helps."""
BYTES_OF_A_COMPARISON = 8
"""Bytes of codes that count as much as one comparison of rows."""
SHARED_LISTS = 15
"""FAISS's number for a search whose lists are shared out among threads (IndexIVFFastScan.h, `implem`)."""
MOST_AT_ONCE = 2048
"""Neighbours that FAISS is asked for by number; beyond that, every row is compared and the best are picked."""
EVERYTHING = -math.inf
"""Below any product."""


def describe_faiss() -> dict:
    """What a bug report should know of FAISS, as JSON-able values."""
    return {
        "version": faiss.__version__,
        "compiled for": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }


class ExactIndex:
    """Every row there is.

    Args:
        rows: (N, D) float16, C-contiguous; it may be a memory map, and must not change while this is used.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        index = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        if len(rows):
            seen = faiss.swig_ptr(rows.view(np.uint8).reshape(-1))
            # The owner is nobody: `_rows` keeps the bytes where they are.
            index.codes = faiss.MaybeOwnedVectorUInt8.create_view(seen, rows.nbytes, index.codes.owner)
            index.ntotal = len(rows)
        self._index = index

    def search(self, query: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """The rows with the largest product, largest first.

        Args:
            query: (D,) float32.
            allowed: (N,) bool, the rows that may be answered; None: all.
        Returns: (k,) int64, k the smaller of `count` and the rows there are.
        """
        count = min(count, len(self._rows))
        if count > MOST_AT_ONCE:
            rows, products = self.find_above(query, EVERYTHING, allowed)
            return rows[np.lexsort((rows, -products))[:count]]
        if not count:
            return np.empty(0, dtype=np.int64)  # FAISS takes no question to nothing.
        use_threads(len(self._rows))
        _, rows = self._index.search(query[None], count, params=_select(allowed))
        return rows[0][rows[0] >= 0]

    def find_above(
        self, query: np.ndarray, least: float, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """All rows whose product with (D,) float32 is above `least`: (k,) int64 ascending, and (k,) float32."""
        if not len(self._rows):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        use_threads(len(self._rows))
        _, products, rows = self._index.range_search(query[None], least, params=_select(allowed))
        order = np.argsort(rows)
        return rows[order], products[order]


class ApproximateIndex:
    """Lists of reduced rows, as `index_maker` makes them.

    Args:
        index: FAISS's.
    """

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        self._index = index
        lists = faiss.downcast_index(index.index)
        self.lists = lists.nlist
        self._work = index.ntotal * lists.code_size // BYTES_OF_A_COMPARISON
        if self._work >= WORTH_THREADS:
            # One query alone is worth all cores, then: FAISS shares its lists out among them.
            lists.implem = SHARED_LISTS

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self._index.ntotal, self._index.d

    def search(self, queries: np.ndarray, count: int, probes: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """The rows that seem nearest.

        Args:
            queries: (Q, D) float32.
            probes: how many lists are looked through.
            allowed: (N,) bool, the rows that may be answered; None: all.
        Returns: (Q, count) int64, nearest first; -1 where these lists had no more.
        """
        use_threads(len(queries) * self._work)
        in_lists = faiss.SearchParametersIVF(nprobe=min(probes, self.lists), sel=_make_selector(allowed))
        _, rows = self._index.search(
            queries, min(count, self._index.ntotal), params=faiss.SearchParametersPreTransform(index_params=in_lists)
        )
        return rows

    def rank(
        self, queries: np.ndarray, count: int, probes: int, stored: ExactIndex, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, ordered by the products with the stored rows, where these lie: nothing is gathered.

        Returns: (Q, count) float32 products, largest first, and (Q, count) int64 rows; -inf and -1 where there is none.
        """
        use_threads(len(queries) * self._work)
        in_lists = faiss.SearchParametersIVF(nprobe=min(probes, self.lists), sel=_make_selector(allowed))
        params = faiss.IndexRefineSearchParameters(
            k_factor=1, base_index_params=faiss.SearchParametersPreTransform(index_params=in_lists)
        )
        refined = faiss.IndexRefine(self._index, stored._index)
        products, rows = refined.search(queries, min(count, self._index.ntotal), params=params)
        return np.where(rows < 0, -np.inf, products), rows


def open_approximate(path: Path, lists: Path | None = None) -> ApproximateIndex:
    """An index file. FAISS maps its centres alone, and reads the lists; a file of lists is mapped.

    Args:
        lists: where its lists lie, if they have a file of their own (`lists.ListsFile`).
    Raises: CollectionDamaged if FAISS cannot read it, or not as one of ours.
    """
    try:
        index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        if lists:
            _map_lists(index, lists)
        return ApproximateIndex(index)
    except (RuntimeError, AttributeError, ValueError, OSError) as error:
        raise CollectionDamaged(
            f"{lists or path} cannot be read as an index ({error}). Run seer check --repair: it makes the index anew."
        ) from None


def can_map_lists() -> bool:
    """Whether this FAISS has lists on a disk: it has none on Windows."""
    return hasattr(faiss, "OnDiskInvertedLists")


def _map_lists(index: faiss.IndexPreTransform, path: Path) -> None:
    """Let a trained index without rows look for them in a file of lists."""
    empty = faiss.downcast_index(index.index)
    found = ListsFile(path, empty.nlist, empty.code_size)
    mapped = faiss.OnDiskInvertedLists(empty.nlist, empty.code_size, os.fspath(path))
    mapped.read_only, mapped.totsize = True, found.size_bytes
    # By itself it starts 32 threads for each question, which read ahead what is about to be read.
    mapped.prefetch_nthread = 0
    mapped.lists.clear()
    for told in np.stack([found.sizes, found.blocks * BLOCK, found.places], axis=1).tolist():
        one = faiss.OnDiskOneList()
        one.size, one.capacity, one.offset = told
        mapped.lists.push_back(one)
    mapped.do_mmap()
    empty.replace_invlists(mapped, True)
    mapped.this.disown()
    index.ntotal = empty.ntotal = int(found.sizes.sum())


def find_nearest(
    rows: np.ndarray, norms: np.ndarray, queries: np.ndarray, count: int, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The exact answer to many questions at once, in bounded memory.

    Args:
        rows: (N, D) float16, with their norms (N,) float32.
        queries: (Q, D) float32, of length 1.
        chosen: row numbers that alone are compared; None: all.
    Returns: (Q, count) float32 cosines, largest first, and (Q, count) int64 rows, as places in `chosen` where that is
        given; -inf and -1 beyond N.
    """
    total = len(rows) if chosen is None else len(chosen)
    best = faiss.ResultHeap(len(queries), count, keep_max=True)
    step = max(1, PIECE_BYTES // (rows.shape[1] * 4))
    # The product has threads of its own, and FAISS's would only stand in their way.
    faiss.omp_set_num_threads(1)
    for first in range(0, total, step):
        some = slice(first, first + step) if chosen is None else chosen[first : first + step]
        add_nearest(best, queries, decode(rows[some]), norms[some], first)
    best.finalize()
    return np.where(best.I < 0, -np.inf, best.D), best.I


def decode(rows: np.ndarray) -> np.ndarray:
    """(n, D) float16 rows as float32: numpy takes half as long again."""
    decoder = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return decoder.sa_decode(rows.view(np.uint8))


def _make_selector(allowed: np.ndarray | None) -> faiss.IDSelector | None:
    return None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _select(allowed: np.ndarray | None) -> faiss.SearchParameters | None:
    return None if allowed is None else faiss.SearchParameters(sel=_make_selector(allowed))


def use_threads(comparisons: int) -> None:
    """As many threads as this work is worth, for the calling thread alone: it is said anew before each work.

    One question gains nothing from a second thread; and where the machine is busy with something else, threads that
    wait for each other take many times as long as one.
    """
    faiss.omp_set_num_threads(1 if comparisons < WORTH_THREADS else os.cpu_count() or 1)
