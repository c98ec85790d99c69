"""The store: one float16 row for each embedded image, appended and never rewritten.

    rows.f16   little-endian float16 (N, D), rows of length 1 before rounding
    norms.f32  little-endian float32 (N,), the length of each row as it stands in rows.f16
    crc.u32    little-endian uint32 (N,), CRC-32 of each row's bytes

No file has a header; N and D are in the catalog and in the manifest. A product with a row, divided by its norm, is a
true cosine: float16 alone leaves a row's product with itself between 0.99981 and 1.00024.

Rule: append and fsync here first, commit the row numbers to the catalog second.
"""

import os
import zlib
from pathlib import Path

import numpy as np

from indexer.errors import CollectionDamaged
from seer_model.durable import sync_folder

ROWS, NORMS, CRCS = "rows.f16", "norms.f32", "crc.u32"
ROW_TYPE, NORM_TYPE, CRC_TYPE = np.dtype("<f2"), np.dtype("<f4"), np.dtype("<u4")


def measure_row(dimension: int) -> int:
    """Bytes that one row takes in the three files together."""
    return dimension * ROW_TYPE.itemsize + NORM_TYPE.itemsize + CRC_TYPE.itemsize


class StoreWriter:
    """Appends to a store. Whatever lies behind the rows that the catalog knows is dropped first.

    Args:
        folder: the store's folder; made if it is not there.
        dimension: D.
        rows: N as the catalog knows it.
    """

    def __init__(self, folder: Path, dimension: int, rows: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._widths = {ROWS: dimension * ROW_TYPE.itemsize, NORMS: NORM_TYPE.itemsize, CRCS: CRC_TYPE.itemsize}
        self._files = {name: (folder / name).open("ab") for name in self._widths}
        self.rows = min(rows, *(self._count_whole_rows(name) for name in self._widths))
        """Rows in the store; fewer than asked for if a file is too short: the rest must be embedded again."""
        for name, width in self._widths.items():
            self._files[name].truncate(self.rows * width)
        sync_folder(folder)

    def _count_whole_rows(self, name: str) -> int:
        return os.fstat(self._files[name].fileno()).st_size // self._widths[name]

    def append(self, embeddings: np.ndarray) -> int:
        """Append rows and wait until they are on the disk.

        Args:
            embeddings: (B, D) float32, rows of length 1.
        Returns: the number of the first of them.
        """
        rows = np.ascontiguousarray(embeddings, dtype=ROW_TYPE)
        norms = np.linalg.norm(rows.astype(np.float64), axis=1).astype(NORM_TYPE)
        crcs = np.array([zlib.crc32(row.tobytes()) for row in rows], dtype=CRC_TYPE)
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
        self._folder = folder
        self.rows = _map(folder / ROWS, ROW_TYPE, (rows, dimension))
        self.norms = _map(folder / NORMS, NORM_TYPE, (rows,))
        self._crcs = _map(folder / CRCS, CRC_TYPE, (rows,))

    def read_embedding(self, row: int) -> np.ndarray:
        """One embedding, (D,) float32 of length 1. Raises: CollectionDamaged if its bytes have changed."""
        return self._read_checked(np.array([row]))[0]

    def compare(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """True cosines of a query with some rows.

        Args:
            query: (D,) float32 of length 1.
            rows: (k,) row numbers.
        Returns: (k,) float32 in [-1, 1].
        Raises: CollectionDamaged if the bytes of one of these rows have changed.
        """
        return np.clip(self._read_checked(rows) @ query, -1.0, 1.0)

    def _read_checked(self, rows: np.ndarray) -> np.ndarray:
        stored = self.rows[rows]
        for row, values in zip(rows, stored, strict=True):
            if zlib.crc32(values.tobytes()) != self._crcs[row]:
                raise CollectionDamaged(
                    f"Row {row} of {self._folder / ROWS} is not what was written: its checksum differs. "
                    f"Delete {self._folder} and run seer build again; the pictures are untouched."
                )
        return stored.astype(np.float32) / self.norms[rows][:, None]


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
