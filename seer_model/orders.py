"""The order in which an epoch shows the pictures of a pile, and in which they are read for it.

Among all pictures, where any of them can be had at once: shown as drawn, and read as shown. Or in windows, where they
lie in shards far away: the shards one after the other, in a drawn order, each read from its beginning to its end; and
what is shown is drawn from a window that moves along with the reading.

Rule: an order follows from the pile, the seed and the epoch alone. No step of it depends on what was read before, on
the number of ranks, or on time.
"""

from collections.abc import Sequence

import numpy as np


def order_epoch(
    pictures: int, *, seed: int, epoch: int, window: int = 0, starts: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Each of N pictures once, as shown and as read.

    Args:
        window: the picture that is shown at a place is one of those read less than so many places before or after it;
            0: any picture. What was read and is not yet shown is less than a window.
        starts: in rising order, from 0, the number of the first picture of each shard; for windows only.
    Returns: numbers (N,) int64 as shown, and (N,) as read. Without a window both are one.
    """
    chance = np.random.default_rng([seed, epoch])
    if not window:
        shown = chance.permutation(pictures)
        return shown, shown
    read = _join_shards(np.append(starts, pictures), chance)
    # Each picture is put off by less than a window, and no more than that can stand between two that were neighbours.
    due = np.arange(pictures) + chance.uniform(0, window, pictures)
    return read[np.argsort(due, kind="stable")], read


def _join_shards(bounds: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The numbers of all pictures, shard after shard."""
    order = chance.permutation(len(bounds) - 1)
    firsts, sizes = bounds[:-1][order], np.diff(bounds)[order]
    ends = np.cumsum(sizes)
    return np.arange(bounds[-1]) + np.repeat(firsts - (ends - sizes), sizes)
