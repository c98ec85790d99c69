"""Other ways to find the nearest rows, as their users would make them: what our index is measured beside.

    FAISS flat, fp32     every row compared, in fp32
    FAISS flat, fp16     every row compared, in fp16: what a row of the store is
    FAISS HNSW32         a graph, from FAISS's factory
    autofaiss            the index that autofaiss would choose for so many rows and so much memory
    hnswlib, usearch     graphs, 32 links, else as these libraries make them

Rule: a library that is not here, or an index that would take too long or too much memory, is told as absent with the
reason and is no error.
"""

import importlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexer.vectors import Store

PIECE_ROWS = 16_384
MOST_NUMBERS_IN_A_GRAPH = 400_000_000
"""Rows times dimension: beyond it a graph takes hours to build."""
LINKS = 32
WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
"""Of a graph: candidates that are kept while it is walked."""
PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CODE_BYTES = (256, 128, 64, 48, 32, 24, 16, 8, 4)
"""Sizes of product codes that autofaiss tries."""
TRAINING_ROWS = (31, 100)
"""For each list, at least and at most, as autofaiss has it."""


class Absent(Exception):
    """A peer cannot take part; the text says why."""


@dataclass(frozen=True)
class Peer:
    """One library's index."""

    name: str
    build: Callable[[Store, Path, int], str]
    """Makes a file of a store's rows, with so many bytes of memory for the index, and tells what it is."""
    open: Callable[[Store, Path], Any]
    """What `search` is given."""
    search: Callable[[Any, np.ndarray, int, int], np.ndarray]
    """The index, a (D,) query, how many, how wide: -> (k,) rows."""
    settings: tuple[int, ...] = (0,)
    """Widths to try; of what has none, one that means nothing."""
    require: Callable[[Store, int], None] = lambda store, memory_bytes: None
    """Raises Absent."""


def list_pieces(store: Store) -> Iterator[np.ndarray]:
    """(n, D) float32 of length 1."""
    for first in range(0, len(store.rows), PIECE_ROWS):
        piece = slice(first, first + PIECE_ROWS)
        yield store.rows[piece].astype(np.float32) / store.norms[piece, None]


def use_all_cores() -> None:
    """FAISS's threads, for whoever is timed next in this thread."""
    faiss.omp_set_num_threads(os.cpu_count() or 1)


# --- FAISS -------------------------------------------------------------------------------------------------------


def choose_as_autofaiss(rows: int, dimension: int, memory_bytes: int) -> str:
    """The factory string that autofaiss 2.15 tries first for so many rows (`get_optimal_index_keys_v2`).

    Flat below 1,000 rows, HNSW15 below 10,000; else a graph of up to 32 links, if it fits; else lists of whole rows,
    below a million rows and if they fit; else product codes, the longest that fit, after a rotation.
    """
    if rows < 1_000:
        return "Flat"
    if rows < 10_000:
        return "HNSW15"
    links = math.floor((memory_bytes / (4 * rows) - dimension) / 2)
    if links >= 8:
        return f"HNSW{min(links, 32)}"
    lists = _choose_lists_as_autofaiss(rows)
    if rows < 1_000_000 and rows * (4 * dimension + 8) + lists * 4 * dimension <= memory_bytes:
        return f"IVF{lists},Flat"
    fitting = (size for size in CODE_BYTES if size < dimension and rows * (size + 8) <= memory_bytes)
    size = next(fitting, None)
    if size is None:
        raise Absent(f"autofaiss has no index of {rows:,} rows within {memory_bytes:,} bytes")
    graph = "_HNSW32" if lists >= 1000 else ""
    return f"OPQ{size}_{(min(dimension // size, 6) + 1) * size},IVF{lists}{graph},PQ{size}x8"


def _choose_lists_as_autofaiss(rows: int) -> int:
    if rows < 1_000_000:
        return 2 ** round(math.log2(4 * math.sqrt(rows)))
    return 16_384 if rows < 10_000_000 else 65_536 if rows < 300_000_000 else 131_072


def _build_by_factory(name: str) -> Callable[[Store, Path, int], str]:
    def build(store: Store, path: Path, memory_bytes: int) -> str:
        use_all_cores()
        rows, dimension = store.rows.shape
        spelled = name or choose_as_autofaiss(rows, dimension, memory_bytes)
        index = faiss.index_factory(dimension, spelled, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_draw_sample(store, faiss.extract_index_ivf(index).nlist, memory_bytes))
        for piece in list_pieces(store):
            index.add(piece)
        faiss.write_index(index, os.fspath(path))
        return spelled

    return build


def _draw_sample(store: Store, lists: int, memory_bytes: int) -> np.ndarray:
    least, most = (lists * rows for rows in TRAINING_ROWS)
    count = min(len(store.rows), max(least, min(most, memory_bytes // (4 * store.rows.shape[1]))))
    chosen = np.sort(np.random.default_rng(0).permutation(len(store.rows))[:count])
    return store.rows[chosen].astype(np.float32) / store.norms[chosen, None]


def _open_faiss(_: Store, path: Path) -> faiss.Index:
    return faiss.read_index(os.fspath(path))


def _search_faiss(index: faiss.Index, query: np.ndarray, count: int, width: int) -> np.ndarray:
    return index.search(query[None], count, params=_make_parameters(index, width))[1][0]


def _make_parameters(index: faiss.Index, width: int) -> faiss.SearchParameters | None:
    """How wide an index is searched, whatever it is."""
    if isinstance(index, faiss.IndexPreTransform):
        inner = _make_parameters(faiss.downcast_index(index.index), width)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=width)
    if isinstance(index, faiss.IndexIVF):
        # autofaiss walks the graph over the lists twice as wide as it looks through lists.
        is_graph = isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW)
        over_lists = faiss.SearchParametersHNSW(efSearch=max(32, 2 * width)) if is_graph else None
        return faiss.SearchParametersIVF(nprobe=width, quantizer_params=over_lists)
    return None


def _require_graph(store: Store, memory_bytes: int) -> None:
    if store.rows.size > MOST_NUMBERS_IN_A_GRAPH:
        raise Absent(f"a graph of {len(store.rows):,} rows of {store.rows.shape[1]:,} numbers takes hours to build")
    _require_memory(store, 4 * store.rows.size, memory_bytes)


def _require_autofaiss(store: Store, memory_bytes: int) -> None:
    if choose_as_autofaiss(*store.rows.shape, memory_bytes) == "HNSW32":
        raise Absent("it would choose HNSW32, which takes part by that name")


def _require_memory(store: Store, needed: int, memory_bytes: int) -> None:
    if needed > memory_bytes:
        raise Absent(f"{needed / 1e9:,.1f} GB of memory, and --memory is {memory_bytes / 1e9:,.1f} GB")


# --- graphs of other libraries -----------------------------------------------------------------------------------


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"it cannot be imported ({error})") from error


def _require(name: str) -> Callable[[Store, int], None]:
    def require(store: Store, memory_bytes: int) -> None:
        _import(name)
        _require_graph(store, memory_bytes)

    return require


def _build_hnswlib(store: Store, path: Path, _: int) -> str:
    index = _import("hnswlib").Index(space="ip", dim=store.rows.shape[1])
    index.init_index(max_elements=len(store.rows), M=LINKS, random_seed=0)
    for piece in list_pieces(store):
        index.add_items(piece, num_threads=os.cpu_count())
    index.save_index(os.fspath(path))
    return f"M={LINKS}, ef_construction={index.ef_construction}"


def _open_hnswlib(store: Store, path: Path) -> Any:
    index = _import("hnswlib").Index(space="ip", dim=store.rows.shape[1])
    index.load_index(os.fspath(path), max_elements=len(store.rows))
    return index


def _search_hnswlib(index: Any, query: np.ndarray, count: int, width: int) -> np.ndarray:
    index.set_ef(max(width, count))
    return index.knn_query(query[None], k=count, num_threads=1)[0][0].astype(np.int64)


def _build_usearch(store: Store, path: Path, _: int) -> str:
    index = _make_usearch(store)
    for number, piece in enumerate(list_pieces(store)):
        first = number * PIECE_ROWS
        index.add(np.arange(first, first + len(piece)), piece, threads=os.cpu_count())
    index.save(os.fspath(path))
    return f"connectivity={LINKS}, expansion_add={index.expansion_add}"


def _make_usearch(store: Store) -> Any:
    _import("usearch")
    from usearch.index import Index

    return Index(ndim=store.rows.shape[1], metric="ip", dtype="f32", connectivity=LINKS)


def _open_usearch(store: Store, path: Path) -> Any:
    index = _make_usearch(store)
    index.load(os.fspath(path))
    return index


def _search_usearch(index: Any, query: np.ndarray, count: int, width: int) -> np.ndarray:
    index.expansion_search = max(width, count)
    return np.asarray(index.search(query, count, threads=1).keys, dtype=np.int64)


FLAT_32, FLAT_16, AUTOFAISS = "FAISS flat, fp32", "FAISS flat, fp16", "autofaiss"
PEERS = (
    Peer(
        FLAT_32, _build_by_factory("Flat"), _open_faiss, _search_faiss,
        require=lambda store, memory_bytes: _require_memory(store, 4 * store.rows.size, memory_bytes),
    ),
    Peer(FLAT_16, _build_by_factory("SQfp16"), _open_faiss, _search_faiss),
    Peer("FAISS HNSW32", _build_by_factory("HNSW32"), _open_faiss, _search_faiss, WIDTHS, _require_graph),
    Peer(AUTOFAISS, _build_by_factory(""), _open_faiss, _search_faiss, PROBES, _require_autofaiss),
    Peer("hnswlib", _build_hnswlib, _open_hnswlib, _search_hnswlib, WIDTHS, _require("hnswlib")),
    Peer("usearch", _build_usearch, _open_usearch, _search_usearch, WIDTHS, _require("usearch")),
)  # fmt: skip
"""All of them; the exact ones first."""
