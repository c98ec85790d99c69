"""An ordered map over worker processes that outlives any of them.

Each process is served by a thread of this one, which hands it tasks and takes their results one by one. So it is known
what a process was at when it died - the system ends one for its memory, a decoder crashes - or had to be ended because
it took too long. A task that was slow is given up. One whose process died is done once more, while nothing else is
under way, and given up if that ends its process again. No other task is lost or done twice.

Tasks may travel in chunks: where one costs less than a millisecond, sending it alone would cost as much again.

Rule: results come in the order of the tasks, whatever the timing; never more than a bounded number is waiting.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

AHEAD_PER_WORKER = 8
DIED = "The process that decoded it was ended from outside, likely for want of memory; make it smaller."
"""The reason of a picture whose process died twice."""
PATIENCE_SECONDS = 5.0
"""How long an ended process is waited for: one that hangs on a disk that is gone never ends."""

Task = TypeVar("Task")
Result = TypeVar("Result")
_one_at_a_time = threading.Lock()
"""Starting and burying processes: `multiprocessing` looks after all of them whenever one is started."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one task may cost."""

    seconds: float = 60.0
    """A process that takes longer for one task is ended."""
    memory_bytes: int | None = None
    """What a process may have of memory of its own; more is refused to it, and most decoders say so. On Linux; the
    other systems have no such limit that holds."""
    niceness: int = 0
    """By how much a process gives way to others, where the system knows that."""


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def explain_slow(seconds: float) -> str:
    """The reason of a picture that took too long."""
    return f"Decoding took longer than {seconds:g} s and was ended; open it in another program and save it anew."


class Workers(Generic[Task, Result]):
    """Processes that are started when there is work, and end with `close` or with the process that made them."""

    def __init__(
        self,
        work: Callable[[Task], Result],
        give_up: Callable[[Task, str], Result],
        *,
        preload: str,
        count: int | None = None,
        chunk: int = 1,
        ahead: int = AHEAD_PER_WORKER,
        limits: Limits | None = None,
    ) -> None:
        """Say what is to be done.

        Args:
            work: a function of a module, or a partial of one, called in the workers; it and its results are pickled.
            give_up: the result of a task that was too slow or ended its process, and why, in one sentence; called in
                this process, in any of its threads.
            preload: the module that `work` needs, loaded once for all workers.
            count: processes at most; None: one for each core that this process may use.
            chunk: how many tasks travel together.
            ahead: how many chunks for each worker may be under way or wait to be read.
        """
        self._make_crew = lambda: _Crew(work, give_up, preload, self._count, limits or Limits())
        self._count, self._chunk = count or count_cores(), chunk
        self._most_waiting = self._count * ahead
        self._crew: _Crew | None = None
        self._lock = threading.Lock()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of tasks, in order; what `work` raises is raised here. Threads may share the workers."""
        waiting: deque[Future[list[Result]]] = deque()
        tasks = iter(tasks)
        try:
            while chunk := list(islice(tasks, self._chunk)):
                waiting.append(self._find_crew().send(chunk))
                if len(waiting) >= self._most_waiting:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def start(self) -> None:
        """Start one process before there is work; that happens in a thread of its own."""
        self._find_crew().send([])

    def close(self) -> None:
        """End the workers; what they still have in hand is dropped. A later `map` starts them again."""
        with self._lock:
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    def _find_crew(self) -> "_Crew":
        with self._lock:
            self._crew = self._crew or self._make_crew()
            return self._crew


class _Crew:
    """The processes between one start and one close, and a thread for each that is at work."""

    def __init__(self, work: Callable, give_up: Callable, preload: str, count: int, limits: Limits) -> None:
        self._work, self._give_up, self._preload, self._limits = work, give_up, preload, limits
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._count, self._places, self._turnstile = count, threading.Semaphore(count), threading.Lock()
        self._is_closed = False

    def send(self, chunk: list) -> Future[list]:
        return self._threads.submit(self._do, chunk)

    def close(self) -> None:
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in [*self._idle, *self._busy]:
            process.kill()
        self._threads.shutdown()
        for process in self._idle:
            process.end()

    def _do(self, chunk: list) -> list:
        results: list = []
        if not chunk:
            self._idle.append(self._take_process())
        while len(results) < len(chunk):
            ending = self._try(chunk, results)
            if isinstance(ending, _Died):
                ending = self._try_alone(chunk, results)
            if ending is not None:
                results.append(self._give_up(chunk[len(results)], str(ending)))
        return results

    def _try(self, chunk: list, results: list) -> "_Ending | None":
        with self._turnstile:
            pass  # Whoever must be alone holds everybody else here.
        with self._places:
            return self._add_results(chunk[len(results) :], results)

    def _try_alone(self, chunk: list, results: list) -> "_Ending | None":
        with self._turnstile:
            for _ in range(self._count):
                self._places.acquire()
            try:
                # In a new process: an idle one may have been ended too, and that would be the task's second death.
                return self._add_results(chunk[len(results) : len(results) + 1], results, self._start_process())
            finally:
                self._places.release(self._count)

    def _add_results(self, tasks: list, results: list, process: "_Process | None" = None) -> "_Ending | None":
        """Do tasks in one process, up to the one at which it ends. Returns: how it ended, if it did."""
        process = process or self._take_process()
        self._busy.add(process)
        try:
            if self._is_closed:  # While it was being started.
                raise CancelledError
            for result in process.do(tasks, self._limits.seconds):
                results.append(result)
        except _Ending as ending:
            process.end()
            if self._is_closed:
                raise CancelledError from None
            return ending
        except BaseException:
            process.end()
            raise
        finally:
            self._busy.discard(process)
        self._idle.append(process)
        return None

    def _take_process(self) -> "_Process":
        try:
            return self._idle.pop()
        except IndexError:
            return self._start_process()

    def _start_process(self) -> "_Process":
        try:
            return _Process(self._work, self._preload, self._limits)
        except RuntimeError:  # Ctrl-C reaches a process before it can ignore that.
            return _Process(self._work, self._preload, self._limits)


class _Ending(Exception):
    """A process ended, or had to be, at a task; the text is the reason."""


class _Died(_Ending):
    """It ended by itself, or the system ended it."""


class _Process:
    """One worker process, and the connection to it."""

    def __init__(self, work: Callable, preload: str, limits: Limits) -> None:
        # Not fork: this process may hold torch's threads. A fork server loads our modules once for all workers.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([preload])
        self._connection, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, work, limits), daemon=True)
        with _one_at_a_time:
            self._process.start()
        far_end.close()
        try:
            self._connection.recv()  # It is ready; what starting takes is no task's time.
        except EOFError:
            self.end()
            raise RuntimeError(f"a worker process for {preload} could not be started") from None

    def do(self, tasks: list, seconds: float) -> Iterator:
        """The results of tasks, as they come. Raises: _Ending; what the work raised."""
        try:
            self._connection.send(tasks)
            for _ in tasks:
                if not self._connection.poll(seconds):
                    raise _Ending(explain_slow(seconds))
                is_done, outcome = self._connection.recv()
                if not is_done:
                    raise outcome
                yield outcome
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise _Died(DIED) from None

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()

    def end(self) -> None:
        """End the process and give back what it held here."""
        self.kill()
        self._process.join(PATIENCE_SECONDS)
        self._connection.close()


def _serve(connection, work: Callable, limits: Limits) -> None:
    """In a worker: do what comes, until nothing does."""
    # Ctrl-C reaches the whole process group; the conductor decides what becomes of the batch in hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_memory(limits.memory_bytes)
    if limits.niceness and hasattr(os, "nice"):
        os.nice(limits.niceness)
    connection.send("ready")
    # What C libraries say of damaged pictures would stand in the middle of our own lines. Errors go to who asked.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        try:
            tasks = connection.recv()
        except EOFError:
            return
        for task in tasks:
            try:
                outcome = True, work(task)
            except Exception as error:
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                outcome = False, error
            connection.send(outcome)


def _die_with_parent() -> None:
    # After kill -9 nobody tells a worker that is in the middle of a task.
    multiprocessing.parent_process().join()
    os._exit(1)


def limit_memory(memory_bytes: int | None) -> None:
    """Refuse this process more memory of its own than this, on Linux; it may be called again."""
    if memory_bytes is None or sys.platform != "linux":
        return
    import resource

    # Not the address space: that counts what threads reserve and never touch.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
