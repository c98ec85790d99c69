"""Pictures behind URLs, fetched ahead of the processes that decode them.

Many requests are under way at once, as one alone waits far more than it works. Members of a shard that lie behind each
other are fetched as one stretch.

Rule: tasks leave in the order in which they came, and never more than a bounded number of bytes is ahead.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from indexer.decode import MAX_FILE_BYTES, DecodeTask, explain_too_large, explain_unread, read_whole
from indexer.errors import SourceError
from indexer.layout import clamp_time
from indexer.members import find_member, find_shard, require_unchanged
from indexer.remote import Stamp, StoreError, read_remote
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
        yield DecodeTask(task.path, task.known, task.size_bytes, task.mtime_ns)


def fetch_ahead(tasks: Iterable[DecodeTask], *, is_all: bool = False) -> Iterator[DecodeTask]:
    """The same tasks; those behind URLs come with their bytes, or with why there are none.

    Args:
        is_all: those on disks, too.
    Raises: SourceError if a store does not answer any more.
    """
    waiting: deque[_Batch] = deque()
    in_vain, threads = _Vain(), ThreadPoolExecutor(READERS, thread_name_prefix="fetching")
    try:
        for batch in _gather(tasks):
            if not (waiting or is_all or is_remote(batch.tasks[0].path)):
                yield from batch.tasks
                continue
            batch.fetched = threads.submit(_fetch, batch, is_all)
            waiting.append(batch)
            while len(waiting) > MOST_BATCHES_AHEAD or sum(one.measure() for one in waiting) > MOST_BYTES_AHEAD:
                yield from in_vain.count(waiting.popleft().fetched.result())
        while waiting:
            yield from in_vain.count(waiting.popleft().fetched.result())
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class _Vain:
    """How many files in a row came to nothing because their store said nothing."""

    def __init__(self) -> None:
        self._count = 0

    def count(self, fetched: tuple[list[DecodeTask], bool]) -> list[DecodeTask]:
        tasks, is_answered = fetched
        self._count = 0 if is_answered else self._count + len(tasks)
        if self._count >= MOST_IN_VAIN:
            raise SourceError(
                f"The store of {spell(tasks[-1].path)} does not answer: {tasks[-1].reason} What was embedded is kept; "
                "run again when it can be reached."
            )
        return tasks


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
    if task.member or task.reason or find_shard(task.path) is None:
        return task
    try:
        return replace(task, member=find_member(task.path))
    except (PictureError, SourceError, OSError) as error:
        return replace(task, reason=explain_unread(error))


def _fetch(batch: _Batch, is_all: bool) -> tuple[list[DecodeTask], bool]:
    """Returns: the tasks with their bytes or reasons, and whether their store gave an answer."""
    if batch.tasks[0].reason or not (is_all or is_remote(batch.tasks[0].path)):
        return batch.tasks, True
    try:
        return (_fetch_stretch(batch) if batch.places else [_fetch_file(batch.tasks[0])]), True
    except (PictureError, OSError) as error:
        tasks = [replace(task, reason=explain_unread(error)) for task in batch.tasks]
        return tasks, not isinstance(error, StoreError)


def _fetch_file(task: DecodeTask) -> DecodeTask:
    if not is_remote(task.path):
        data, status = read_whole(task.path)
        return replace(task, data=data, size_bytes=status.st_size, mtime_ns=clamp_time(status.st_mtime_ns))
    if task.size_bytes > MAX_FILE_BYTES:
        raise PictureError(explain_too_large(task.size_bytes))
    data = read_remote(task.path)
    # 0: the store does not say how large it is before it is read.
    if task.size_bytes and len(data) != task.size_bytes:
        raise PictureError("The file changed while it was read; the next build tries again.")
    return replace(task, data=data, size_bytes=len(data))


def _fetch_stretch(batch: _Batch) -> list[DecodeTask]:
    first, last = batch.places[0], batch.places[-1]
    # As one place: read from a disk or a store alike.
    stretch = read_place(replace(first, size_bytes=last.offset + last.size_bytes - first.offset))
    if batch.shard is not None:
        require_unchanged(first.path, batch.shard)
    starts = [place.offset - first.offset for place in batch.places]
    return [
        replace(task, data=stretch[start : start + place.size_bytes])
        for task, start, place in zip(batch.tasks, starts, batch.places, strict=True)
    ]
