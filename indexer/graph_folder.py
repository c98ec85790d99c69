"""The neighbour graph of a generation on disk: for each row the rows nearest to it, in a folder of the generation.

    neighbours.i32    little-endian int32 (N, k), row numbers, nearest first; -1 where there are fewer
    similarities.f32  little-endian float32 (N, k), true cosines; -inf where there are fewer
    graph.json        which generation's, how it was made, how many rows are linked, their CRC-32, recall

It is derived, and no part of the generation's manifest: it may be deleted at any time. Rows are linked in order; how
far that has come is written after each batch, and it is a graph once `recall` is told.

Rule: bytes are on the disk before graph.json counts them, and what is counted is compared before it is used.
"""

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.errors import CollectionDamaged
from indexer.generations import Generation, compute_checksum
from seer_model.durable import make_folder, sync_folder, write_text_durably

SCHEMA_VERSION = 1
FOLDER, TOLD = "graph", "graph.json"
FILES = {"neighbours.i32": np.dtype("<i4"), "similarities.f32": np.dtype("<f4")}
READ_BYTES = 1 << 20


class Links(NamedTuple):
    """The lists of some rows that follow each other."""

    neighbours: np.ndarray
    """(n, k) int32 row numbers, nearest first, equals in the order of their rows; -1 where there are fewer."""
    similarities: np.ndarray
    """(n, k) float32 cosines; -inf where there are fewer."""


@dataclass(frozen=True)
class Graph:
    """A whole graph, its files mapped. An image that is gone keeps its row, and its place in lists."""

    links: Links
    recall: float
    made: dict
    """How it was made, as `GraphWriter` was told."""


class GraphWriter:
    """Appends lists; goes on from what is there, if that is whole and of the same making.

    Args:
        generation: whose graph.
        count: k.
        made: how it is made, JSON-able: lists of another making are not gone on with.
    """

    def __init__(self, generation: Generation, count: int, made: dict) -> None:
        self.folder, self._widths = generation.folder / FOLDER, _measure_widths(count)
        self._told = {
            "schema_version": SCHEMA_VERSION,
            "generation": generation.manifest["checksum"],
            "neighbours": count,
            "made": made,
            "rows": 0,
            "crc32": dict.fromkeys(FILES, 0),
            "recall": None,
        }
        there = _read_told(self.folder)
        if there and _name_making(there) == _name_making(self._told) and not _find_fault(self.folder, there):
            self._told = there
            self._drop_uncounted()
        else:
            self._begin()

    def _drop_uncounted(self) -> None:
        """What a batch has left that was killed before it was counted."""
        for name, width in self._widths.items():
            if (self.folder / name).stat().st_size > self.rows * width:
                os.truncate(self.folder / name, self.rows * width)

    def _begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        make_folder(self.folder)
        for name in self._widths:
            (self.folder / name).write_bytes(b"")
        sync_folder(self.folder)

    @property
    def rows(self) -> int:
        """Rows that are linked."""
        return self._told["rows"]

    @property
    def recall(self) -> float | None:
        """None until it is finished."""
        return self._told["recall"]

    def append(self, links: Links) -> None:
        """Add the lists of the next rows, and wait until they are on the disk."""
        crcs = {}
        for (name, kind), values in zip(FILES.items(), links, strict=True):
            data = np.ascontiguousarray(values, dtype=kind).tobytes()
            with (self.folder / name).open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            crcs[name] = zlib.crc32(data, self._told["crc32"][name])
        self._tell(rows=self.rows + len(links.neighbours), crc32=crcs)

    def read(self) -> Links:
        """What is linked so far, mapped."""
        return _map(self.folder, self._told)

    def finish(self, recall: float) -> None:
        """Say that all rows are linked: it is a graph from now on."""
        self._tell(recall=recall)

    def _tell(self, **changed: object) -> None:
        told = {key: value for key, value in {**self._told, **changed}.items() if key != "checksum"}
        self._told = {**told, "checksum": compute_checksum(told)}
        write_text_durably(self.folder / TOLD, json.dumps(self._told, indent=1))


def read_graph(generation: Generation) -> Graph | None:
    """The graph of a generation, every byte compared; None if there is none, or none that is finished.

    Raises: CollectionDamaged.
    """
    folder = generation.folder / FOLDER
    if fault := find_graph_fault(generation):
        raise CollectionDamaged(f"{fault} Run seer graph: it makes the neighbour graph anew.")
    told = _read_told(folder)
    if told is None or told["recall"] is None:
        return None
    return Graph(_map(folder, told), told["recall"], told["made"])


def read_sound(generation: Generation) -> Graph | None:
    """As `read_graph`; None, too, where it is not what was written, or is being made anew: it can be made again."""
    try:
        return read_graph(generation)
    except (CollectionDamaged, OSError, ValueError):
        return None


def read_stamp(generation: Generation) -> tuple[int, ...] | None:
    """Which graph it is: another one, or one that has come further, has another stamp. None if there is none."""
    try:
        status = (generation.folder / FOLDER / TOLD).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def find_graph_fault(generation: Generation) -> str | None:
    """What is wrong with a graph, as a sentence; None if nothing is: one that is not finished is none yet."""
    folder = generation.folder / FOLDER
    if not (folder / TOLD).exists():
        return None
    told = _read_told(folder)
    if told is None:
        return f"{folder / TOLD} is not what was written."
    if told["generation"] != generation.manifest["checksum"]:
        return f"{folder} is of another generation."
    return _find_fault(folder, told) if told["recall"] is not None else None


def remove_graph(generation: Generation) -> None:
    """It can be made again."""
    shutil.rmtree(generation.folder / FOLDER, ignore_errors=True)


def _read_told(folder: Path) -> dict | None:
    """What graph.json says; None if it says nothing that was written."""
    try:
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(told, dict) and told.get("checksum") == compute_checksum(told)
    return told if is_ours and told.get("schema_version") == SCHEMA_VERSION else None


def _name_making(told: dict) -> list:
    return [told[name] for name in ("generation", "neighbours", "made")]


def _find_fault(folder: Path, told: dict) -> str | None:
    for name, width in _measure_widths(told["neighbours"]).items():
        if _compute_crc(folder / name, told["rows"] * width) != told["crc32"][name]:
            return f"{folder / name} is not what was written: its checksum differs."
    return None


def _compute_crc(path: Path, size: int) -> int | None:
    """Of the first bytes of a file; None if it has fewer."""
    crc = 0
    try:
        with path.open("rb") as file:
            while size and (data := file.read(min(size, READ_BYTES))):
                crc, size = zlib.crc32(data, crc), size - len(data)
    except OSError:
        return None
    return None if size else crc


def _map(folder: Path, told: dict) -> Links:
    shape = told["rows"], told["neighbours"]
    if not shape[0]:
        return Links(*(np.empty(shape, dtype=kind) for kind in FILES.values()))  # An empty file cannot be mapped.
    return Links(*(np.memmap(folder / name, dtype=kind, mode="r", shape=shape) for name, kind in FILES.items()))


def _measure_widths(count: int) -> dict[str, int]:
    return {name: count * kind.itemsize for name, kind in FILES.items()}
