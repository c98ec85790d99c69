"""Pictures behind URLs, fetched ahead of the processes that decode them.

Many requests are under way at once, as one alone waits far more than it works. Members of a shard that lie behind each
other are fetched as one stretch.

Rule: tasks leave in the order in which they came, and never more than a bounded number of bytes is ahead.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from indexer.decode import DecodeTask, explain_unread, read_whole
from indexer.errors import SourceError
from indexer.layout import clamp_time
from indexer.members import Known, find_cause, find_member, find_shard, read_sized, require_unchanged
from indexer.remote import Stamp, StoreError
from indexer.shards import Place, read_place
from indexer.urls import is_remote, spell
from seer_model.errors import PictureError

if TYPE_CHECKING:
    from indexer.catalog import Work

READERS, MOST_BATCHES_AHEAD = 16, 64
MOST_BYTES_AHEAD = 256 << 20
STRETCH_BYTES, GAP_BYTES = 4 << 20, 64 << 10
"""Of a shard, fetched together; and of what is no picture between two of its members."""
MOST_IN_VAIN = 64
"""Files one after the other about which their store gave no answer: it is not to be reached at present."""


@dataclass
class _Batch:
    """Tasks that one request brings the bytes of."""

    tasks: list[DecodeTask]
    places: list[Place] = field(default_factory=list)
    """Of members of one shard; a file of its own has none."""
    shard: Stamp | None = None
    fetched: Future | None = None

    def measure(self) -> int:
        is_there = self.fetched is not None and self.fetched.done() and not self.fetched.exception()
        # What its store told no size of is known when it is there.
        return sum(len(task.data or b"") for task in self.fetched.result()) if is_there else self._expect()

    def _expect(self) -> int:
        return sum(task.size_bytes for task in self.tasks)

    def takes(self, other: "_Batch") -> bool:
        """Whether the first of another is near enough to be fetched along."""
        if not (self.places and other.places and self.shard == other.shard):
            return False
        first, last, new = self.places[0], self.places[-1], other.places[0]
        gap = new.offset - (last.offset + last.size_bytes)
        length = new.offset + new.size_bytes - first.offset
        return first.path == new.path and 0 <= gap <= GAP_BYTES and length <= STRETCH_BYTES


def list_tasks(work: "Iterator[Work]", total: int, new: dict[str, bool]) -> Iterator[DecodeTask]:
    """What to decode of the first `total` files that wait; `new` is told of each whether it is new at its path."""
    for number, task in enumerate(work):
        if number == total:
            return
        if task.path in new:
            continue  # A damaged catalog lists it twice.
        new[task.path] = task.is_new
        yield DecodeTask(task.path, task.known, task.size_bytes, task.mtime_ns, task.inode)


def fetch_ahead(tasks: Iterable[DecodeTask], *, is_all: bool = False) -> Iterator[DecodeTask]:
    """The same tasks; those behind URLs come with their bytes, or with why there are none.

    Args:
        is_all: those on disks, too.
    Raises: SourceError if a store does not answer any more.
    """
    waiting: deque[_Batch] = deque()
    in_vain, threads = InVain(), ThreadPoolExecutor(READERS, thread_name_prefix="fetching")
    try:
        for batch in _gather(tasks):
            if not (waiting or is_all or is_remote(batch.tasks[0].path)):
                yield from batch.tasks
                continue
            batch.fetched = threads.submit(_fetch, batch, is_all)
            waiting.append(batch)
            while len(waiting) > MOST_BATCHES_AHEAD or sum(one.measure() for one in waiting) > MOST_BYTES_AHEAD:
                yield from _take(waiting, in_vain)
        while waiting:
            yield from _take(waiting, in_vain)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class InVain:
    """How many files in a row came to nothing because their store said nothing."""

    def __init__(self) -> None:
        self._count = 0

    def count(self, unanswered: int, of: int, last: str) -> None:
        """Note so many of `of` files. `last`: what was said of one of them. Raises: SourceError after too many."""
        self._count = self._count + unanswered if unanswered == of else 0
        if self._count >= MOST_IN_VAIN:
            raise SourceError(
                f"A store does not answer, or lets nobody in: {last} What was done is kept; run again when it can be "
                "reached."
            )


def _take(waiting: deque[_Batch], in_vain: InVain) -> list[DecodeTask]:
    tasks = waiting.popleft().fetched.result()
    in_vain.count(sum(task.is_unanswered for task in tasks), len(tasks), describe(tasks[-1]))
    return tasks


def describe(task: DecodeTask) -> str:
    """What is said of a file, for a person."""
    return f"{spell(task.path)}: {task.reason}"


def _gather(tasks: Iterable[DecodeTask]) -> Iterator[_Batch]:
    """Batches, in order."""
    batch: _Batch | None = None
    for task in tasks:
        new = _begin(task)
        if batch and batch.takes(new):
            batch.tasks += new.tasks
            batch.places += new.places
            continue
        if batch:
            yield batch
        batch = new if new.places else None
        if batch is None:
            yield new
    if batch:
        yield batch


def _begin(task: DecodeTask) -> _Batch:
    if is_remote(task.path):
        task = find_place(task)
    if task.member is None:
        return _Batch([task])
    shard, place = task.member
    return _Batch([replace(task, size_bytes=place.size_bytes)], [place], shard)


def find_place(task: DecodeTask) -> DecodeTask:
    """The task of a member of a shard, with its place; others as they are."""
    is_file = not is_remote(task.path) and os.path.isfile(task.path)
    if task.member or task.reason or is_file or find_shard(task.path) is None:
        return task
    try:
        return replace(task, member=find_member(task.path, Known(task.size_bytes, task.mtime_ns, task.inode)))
    except (PictureError, SourceError, OSError) as error:
        return _give_up(task, error)


def _fetch(batch: _Batch, is_all: bool) -> list[DecodeTask]:
    """The tasks with their bytes or reasons."""
    if batch.tasks[0].reason or not (is_all or is_remote(batch.tasks[0].path)):
        return batch.tasks
    try:
        return _fetch_stretch(batch) if batch.places else [_fetch_file(batch.tasks[0])]
    except (PictureError, OSError, MemoryError) as error:
        return [_give_up(task, error) for task in batch.tasks]


def _give_up(task: DecodeTask, error: Exception) -> DecodeTask:
    is_shut = is_remote(task.path) and isinstance(find_cause(error), StoreError | PermissionError)
    return replace(task, reason=explain_unread(error), is_unanswered=is_shut)


def _fetch_file(task: DecodeTask) -> DecodeTask:
    if not is_remote(task.path):
        data, status = read_whole(task.path)
        return replace(task, data=data, size_bytes=status.st_size, mtime_ns=clamp_time(status.st_mtime_ns))
    # A size that its store does not tell stays 0: it will not tell it when it is listed again.
    return replace(task, data=read_sized(task.path, task.size_bytes))


def _fetch_stretch(batch: _Batch) -> list[DecodeTask]:
    first, last = batch.places[0], batch.places[-1]
    # As one place: read from a disk or a store alike.
    stretch = read_place(replace(first, size_bytes=last.offset + last.size_bytes - first.offset))
    if batch.shard is not None and is_remote(first.path):
        require_unchanged(first.path, batch.shard)
    starts = [place.offset - first.offset for place in batch.places]
    return [
        replace(task, data=stretch[start : start + place.size_bytes])
        for task, start, place in zip(batch.tasks, starts, batch.places, strict=True)
    ]
