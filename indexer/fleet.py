"""Backbones at work for a build: one in this process, or one in a process of its own for each of several devices.

A process that dies is started again and its batch done once more; a device that cannot go on leaves its work to the
others.

Rule: what comes back says nothing of which device made it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from indexer.workers import DIED, Limits, Workers
from seer_model.errors import DeviceError
from seer_model.preprocess import Preprocessing

MOST_SECONDS = 900.0
"""For one batch, and for opening the model before the first."""

Lane = Callable[[list[np.ndarray]], tuple[np.ndarray, list[bool]]]
"""As `embed.embed_batch` on one device: B pictures -> rows of those that have one, and which of them these are."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a build must know of a backbone."""

    fingerprint: str
    dimension: int
    preprocessing: Preprocessing
    batch_size: int
    described: dict
    """For the manifest."""
    stamps: list[list]
    """Of the files that the model was read from, as `zoo.FoundModel` has them, JSON-able."""


@dataclass
class Fleet:
    """The backbones of a build. `lanes` may be called from a thread each."""

    about: About
    lanes: list[Lane]
    processes: list[Workers] = field(default_factory=list)

    def embed(self, pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        """As a `Lane`: by the first that can. Raises: DeviceError of the last one."""
        *others, last = self.lanes
        for lane in others:
            with suppress(DeviceError):
                return lane(pixels)
        return last(pixels)

    def close(self) -> None:
        """End the processes; what they have in hand is dropped."""
        for process in self.processes:
            process.close()


def start_processes(works: dict[str, Callable], preload: str) -> Fleet:
    """A fleet of processes.

    Args:
        works: device -> a function of a module, or a partial of one: None -> About; pictures -> the fingerprint, and
            what a `Lane` gives.
        preload: the module that these need.
    Raises: DeviceError if one cannot be opened; what opening raises.
    """
    limits = Limits(seconds=MOST_SECONDS)
    processes = [
        Workers(work, partial(_lose, device), preload=preload, count=1, ahead=1, limits=limits)
        for device, work in works.items()
    ]
    try:
        with ThreadPoolExecutor(len(processes)) as threads:
            about, *others = threads.map(lambda process: _ask(process, None), processes)
        for other in others:
            _require_same(other.fingerprint, about)
    except BaseException:
        for process in processes:
            process.close()
        raise
    return Fleet(about, [partial(_embed, process, about) for process in processes], processes)


def _ask(process: Workers, question: list[np.ndarray] | None) -> Any:
    (answer,) = process.map([question])
    return answer


def _embed(process: Workers, about: About, pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
    fingerprint, *embedded = _ask(process, pixels)
    # A process that died was started again, and has read the model's file anew.
    _require_same(fingerprint, about)
    return tuple(embedded)


def _require_same(fingerprint: str, about: About) -> None:
    if fingerprint != about.fingerprint:
        raise DeviceError("The model's file was changed while it was in use. Run again; what was embedded is kept.")


def _lose(device: str, _: object, reason: str) -> None:
    if reason != DIED:
        raise DeviceError(f"The process for {device} took longer than {MOST_SECONDS:g} s and was ended.")
    raise DeviceError(
        f"The process for {device} ended twice on one batch. Look into the system's log for why (memory?), or leave "
        "this device out; what was embedded is kept."
    )
