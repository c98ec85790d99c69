"""An ordered map over worker processes that outlives the death of any of them.

Tasks may travel in chunks: where one costs less than a millisecond, sending it alone would cost as much again. When a
worker dies - the system ends a process for its memory, a decoder crashes - the tasks that were under way are done once
more, one at a time, and only those that end their process again are given up.

Rule: results come in the order of the tasks, whatever the timing; never more than a bounded number is waiting.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

AHEAD_PER_WORKER = 8
DIED = "The process that decoded it was ended from outside, likely for want of memory; make it smaller."
"""The reason of a picture that was given up."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[Task, Result]):
    """Processes that are started with the first task, and end with `close` or with the process that made them."""

    def __init__(
        self,
        work: Callable[[Task], Result],
        give_up: Callable[[Task], Result],
        *,
        preload: str,
        count: int | None = None,
        chunk: int = 1,
        ahead: int = AHEAD_PER_WORKER,
    ) -> None:
        """Say what is to be done.

        Args:
            work: a function of a module, or a partial of one, called in the workers; it and its results are pickled.
            give_up: the result of a task that ends its process even when it is alone there; called in this process.
            preload: the module that `work` needs, loaded once for all workers.
            count: processes; None: one for each core that this process may use.
            chunk: how many tasks travel together.
            ahead: how many chunks for each worker may be under way or wait to be read.
        """
        self._work, self._give_up, self._preload = work, give_up, preload
        self._count, self._chunk = count or count_cores(), chunk
        self._most_waiting = self._count * ahead
        self._executor: ProcessPoolExecutor | None = None

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of tasks, in order; what `work` raises is raised here."""
        waiting: deque[_Sent] = deque()
        tasks = iter(tasks)
        try:
            while chunk := list(islice(tasks, self._chunk)):
                waiting.append(self._send(chunk))
                if len(waiting) >= self._most_waiting:
                    yield from self._take(waiting.popleft())
            while waiting:
                yield from self._take(waiting.popleft())
        finally:
            for sent in waiting:
                sent.future.cancel()

    def close(self) -> None:
        """End the workers; what they still have in hand is dropped."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def _send(self, chunk: list[Task]) -> "_Sent":
        if self._executor is None:
            self._executor = _start(self._count, self._preload)
        try:
            return _Sent(chunk, self._executor.submit(_do_all, self._work, chunk), self._executor)
        except BrokenProcessPool:
            self.close()
            return self._send(chunk)

    def _take(self, sent: "_Sent") -> Iterable[Result]:
        try:
            return sent.future.result()
        except BrokenProcessPool:
            # Nobody knows which of the tasks in hand did it.
            if sent.executor is self._executor:
                self.close()
            return self._do_one_by_one(sent.chunk)

    def _do_one_by_one(self, chunk: list[Task]) -> Iterator[Result]:
        alone: ProcessPoolExecutor | None = None
        try:
            for task in chunk:
                alone = alone or _start(1, self._preload)
                try:
                    result = alone.submit(self._work, task).result()
                except BrokenProcessPool:
                    alone.shutdown()
                    alone, result = None, self._give_up(task)
                yield result
        finally:
            if alone is not None:
                alone.shutdown()


class _Sent(NamedTuple):
    """A chunk of tasks that is under way."""

    chunk: list
    future: Future
    executor: ProcessPoolExecutor


def _do_all(work: Callable[[Task], Result], chunk: list[Task]) -> list[Result]:
    return [work(task) for task in chunk]


def _start(count: int, preload: str) -> ProcessPoolExecutor:
    # Not fork: this process may hold torch's threads. A fork server loads our modules once for all workers.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin)


def _begin() -> None:
    # Ctrl-C reaches the whole process group; the conductor decides what becomes of the batch in hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # After kill -9 nobody tells the workers: the queue that they wait on is held open by themselves.
    multiprocessing.parent_process().join()
    os._exit(1)
