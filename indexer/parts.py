"""An index of many rows, made in parts: memory holds the rows of one, and the lists of all are searched where they lie.

    sample -> trained, without rows -> parts, each of a range of rows -> one file of lists, merged -> mapped

The parts lie in the store's folder until a generation is published. A build that was killed goes on with those that
are there, also on other nodes of a cluster.

Rule: a part is named after the trained index and the rows that it is made of, written aside, and read back by its
checksum; what is not whole is made anew.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import CollectionUnwritable, DiskTooSmall
from indexer.lists import ListsFile, Part, measure_lists, measure_part, merge, read_part, write_part
from indexer.recipes import Recipe
from indexer.vectors import Store
from seer_model.durable import make_folder, sync_folder, write_durably

if TYPE_CHECKING:
    from indexer.index import ApproximateIndex
    from indexer.index_maker import IndexMaker

PART_ROWS = 1 << 22
"""Rows of a part, half a gigabyte to one of codes; up to as many make an index that memory holds, in one file."""
PARTS, LISTS = "parts", "index.lists"
"""Where parts lie in a store's folder; the lists of all rows in a generation's."""
KEY_LETTERS = 16


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """A part that is to be made: paths and numbers, for whoever reaches the collection's folder."""

    store: Path
    dimension: int
    trained: Path
    """A trained index without rows; its name ends with the hash of its bytes."""
    first: int
    last: int
    """The rows before this one."""
    part: Path

    def is_reached(self) -> bool:
        """Whether the trained index and the rows are there, seen from this computer."""
        try:
            return _name_bytes(self.trained) == self.trained.stem.rpartition("-")[2] and self.store.is_dir()
        except OSError:
            return False


FillParts = Callable[[Sequence[PartTask]], object]
"""Makes parts elsewhere; those that it cannot make it leaves undone."""


def fill_part(task: PartTask) -> None:
    """Make one part. Raises: OSError; CollectionDamaged if the store is too short."""
    from indexer.index_maker import open_trained

    maker = open_trained(task.trained)
    lists, codes = maker.encode(Store(task.store, task.dimension, task.last).rows[task.first :])
    write_durably(task.part, partial(write_part, lists=lists, codes=codes, count=maker.lists[0]))


def fill_if_reached(task: PartTask) -> None:
    """Make one part, where its folder can be reached."""
    if task.is_reached():
        fill_part(task)


def is_large(rows: int) -> bool:
    """Whether an index of so many rows is made in parts."""
    from indexer.index import can_map_lists

    return rows > PART_ROWS and can_map_lists()


class PartedIndex:
    """An index under way, as `index_maker.IndexMaker` is one in memory.

    Args:
        store: whose rows it is made of.
        trained: a file of `train_once` or `keep_trained`.
        before: the lists of an index that this one goes on from, and its rows.
        fill: makes parts elsewhere; None: all are made here.
        on_note: is told of each part.
    """

    def __init__(
        self,
        store: Store,
        trained: Path,
        before: tuple[Path, int] | None = None,
        fill: FillParts | None = None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        from indexer.index_maker import open_trained

        self._store, self._trained, self._fill, self._on_note = store, trained, fill, on_note
        self._lists, self._width = open_trained(trained).lists
        self._before, self._known = before or (None, 0)
        self._path = trained.with_name(f"{_find_key(trained)}-{len(store.rows)}.lists")

    def fill(self) -> None:
        """Make all parts that are missing, and one file of them.

        Raises: DiskTooSmall, CollectionUnwritable, OSError; what is made by then stays for the next build.
        """
        tasks = self._list_tasks()
        self._make(tasks)
        parts = [self._read(task) for task in tasks]
        if None in parts:
            raise CollectionUnwritable(
                f"{tasks[parts.index(None)].part} is not what was written into it: the disk may be failing. Nothing "
                "was published, and what answered before still does. Put the collection on another disk, or run "
                "seer build again."
            )
        self._on_note(f"merging {len(parts):,} parts of {self._lists:,} lists")
        before = ListsFile(self._before, self._lists, self._width) if self._before else None
        merge(self._path, self._lists, self._width, parts, before)

    def show(self) -> "ApproximateIndex":
        """The index, mapped, to be asked."""
        from indexer.index import open_approximate

        return open_approximate(self._trained, self._path)

    def write(self, path: Path) -> None:
        """Put the trained index at `path` and its lists beside it, where `index.open_approximate` reads them."""
        shutil.copyfile(self._trained, path)
        # Not only renamed: the stores may lie on a disk of their own.
        shutil.move(self._path, path.with_name(LISTS))

    def remove(self) -> None:
        """Let go of what was made for it; parts of another training stay."""
        for path in self._trained.parent.glob(f"*{_find_key(self._trained)}*"):
            path.unlink()

    def _list_tasks(self) -> list[PartTask]:
        rows, dimension = self._store.rows.shape
        key, tasks = _find_key(self._trained), []
        for first in range(self._known, rows, PART_ROWS):
            last = min(first + PART_ROWS, rows)
            part = self._trained.with_name(f"{key}-{first:012d}-{last:012d}.part")
            tasks.append(
                PartTask(
                    store=self._store.folder, dimension=dimension, trained=self._trained, first=first, last=last,
                    part=part,
                )
            )  # fmt: skip
        return tasks

    def _make(self, tasks: Sequence[PartTask]) -> None:
        missing = [task for task in tasks if self._read(task) is None]
        if missing and len(missing) < len(tasks):
            self._on_note(f"{len(tasks) - len(missing):,} of {len(tasks):,} parts of the index are there")
        self._require_disk(missing)
        if missing and self._fill:
            self._fill(missing)
            missing = [task for task in missing if self._read(task) is None]
            if missing:
                self._on_note(f"{len(missing):,} parts are made here: no node of the cluster reaches their folder")
        for task in missing:
            self._on_note(f"rows {task.first:,} to {task.last:,} of {len(self._store.rows):,}")
            fill_part(task)

    def _require_disk(self, missing: Sequence[PartTask]) -> None:
        """Raise DiskTooSmall unless the parts that are missing fit, and all lists beside them."""
        needed = sum(measure_part(task.last - task.first, self._lists, self._width) for task in missing)
        needed += measure_lists(len(self._store.rows), self._lists, self._width)
        free = shutil.disk_usage(self._trained.parent).free
        if free < needed:
            raise DiskTooSmall(
                f"The parts of an index and its lists need about {needed >> 20} MB in {self._trained.parent}; "
                f"{free >> 20} MB are free. What was embedded is kept. Free some space, then run seer build again."
            )

    def _read(self, task: PartTask) -> Part | None:
        return read_part(task.part, task.first, task.last - task.first, self._lists, self._width)


def train_once(recipe: Recipe, store: Store, sample: np.ndarray) -> Path:
    """Train an index for a store, unless a build that was killed has done so.

    Args:
        sample: ascending row numbers to train with.
    Returns: its file, without rows.
    """
    from indexer.index_maker import train

    made_of = f"{recipe.title} {store.rows.shape} {hashlib.sha256(sample.tobytes()).hexdigest()}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:KEY_LETTERS]
    for path in (store.folder / PARTS).glob(f"trained-{key}-*.faiss"):
        if _name_bytes(path) == path.stem.rpartition("-")[2]:
            return path
    return keep_trained(train(recipe, store.rows, sample), store, key)


def keep_trained(maker: "IndexMaker", store: Store, key: str = "") -> Path:
    """Write a trained index, without rows, beside the parts that are made of it. Returns: its file."""
    place = store.folder / PARTS
    make_folder(place)
    maker.clear()
    aside = place / "trained.faiss"
    write_durably(aside, maker.write)
    path = place / f"trained-{key}-{_name_bytes(aside)}.faiss"
    os.replace(aside, path)
    sync_folder(place)
    return path


def remove_parts(store: Path) -> None:
    """Let go of what an index was made of; it is published, or was given up."""
    shutil.rmtree(store / PARTS, ignore_errors=True)


def _name_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:KEY_LETTERS]


def _find_key(trained: Path) -> str:
    return trained.stem.rpartition("-")[2]
