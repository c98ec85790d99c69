"""Real processes that speak through gloo, started once for all tests and kept waiting between them.

A test hands over a function by its name; every process joins the others as `torchrun` would have it, calls the function
with its `Ranks`, and what it returns or raises comes back. Each call is a new group, so that nothing is left over from
the one before.

Everything goes through plain pickle: torch's own way would leave the ranks one tensor that all of them change.

Rule: a process that hangs or fails takes its whole crew with it, and the next test starts another.
"""

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

PATIENCE_SECONDS = 120
"""A crew starts in some 10 s on a busy computer, and no call takes more than a few."""


class RankFailed(AssertionError):
    """A process raised, died or hung; the text is its traceback."""


def run_in_two_ranks(function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """Call `function(ranks, *arguments, **options)` in each of two processes; returns what each returned."""
    return run_in_ranks(2, function, *arguments, **options)


def run_in_ranks(count: int, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """The same for any number of processes. The function stands at the top of a module; all else can be pickled."""
    crew = _CREWS[count] = _CREWS.get(count) or _Crew(count)
    try:
        return crew.call(function, arguments, options)
    except BaseException:
        del _CREWS[count]
        crew.end()
        raise


class _Crew:
    def __init__(self, count: int) -> None:
        # A server that has imported torch once, and forks.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pytest", "torch.distributed.fsdp", "torch.distributed.tensor"])
        self.lines, self.processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count), daemon=True)
            process.start()
            theirs.close()
            self.lines.append(ours)
            self.processes.append(process)

    def call(self, function: Callable[..., Any], arguments: tuple, options: dict) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            for line in self.lines:
                line.send_bytes(pickle.dumps((function, arguments, options, f"file://{folder}/rendezvous")))
            answers = self._collect()
        return [answers[line] for line in self.lines]

    def _collect(self) -> dict[Connection, Any]:
        answers: dict[Connection, Any] = {}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(answers) < len(self.lines):
            waiting = [line for line in self.lines if line not in answers]
            ready = wait(waiting, deadline - time.monotonic())
            if not ready:
                raise RankFailed(f"Ranks {[self.lines.index(line) for line in waiting]} hang.")
            answers |= {line: self._receive(line) for line in ready}
        return answers

    def _receive(self, line: Connection) -> Any:
        rank = self.lines.index(line)
        try:
            is_good, answer = pickle.loads(line.recv_bytes())
        except EOFError:
            raise RankFailed(f"Rank {rank} died.") from None
        if not is_good:
            raise RankFailed(f"In rank {rank}:\n{answer}")
        return answer

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


_CREWS: dict[int, _Crew] = {}


def _serve(line: Connection, rank: int, count: int) -> None:
    import pytest
    import torch

    from tests.conftest import guard_network

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    guard_network(pytest.MonkeyPatch())
    while True:
        try:
            function, arguments, options, rendezvous = pickle.loads(line.recv_bytes())
        except EOFError:
            return
        line.send_bytes(pickle.dumps(_call(function, arguments, options, rendezvous)))


def _call(function: Callable[..., Any], arguments: tuple, options: dict, rendezvous: str) -> tuple[bool, Any]:
    from seer_model.ranks import join_ranks

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with join_ranks("cpu", rendezvous=rendezvous) as ranks:
                return True, function(ranks, *arguments, **options)
    except BaseException:
        return False, traceback.format_exc()
