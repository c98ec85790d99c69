"""Worker processes: order, chunks, deaths, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from indexer.workers import DIED, Limits, Workers, count_cores, explain_slow
from tests.conftest import REPOSITORY

PARENT = """
import itertools, sys, time
from tests.indexer.test_workers import start, tell_worker
if __name__ == "__main__":
    workers = start(tell_worker, count=2)
    print(*{number for number, *_ in itertools.islice(workers.map(range(10**9)), 64)}, flush=True)
    time.sleep(60)
"""


def start(work, **options) -> Workers:
    return Workers(work, give_up, preload="tests.indexer.test_workers", **options)


def give_up(task: int, reason: str = DIED) -> str:
    return f"{task} was given up: {reason}"


def double(task: int) -> int:
    # The first of each ten takes longest: its successors are ready before it.
    time.sleep(0.01 if task % 10 == 0 else 0)
    return 2 * task


def double_or_die(task: int, deadly: frozenset[int]) -> int:
    if task in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * task


def tell_worker(task: int) -> tuple[int, bool, bool]:
    time.sleep(0.002)
    return os.getpid(), "torch" in sys.modules, signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def fail(task: int) -> int:
    raise KeyError(task)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_results_come_in_the_order_of_the_tasks(chunk: int):
    workers = start(double, count=2, chunk=chunk)
    assert list(workers.map(range(150))) == [2 * number for number in range(150)]
    workers.close()


def test_a_death_costs_the_task_that_did_it_and_no_other():
    deadly = frozenset({0, 9, 10, 58})
    workers = start(partial(double_or_die, deadly=deadly), count=2, chunk=8)
    assert list(workers.map(range(60))) == [give_up(n) if n in deadly else 2 * n for n in range(60)]
    assert list(workers.map([3])) == [6], "the pool works on"
    workers.close()


def die_once(task: int, folder: Path) -> int:
    mark = folder / str(task)
    if task % 7 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * task


def test_a_task_whose_process_was_ended_by_chance_is_done_once_more(tmp_path: Path):
    workers = start(partial(die_once, folder=tmp_path), count=2, chunk=4)
    assert list(workers.map(range(30))) == [2 * number for number in range(30)]
    workers.close()
    assert len(list(tmp_path.iterdir())) == 5


def test_what_is_in_hand_is_bounded():
    given: list[int] = []

    def endless() -> Iterator[int]:
        while len(given) < 1000:
            given.append(1)
            yield len(given)

    workers = start(double, count=2, chunk=5, ahead=3)
    results = workers.map(endless())
    for _ in range(20):
        next(results)
    assert len(given) <= 20 + 2 * 3 * 5
    results.close()
    assert next(workers.map([1])) == 2, "a reading that was given up leaves the pool in order"
    workers.close()


def test_workers_know_no_torch_and_leave_ctrl_c_to_their_parent():
    workers = start(tell_worker, count=2)
    told = list(workers.map(range(64)))
    workers.close()
    assert {facts[1:] for facts in told} == {(False, True)}
    assert os.getpid() not in {number for number, *_ in told}


def test_a_mistake_in_the_work_is_not_hidden():
    workers = start(fail, count=1)
    with pytest.raises(KeyError) as mistake:
        list(workers.map([1]))
    assert "raise KeyError(task)" in mistake.value.__notes__[0]
    workers.close()


def say_loudly(task: int) -> int:
    os.write(2, b"TIFFReadDirectory: this is no picture")
    return task


def test_what_a_library_says_of_a_picture_is_not_printed(capfd: pytest.CaptureFixture):
    workers = start(say_loudly, count=1)
    assert list(workers.map([1, 2])) == [1, 2]
    workers.close()
    assert capfd.readouterr() == ("", "")


def test_the_cores_are_those_that_this_process_may_use():
    assert 1 <= count_cores() <= os.cpu_count()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_die_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        numbers = [int(number) for number in parent.stdout.readline().split()]
        assert numbers and all(map(is_running, numbers))
        parent.kill()
    deadline = time.monotonic() + 30
    while any(map(is_running, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, numbers))


def is_running(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # The second: it ended between the two.
        return False


# --- what a task may cost ----------------------------------------------------------------------------------------


def sleep_at(task: int, slow: frozenset[int]) -> int:
    if task in slow:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(600)
    return 2 * task


def take_memory(task: int) -> str:
    try:
        return f"{len(bytearray(task)):,}"
    except MemoryError:
        return "refused"


def tell_process(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.parametrize("chunk", [1, 8])
def test_a_task_that_takes_too_long_is_given_up_and_no_other(chunk: int):
    slow = frozenset({0, 17, 18})
    workers = start(partial(sleep_at, slow=slow), count=2, chunk=chunk, limits=Limits(seconds=0.5))
    expected = [give_up(n, explain_slow(0.5)) if n in slow else 2 * n for n in range(40)]
    assert list(workers.map(range(40))) == expected
    workers.close()


def test_time_is_counted_for_each_task_not_for_its_chunk():
    workers = start(tell_process, count=1, chunk=20, limits=Limits(seconds=0.6))
    assert len({*workers.map(range(20))}) == 1, "one process did all of them, in a second"
    workers.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems have no such limit")
def test_memory_beyond_the_limit_is_refused_to_a_worker_and_to_it_alone():
    workers = start(take_memory, count=1, limits=Limits(memory_bytes=400 << 20))
    assert list(workers.map([1 << 20, 500 << 20, 2 << 20])) == ["1,048,576", "refused", "2,097,152"]
    workers.close()
    assert take_memory(500 << 20) == f"{500 << 20:,}"


def tell_priority(task: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="This system knows no niceness.")
def test_workers_give_way_as_far_as_they_are_told():
    (found,) = start(tell_priority, count=1, limits=Limits(niceness=3)).map([0])
    assert found == min(19, tell_priority(0) + 3)


def test_closing_does_not_wait_for_what_hangs():
    workers = start(partial(sleep_at, slow=frozenset({1, 3})), count=2)
    results = workers.map(range(100))
    assert next(results) == 0
    started = time.monotonic()
    workers.close()
    results.close()
    assert time.monotonic() - started < 20


def test_threads_share_the_workers_and_each_gets_its_own():
    workers = start(double, count=2)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: list(workers.map(range(n, n + 12))), range(0, 160, 10)))
    workers.close()
    assert answers == [[2 * m for m in range(n, n + 12)] for n in range(0, 160, 10)]


def test_a_worker_that_cannot_start_is_a_mistake_that_shows():
    workers = start(partial(double_or_die, deadly=Unreadable()), count=1)
    with pytest.raises(RuntimeError, match="could not be started"):
        list(workers.map([1]))
    workers.close()


class Unreadable:
    """Goes into a process and does not come out."""

    def __reduce__(self):
        return os._exit, (3,)
