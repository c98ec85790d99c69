"""Inverted lists on the disk: of one part of the rows, and of all rows, as FAISS maps them.

    part   where the lists end, codes by lists, places of rows by lists, CRC-32: what one task makes of a range of rows
    lists  where the lists end, then for each list its codes in blocks of 32 and its row numbers, padded to 64 bytes

FAISS scans four-bit codes 32 rows at a time and lays them out for that (`pq4_pack_codes` in facebookresearch/faiss).
Its lists on a disk (`OnDiskInvertedLists`) take any bytes: codes first, row numbers where the capacity ends. So a list
whose capacity is a multiple of 32 is scanned where it lies. FAISS's `merge_ondisk` refuses lists in blocks, and merging
rows of several means to lay them out anew (docs/decisions/0014-index-in-parts.md).

Rule: rows stand in each list in the order of their numbers, however many parts they came from.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 32
"""Rows that are scanned together."""
ALIGNED = 64
"""Bytes at whose multiples a list begins: those of the widest register."""
NEAR = (0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15)
FAR = (16, 24, 17, 25, 18, 26, 19, 27, 20, 28, 21, 29, 22, 30, 23, 31)
"""Rows of a block as they stand in its bytes: those of one half in the lower four bits, of the other in the upper."""
WRITTEN_ROWS = 1 << 16
"""Rows of a part that are put in order at a time."""
NUMBER, PLACE, ROW, CRC = np.dtype("<u8"), np.dtype("<u4"), np.dtype("<i8"), np.dtype("<u4")


def pack(codes: np.ndarray) -> np.ndarray:
    """(n, c) uint8 codes, two numbers of four bits in each byte, as blocks: (b, 32 c) uint8, zeros behind the last."""
    rows, width = codes.shape
    whole = np.zeros((count_blocks(rows) * BLOCK, width), np.uint8)
    whole[:rows] = codes
    columns = whole.reshape(-1, BLOCK, width).transpose(0, 2, 1)
    near, far = columns[:, :, NEAR], columns[:, :, FAR]
    blocks = np.empty((len(columns), width, 2, BLOCK // 2), np.uint8)
    blocks[:, :, 0] = (near & 15) | (far << 4)
    blocks[:, :, 1] = (near >> 4) | (far & 0xF0)
    return blocks.reshape(-1, BLOCK * width)


def unpack(blocks: np.ndarray, rows: int) -> np.ndarray:
    """The first codes of (b, 32 c) blocks, (rows, c): what `pack` was given."""
    width = blocks.shape[1] // BLOCK
    low, high = blocks.reshape(-1, width, 2, BLOCK // 2).transpose(2, 0, 1, 3)
    columns = np.empty((len(blocks), width, BLOCK), np.uint8)
    columns[:, :, NEAR] = (low & 15) | (high << 4)
    columns[:, :, FAR] = (low >> 4) | (high & 0xF0)
    return columns.transpose(0, 2, 1).reshape(-1, width)[:rows]


def count_blocks(rows: int | np.ndarray) -> int | np.ndarray:
    """Blocks that so many rows take."""
    return -(-rows // BLOCK)


def write_part(path: Path, lists: np.ndarray, codes: np.ndarray, count: int) -> None:
    """Write the lists of a range of rows.

    Args:
        lists: (n,) int32, the list that each row belongs to, of `count` lists.
        codes: (n, c) uint8.
    """
    order = np.argsort(lists, kind="stable").astype(PLACE)
    with path.open("wb") as file:
        crc = 0
        for piece in _list_pieces(lists, codes, count, order):
            crc = zlib.crc32(piece, crc)
            file.write(piece)
        file.write(np.array(crc, CRC).tobytes())


def _list_pieces(lists: np.ndarray, codes: np.ndarray, count: int, order: np.ndarray) -> Iterator[bytes]:
    yield np.cumsum(np.bincount(lists, minlength=count)).astype(NUMBER).tobytes()
    for first in range(0, len(order), WRITTEN_ROWS):
        yield codes[order[first : first + WRITTEN_ROWS]].tobytes()
    yield order.tobytes()


@dataclass(frozen=True)
class Part:
    """The lists of a range of rows, mapped."""

    first: int
    """The number of its first row."""
    ends: np.ndarray
    """(lists,) int64: rows up to the end of each list."""
    codes: np.ndarray
    places: np.ndarray

    def read_list(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, c) uint8 codes, and (n,) int64 row numbers, ascending."""
        chosen = slice(self.ends[number - 1] if number else 0, self.ends[number])
        return self.codes[chosen], self.places[chosen].astype(ROW) + self.first


def read_part(path: Path, first: int, rows: int, lists: int, width: int) -> Part | None:
    """A part of `rows` rows, every byte compared with its checksum; None if it is not there, or not whole."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError):
        return None
    head, size_bytes = lists * NUMBER.itemsize, measure_part(rows, lists, width)
    end = size_bytes - CRC.itemsize
    if len(data) != size_bytes or zlib.crc32(data[:end]) != int(data[end:].view(CRC)[0]):
        return None
    codes = data[head : head + rows * width].reshape(rows, width)
    return Part(first, data[:head].view(NUMBER).astype(np.int64), codes, data[head + rows * width : end].view(PLACE))


class ListsFile:
    """The lists of all rows, mapped.

    Args:
        lists, width: how many lists there are, and bytes of a code.
    Raises: ValueError if the file does not fit that; OSError.
    """

    def __init__(self, path: Path, lists: int, width: int) -> None:
        self.path, self._width = path, width
        self._data = np.memmap(path, np.uint8, mode="r")
        head = _pad(lists * NUMBER.itemsize)
        if len(self._data) < head:
            raise ValueError(f"it has {len(self._data)} bytes, and its {lists} lists begin at {head}")
        ends = self._data[: lists * NUMBER.itemsize].view(NUMBER).astype(np.int64)
        self.sizes = np.diff(ends, prepend=0)
        """(lists,) int64: rows in each."""
        takes = self.blocks * (BLOCK * width) + _pad(self.sizes * ROW.itemsize)
        self.places = head + np.cumsum(takes) - takes
        """(lists,) int64: the byte at which each begins."""
        if (self.sizes < 0).any() or len(self._data) != head + takes.sum():
            raise ValueError(f"it has {len(self._data)} bytes where its lists need {head + takes.sum()}")

    @property
    def blocks(self) -> np.ndarray:
        """(lists,) int64: blocks of codes in each."""
        return count_blocks(self.sizes)

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return len(self._data)

    def read_list(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(b, 32 c) uint8 blocks that are full, (n, c) codes in the one that is not, (m,) int64 row numbers of all."""
        begin, rows, block_bytes = self.places[number], self.sizes[number], BLOCK * self._width
        end = begin + count_blocks(rows) * block_bytes
        blocks, (full, rest) = self._data[begin:end].reshape(-1, block_bytes), divmod(rows, BLOCK)
        numbers = self._data[end : end + rows * ROW.itemsize].view(ROW)
        return blocks[:full], unpack(blocks[full:], rest), numbers


def measure_part(rows: int, lists: int, width: int) -> int:
    """Bytes of a part."""
    return lists * NUMBER.itemsize + rows * (width + PLACE.itemsize) + CRC.itemsize


def measure_lists(rows: int, lists: int, width: int) -> int:
    """Bytes of the lists of all rows, at most: the last block of each may be all but empty."""
    return rows * (width + ROW.itemsize) + lists * (BLOCK * width + ALIGNED + NUMBER.itemsize) + ALIGNED


def merge(path: Path, lists: int, width: int, parts: Sequence[Part], before: ListsFile | None = None) -> None:
    """Write the lists of parts, given in the order of their rows, behind those of the file before; list by list."""
    sizes = sum(np.diff(part.ends, prepend=0) for part in parts) + (before.sizes if before else 0)
    with path.open("wb") as file:
        _write_padded(file, np.cumsum(sizes).astype(NUMBER))
        for number in range(lists):
            _merge_list(file, number, width, parts, before)


def _merge_list(file: BinaryIO, number: int, width: int, parts: Sequence[Part], before: ListsFile | None) -> None:
    found = [part.read_list(number) for part in parts]
    full = np.empty((0, BLOCK * width), np.uint8)
    if before:
        full, rest, old = before.read_list(number)
        found.insert(0, (rest, old))
    file.write(full.tobytes())
    file.write(pack(np.concatenate([codes for codes, _ in found])).tobytes())
    _write_padded(file, np.concatenate([numbers for _, numbers in found]))


def _write_padded(file: BinaryIO, values: np.ndarray) -> None:
    file.write(values.tobytes())
    file.write(bytes(_pad(values.nbytes) - values.nbytes))


def _pad(size_bytes: int | np.ndarray) -> int | np.ndarray:
    return -(-size_bytes // ALIGNED) * ALIGNED
