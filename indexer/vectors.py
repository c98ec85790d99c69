"""The store: one float16 row for each embedded image, appended and never rewritten.

    rows.f16   little-endian float16 (N, D), rows of length 1 before rounding
    norms.f32  little-endian float32 (N,), the length of each row as it stands in rows.f16
    crc.u32    little-endian uint32 (N,), CRC-32 of each row's bytes and its norm's

No file has a header; N and D are in the catalog and in the manifest. A product with a row, divided by its norm, is a
true cosine: float16 alone leaves a row's product with itself between 0.99981 and 1.00024.

Rule: append and fsync here first, commit the row numbers to the catalog second.
"""

import hashlib
import os
import shutil
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from indexer.errors import CollectionDamaged
from indexer.layout import ROWS
from seer_model.durable import make_folder, sync_file, sync_folder

COPY_BYTES = 1 << 20
COMPARED_BYTES = 16 << 20
"""Of rows that are compared at a time; some of it fits into a processor's caches."""
ROWS_AT_ONCE = 1024
NORMS, CRCS = "norms.f32", "crc.u32"
ROW_TYPE, NORM_TYPE, CRC_TYPE = np.dtype("<f2"), np.dtype("<f4"), np.dtype("<u4")


def measure_row(dimension: int) -> int:
    """Bytes that one row takes in the three files together."""
    return dimension * ROW_TYPE.itemsize + NORM_TYPE.itemsize + CRC_TYPE.itemsize


class StoreWriter:
    """Appends to a store. Whatever lies behind the rows that the catalog knows is dropped first.

    Args:
        folder: the store's folder; made if it is not there.
        dimension: D.
        rows: N as the catalog knows it; the files have that many at least (`count_rows`).
    """

    def __init__(self, folder: Path, dimension: int, rows: int) -> None:
        make_store(folder)
        for name, width in _measure_widths(dimension).items():
            (folder / name).touch()
            os.truncate(folder / name, rows * width)
        sync_folder(folder)
        self._files = {name: (folder / name).open("ab") for name in (ROWS, NORMS, CRCS)}
        self.rows = rows

    def append(self, embeddings: np.ndarray) -> int:
        """Append rows and wait until they are on the disk.

        Args:
            embeddings: (B, D) float32, rows of length 1.
        Returns: the number of the first of them.
        """
        rows = np.ascontiguousarray(embeddings, dtype=ROW_TYPE)
        norms = np.linalg.norm(rows.astype(np.float64), axis=1).astype(NORM_TYPE)
        crcs = np.array([_compute_crc(row, norm) for row, norm in zip(rows, norms, strict=True)], dtype=CRC_TYPE)
        for name, values in ((ROWS, rows), (NORMS, norms), (CRCS, crcs)):
            self._files[name].write(values.tobytes())
            self._files[name].flush()
            os.fsync(self._files[name].fileno())
        first = self.rows
        self.rows += len(rows)
        return first

    def close(self) -> None:
        """Give the files back."""
        for file in self._files.values():
            file.close()


class Store:
    """Reads the first `rows` rows of a store; what is appended later does not concern it.

    Raises: CollectionDamaged if a file is missing or too short.
    """

    def __init__(self, folder: Path, dimension: int, rows: int) -> None:
        self.folder = folder
        self.rows = _map(folder / ROWS, ROW_TYPE, (rows, dimension))
        self.norms = _map(folder / NORMS, NORM_TYPE, (rows,))
        self._crcs = _map(folder / CRCS, CRC_TYPE, (rows,))
        self._is_checked = np.zeros(rows, dtype=bool)

    @cached_property
    def shortest(self) -> float:
        """The least norm there is: no cosine exceeds its product by more than this divides."""
        return float(self.norms.min(initial=1.0))

    @cached_property
    def longest(self) -> float:
        """The largest norm there is: by it a product below zero is brought nearest to zero."""
        return float(self.norms.max(initial=1.0))

    def read_embedding(self, row: int) -> np.ndarray:
        """One embedding, (D,) float32 of length 1. Raises: CollectionDamaged if its bytes have changed."""
        return self.read_embeddings(np.array([row]))[0]

    def read_embeddings(self, rows: np.ndarray) -> np.ndarray:
        """As `read_embedding`, (..., D) float32 for (...) row numbers."""
        self.check(rows)
        return self.rows[rows].astype(np.float32) / self.norms[rows, None]

    def compare(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """True cosines of a query with some rows.

        Args:
            query: (D,) float32 of length 1.
            rows: (k,) row numbers.
        Returns: (k,) float32 in [-1, 1].
        Raises: CollectionDamaged if the bytes of one of these rows have changed.
        """
        # Not a matrix product: that one rounds a row differently in other company, and equal rows would not be equal.
        similarities = np.empty(len(rows), dtype=np.float32)
        step = max(1, COMPARED_BYTES // (self.rows.shape[1] * similarities.itemsize))
        for first in range(0, len(rows), step):
            piece = slice(first, first + step)
            similarities[piece] = (self.read_embeddings(rows[piece]) * query).sum(axis=1)
        return np.clip(similarities, -1.0, 1.0)

    def compare_many(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """True cosines of many rows, each with some others: to the bit what `compare` says of each.

        Args:
            rows: (n,) row numbers.
            others: (n, k) row numbers; -1 for none.
        Returns: (n, k) float32 in [-1, 1]; -inf for none. Raises: as `compare`.
        """
        similarities = np.empty(others.shape, dtype=np.float32)
        step = max(1, COMPARED_BYTES // (others.shape[1] * self.rows.shape[1] * similarities.itemsize))
        for first in range(0, len(rows), step):
            piece = slice(first, first + step)
            products = self.read_embeddings(np.maximum(others[piece], 0))
            products *= self.read_embeddings(rows[piece])[:, None]
            similarities[piece] = np.clip(products.sum(axis=2), -1.0, 1.0)
        return np.where(others < 0, -np.inf, similarities)

    def digest(self) -> str:
        """Equal for stores whose rows are equal, by their checksums."""
        return hashlib.sha256(self._crcs.tobytes()).hexdigest()

    def list_damaged(self, rows: np.ndarray) -> list[int]:
        """Those of these rows whose bytes are not what was written."""
        # Piece by piece: all rows together may be more than memory holds.
        pieces = (rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE))
        return [row for piece in pieces for row in self._list_damaged(piece)]

    def _list_damaged(self, rows: np.ndarray) -> list[int]:
        checked = zip(rows.tolist(), self.rows[rows], self.norms[rows], self._crcs[rows], strict=True)
        return [row for row, values, norm, crc in checked if _compute_crc(values, norm) != crc]

    def check(self, rows: np.ndarray) -> None:
        """Compare rows with their checksums, each before it is first used. Raises: CollectionDamaged."""
        rows = rows[~self._is_checked[rows]]
        if damaged := self.list_damaged(rows):
            raise CollectionDamaged(
                f"Row {damaged[0]} of {self.folder / ROWS} is not what was written: its checksum differs. "
                "Run seer check --repair; the pictures are untouched."
            )
        self._is_checked[rows] = True


def make_store(folder: Path) -> None:
    """Make the folder of a store, unless it is there; its name, and that of the folder of stores, are on the disk."""
    make_folder(folder.parent)
    make_folder(folder)


def count_rows(folder: Path, dimension: int) -> int:
    """Rows that are whole in all three files of a store; 0 if it is not there."""
    try:
        return min((folder / name).stat().st_size // width for name, width in _measure_widths(dimension).items())
    except FileNotFoundError:
        return 0


def copy_rows(source: Path, target: Path, dimension: int, rows: int) -> None:
    """Begin a new store with the first rows of another; what lies there is of a change that was cut off."""
    shutil.rmtree(target, ignore_errors=True)
    make_store(target)
    for name, width in _measure_widths(dimension).items() if rows else ():
        with (source / name).open("rb") as old, (target / name).open("wb") as new:
            shutil.copyfileobj(old, new, COPY_BYTES)
            new.truncate(rows * width)
        sync_file(target / name)
    sync_folder(target)


def pick_rows(source: Path, target: Path, dimension: int, rows: np.ndarray) -> None:
    """Make a new store of some rows of another, to the byte, and wait until it is on the disk.

    Args:
        rows: (M,) int64, rising.
    Raises: CollectionDamaged if one of them is not what was written.
    """
    store = Store(source, dimension, int(rows[-1]) + 1 if len(rows) else 0)
    store.check(rows)
    make_store(target)
    parts = {ROWS: (ROW_TYPE, (dimension,)), NORMS: (NORM_TYPE, ()), CRCS: (CRC_TYPE, ())}
    for name, (kind, shape) in parts.items():
        values = _map(source / name, kind, (store.rows.shape[0], *shape))
        with (target / name).open("wb") as file:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                file.write(values[rows[start : start + ROWS_AT_ONCE]].tobytes())
        sync_file(target / name)
    sync_folder(target)


def _measure_widths(dimension: int) -> dict[str, int]:
    return {ROWS: dimension * ROW_TYPE.itemsize, NORMS: NORM_TYPE.itemsize, CRCS: CRC_TYPE.itemsize}


def _compute_crc(row: np.ndarray, norm: np.floating) -> int:
    return zlib.crc32(norm.tobytes(), zlib.crc32(row.tobytes()))


def _map(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if shape[0] == 0:
        return np.empty(shape, dtype=kind)  # An empty file cannot be mapped.
    try:
        return np.memmap(path, dtype=kind, mode="r", shape=shape)
    except (OSError, ValueError):
        found = path.stat().st_size if path.is_file() else "no"
        needed = int(np.prod(shape)) * kind.itemsize
        raise CollectionDamaged(
            f"{path} has {found} bytes where {needed} are needed. Run seer build again: it embeds what is missing."
        ) from None
