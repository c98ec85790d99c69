"""Worker processes: order, chunks, deaths, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest

from indexer.workers import Workers, count_cores
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


def give_up(task: int) -> str:
    return f"{task} was given up"


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
    with pytest.raises(KeyError):
        list(workers.map([1]))
    workers.close()


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
    except FileNotFoundError:
        return False
