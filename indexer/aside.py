"""Pictures from outside, decoded aside: in processes of their own, with the limits that a build has.

A server cannot choose what it is sent. A picture that crashes its decoder, hangs it or swells costs whoever sent it an
answer, and neither the server nor the others that ask; so what serves pages decodes here. A command that is asked one
question and ends decodes in its own process: starting another takes longer than all the rest of its decoding.

Rule: what comes back is pixels or bytes made by us, short printable texts, or PictureError; nothing else that the
picture's sender chose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from indexer.workers import Limits, Workers, limit_memory
from seer_model.errors import PictureError
from seer_model.formats import PICTURE_SUFFIXES
from seer_model.pictures import Region, bound_memory, encode_thumbnail, open_picture
from seer_model.preprocess import Preprocessing, prepare
from seer_model.shots import read_shot

__all__ = ["PICTURE_SUFFIXES", "Aside", "Here", "prepare_picture", "shrink_picture"]

MOST_AT_ONCE = 4
"""Processes; each is started when the others are busy, so that one picture that hangs keeps few people waiting."""


def prepare_picture(
    data: bytes, how: Preprocessing, max_megapixels: float, region: Region | None = None
) -> np.ndarray:
    """A file's bytes, or a part of the picture, as the backbone's input, (H, W, 3) uint8. Raises: PictureError."""
    picture = open_picture(data, max_megapixels=max_megapixels, short_side_px=how.short_side_px, region=region)
    return prepare(picture.pixels, how)


def shrink_picture(data: bytes, side_px: int, max_megapixels: float) -> bytes:
    """A file's bytes as a WebP that fits in a square of side_px. Raises: PictureError."""
    return encode_thumbnail(open_picture(data, max_megapixels=max_megapixels, short_side_px=side_px), side_px=side_px)


def measure_picture(data: bytes, _: object, max_megapixels: float) -> tuple[int, int]:
    """Width and height of a file's picture, upright. Raises: PictureError."""
    picture = open_picture(data, max_megapixels=max_megapixels, short_side_px=1)
    return picture.width, picture.height


def describe_shot(data: bytes, _: object, max_megapixels: float) -> dict[str, str]:
    """How a file's picture was taken, as `seer_model.shots` has it. Raises: PictureError."""
    return read_shot(data, max_megapixels=max_megapixels)


class Here:
    """The same four, in this process."""

    def prepare(
        self, data: bytes, how: Preprocessing, max_megapixels: float, region: Region | None = None
    ) -> np.ndarray:
        """As `prepare_picture`."""
        return prepare_picture(data, how, max_megapixels, region)

    def shrink(self, data: bytes, side_px: int, max_megapixels: float) -> bytes:
        """As `shrink_picture`."""
        return shrink_picture(data, side_px, max_megapixels)

    def measure(self, data: bytes, max_megapixels: float) -> tuple[int, int]:
        """As `measure_picture`."""
        return measure_picture(data, None, max_megapixels)

    def describe(self, data: bytes, max_megapixels: float) -> dict[str, str]:
        """As `describe_shot`."""
        return describe_shot(data, None, max_megapixels)


class Aside:
    """The same four, in worker processes that are started with the first picture. Threads may share it."""

    def __init__(self, *, max_seconds: float = 60.0) -> None:
        limits = Limits(seconds=max_seconds)
        self._workers = Workers(_work, _give_up, preload=__name__, count=MOST_AT_ONCE, ahead=1, limits=limits)

    def prepare(
        self, data: bytes, how: Preprocessing, max_megapixels: float, region: Region | None = None
    ) -> np.ndarray:
        """As `prepare_picture`."""
        return self._do(partial(prepare_picture, region=region), data, how, max_megapixels)

    def shrink(self, data: bytes, side_px: int, max_megapixels: float) -> bytes:
        """As `shrink_picture`."""
        return self._do(shrink_picture, data, side_px, max_megapixels)

    def measure(self, data: bytes, max_megapixels: float) -> tuple[int, int]:
        """As `measure_picture`."""
        return self._do(measure_picture, data, None, max_megapixels)

    def describe(self, data: bytes, max_megapixels: float) -> dict[str, str]:
        """As `describe_shot`."""
        return self._do(describe_shot, data, None, max_megapixels)

    def start(self) -> None:
        """Start a process before the first picture comes."""
        self._workers.start()

    def close(self) -> None:
        """End the processes; what they have in hand is dropped."""
        self._workers.close()

    def _do(self, work: Callable, data: bytes, how: object, max_megapixels: float) -> Any:
        (outcome,) = self._workers.map([_Task(work, data, how, max_megapixels)])
        if isinstance(outcome, _Refusal):
            raise PictureError(outcome.reason)
        return outcome


@dataclass(frozen=True)
class _Task:
    work: Callable
    data: bytes
    how: object
    max_megapixels: float


@dataclass(frozen=True)
class _Refusal:
    reason: str


def _work(task: _Task) -> object:
    limit_memory(bound_memory(task.max_megapixels) + 2 * len(task.data))
    try:
        return task.work(task.data, task.how, task.max_megapixels)
    except PictureError as error:
        return _Refusal(str(error))
    except Exception as error:  # noqa: BLE001 - whatever the decoder did, the sender is told and the page goes on.
        return _Refusal(f"The decoder failed with {type(error).__name__}: {error}.")


def _give_up(_: _Task, reason: str) -> _Refusal:
    return _Refusal(reason)
