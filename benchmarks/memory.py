"""The memory of a process and of all that it has started, read from /proc. Linux only.

Rule: a page that several of them share is counted once (PSS); the sum of what each holds (RSS) counts it for each.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

KINDS = ("Rss", "Pss")
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading of a process gives that has ended."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """All processes at one moment."""

    seconds: float
    """Since sampling began."""
    rss: int
    pss: int
    """Bytes."""
    processes: int


def read_memory(pid: int) -> dict[str, int]:
    """A process's memory in bytes, `rss` and `pss`. Raises: one of `GONE`, if it has ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    found = {name.rstrip(":"): int(value.split()[0]) for name, _, value in (line.partition(" ") for line in lines[1:])}
    return {name.lower(): found[name] << 10 for name in KINDS}


def list_tree(pid: int) -> list[int]:
    """A process and all that descend from it, itself first."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(*GONE):
            fields = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            children[int(fields.split()[1])].append(int(entry))
    tree = [pid]
    for known in tree:
        tree += children[known]
    return tree


def take_sample(pid: int, seconds: float = 0.0) -> Sample:
    """What a process and its descendants hold now; whoever ends meanwhile is left out."""
    found = []
    for one in list_tree(pid):
        with suppress(*GONE):
            found.append(read_memory(one))
    rss, pss = (sum(memory[kind.lower()] for memory in found) for kind in KINDS)
    return Sample(seconds=seconds, rss=rss, pss=pss, processes=len(found))


@contextmanager
def sampling(pid: int, every: float) -> Iterator[list[Sample]]:
    """Take a sample every so many seconds while the body runs; one at once. Yields: the samples, still growing."""
    samples: list[Sample] = []
    ended, started = threading.Event(), time.monotonic()

    def sample() -> None:
        while not samples or not ended.wait(every):
            samples.append(take_sample(pid, time.monotonic() - started))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
