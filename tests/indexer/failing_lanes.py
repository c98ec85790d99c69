"""What a device's process does in tests: embed as the real one, and at one batch of all die, or run out of memory.

Rule: the fault comes once, as its file `marker` says, whichever process is started again.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from indexer import embed


def serve_and_die(pixels: Sequence[np.ndarray] | None, *, marker: Path, **how: object) -> object:
    """As `embed._serve`; the process ends as one does that the system ends."""
    if pixels is not None and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return embed._serve(pixels, **how)


def serve_and_die_always(pixels: Sequence[np.ndarray] | None, *, marker: Path, **how: object) -> object:
    """As above, at every batch: a device that is broken."""
    if pixels is not None:
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return embed._serve(pixels, **how)


def serve_short_of_memory(pixels: Sequence[np.ndarray] | None, *, marker: Path, **how: object) -> object:
    """As `embed._serve`; the first batch is too large."""
    backbone = embed._open_once(**how)
    whole = backbone._embed_batch

    def embed_batch(pictures: list[np.ndarray]) -> np.ndarray:
        if not marker.exists():
            marker.touch()
            raise torch.OutOfMemoryError("2 GiB short")
        return whole(pictures)

    backbone._embed_batch = embed_batch
    try:
        return embed._serve(pixels, **how)
    finally:
        backbone._embed_batch = whole
