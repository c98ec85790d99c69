"""A function run in a process of its own, and the memory that this process held.

    own      what it allocated (RssAnon)
    mapped   pages of files that it has mapped (RssFile): the system takes them back whenever it needs room

Rule: the process is started anew and not forked, so that it holds nothing of ours. Linux only.
"""

import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import GONE
from seer_model.errors import UserError

EVERY_SECONDS = 0.05


class AsideFailed(UserError):
    """A process that was measured did not end well; the text is what it said."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    result: Any
    seconds: float
    """Of the function; the start of the process does not count."""
    own_bytes: int
    """The most at one look; peaks between two looks are missed."""
    mapped_bytes: int


def run_aside(function: Callable, *given: object) -> Outcome:
    """Call a function of a module, with what can be pickled. Raises: AsideFailed."""
    here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_answer, args=(there, function, given))
    process.start()
    there.close()
    own = mapped = 0
    try:
        while not here.poll(EVERY_SECONDS):
            found = read_resident(process.pid)
            own, mapped = max(own, found[0]), max(mapped, found[1])
        result, seconds, complaint = here.recv()
    except EOFError:
        result, seconds, complaint = None, 0.0, "it ended; what it said stands above, or else it was killed"
    process.join()
    if complaint:
        raise AsideFailed(f"{function.__name__}: {complaint}")
    return Outcome(result=result, seconds=seconds, own_bytes=own, mapped_bytes=mapped)


def _answer(pipe: Any, function: Callable, given: tuple) -> None:
    try:
        started = time.perf_counter()
        result = function(*given)
        pipe.send((result, time.perf_counter() - started, ""))
    except UserError as error:
        pipe.send((None, 0.0, str(error)))


def read_resident(pid: int | str = "self") -> tuple[int, int]:
    """Bytes that a process holds now, its own and of mapped files; (0, 0) if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except GONE:
        return 0, 0
    found = dict(re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB$", status, re.MULTILINE))
    return int(found.get("RssAnon", 0)) << 10, int(found.get("RssFile", 0)) << 10


def read_mapped(below: Path) -> int:
    """Bytes of the files in a folder that this process has mapped and touched."""
    total, is_below = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_below = str(below.resolve()) + "/" in line
        elif is_below and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total
