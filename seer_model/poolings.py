"""Poolings: from a map to rows, in three ways. `outputs` has their names.

    average   the mean over the map
    gem       the generalised mean: the cube root of the mean cube, so that strong places count for more; of length 1
    rmac      the largest number of each channel in squares of three sizes: a row for each square, of length 1

Rule: in fp32 whatever the network computes in; nothing is learnt here, and a square counts as much as any other.
Source: generalised mean, p = 3: Radenovic et al., arXiv:1711.02512. R-MAC: Tolias et al., arXiv:1511.05879, 3.2.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from seer_model.outputs import Pooling

LEVELS = 3
"""Sizes of R-MAC's squares: the map's short side, two thirds of it, a half."""
OVERLAP = 0.4
"""Of neighbouring squares of the first size, as near as whole squares come to it."""


def pool_maps(maps: Sequence[Tensor], pooling: Pooling) -> Tensor:
    """Read rows from maps.

    Args:
        maps: (B, C, h, w) each, the last stage's last; not negative, as they are after a ReLU.
    Returns: float32 (B, R, D), D the sum of the maps' widths: R squares of rmac, one row of the others. Rows of gem and
        rmac have length 1. What is not finite becomes NaNs; so does gem of a map that is zero, while average and rmac
        of zeros are zeros.
    """
    return torch.cat([READERS[pooling.kind](maps[stage].float()) for stage in pooling.stages], 2)


def normalise(rows: Tensor) -> Tensor:
    """(..., D) rows brought to length 1; those that are zero or not finite become NaNs."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    is_good = torch.isfinite(lengths) & (lengths > 0)
    return torch.where(is_good, rows / lengths, torch.nan)


def list_squares(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """R-MAC's squares of a map, each as its top, left and side: from those of the short side on to smaller ones."""
    short, more = min(height, width), _count_along(height, width) - 1
    for level in range(1, LEVELS + 1):
        side = max(1, 2 * short // (level + 1))
        tops = _spread(height - side, level + more * (height > width))
        lefts = _spread(width - side, level + more * (width > height))
        yield from ((top, left, side) for top, left in product(tops, lefts))


def _count_along(height: int, width: int) -> int:
    """Squares of the short side that stand along the long one."""
    short, long = sorted((height, width))
    if short == long:
        return 1
    counts = range(2, 2 + 2 * long // short)
    return min(counts, key=lambda count: abs(1 - (long - short) / ((count - 1) * short) - OVERLAP))


def _spread(room: int, count: int) -> list[int]:
    """Places from 0 to `room`, evenly."""
    return [place * room // max(1, count - 1) for place in range(count)]


def _average(feature_map: Tensor) -> Tensor:
    return feature_map.mean((2, 3))[:, None]


def _generalise(feature_map: Tensor) -> Tensor:
    return normalise(feature_map.pow(3).mean((2, 3)).pow(1 / 3))[:, None]


def _find_peaks(feature_map: Tensor) -> Tensor:
    peaks = [
        feature_map[:, :, top : top + side, left : left + side].amax((2, 3))
        for top, left, side in list_squares(*feature_map.shape[2:])
    ]
    return functional.normalize(torch.stack(peaks, 1), dim=2)


READERS = {"average": _average, "gem": _generalise, "rmac": _find_peaks}
"""Kind of a pooling -> (B, C, h, w) float32 to (B, R, C)."""
