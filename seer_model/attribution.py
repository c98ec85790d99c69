"""Attribution: which places of a picture its similarity to something else comes from.

    maps -> the window of 3 x 3 fields around each place -> the readout, as if that were all -> cosine with the aim

Maps of several stages are brought to the finest one. So every place has an embedding of its own, and the answer is how
similar that is. Gradients times maps were tried and found less: of 50 patches pasted into other photos the largest
value lay inside of the patch for 29 to 33, by this way for 40 to 49 (docs/lab-log.md).

Rule: the weights are only read; in fp32 whatever the network computes in.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

WINDOW = 3
"""Fields along a side of what is read as one place."""


def attribute(
    maps: Sequence[Tensor], stages: Sequence[int], readout: Callable[[Sequence[Tensor]], Tensor], aim: Tensor
) -> Tensor:
    """Compare each place of a picture with an aim.

    Args:
        maps: of the stages, (1, C, h, w) each, the last one last.
        stages: those that the readout reads, counted from the last.
        readout: maps of B pictures -> (B, D) of length 1.
        aim: (D,) float32 of length 1.
    Returns: (h, w) float32 cosines of the finest map that is read; -1 where a place has no embedding.
    """
    height, width = max((maps[stage].shape[2:] for stage in stages), key=lambda shape: shape[0] * shape[1])
    # What the readout does not look at stays as small as it can be.
    windows = [one.new_empty((height * width, 0, 1, 1)) for one in maps]
    for stage in stages:
        windows[stage] = _cut_windows(maps[stage].float(), (height, width))
    return (readout(windows) @ aim).nan_to_num(-1.0).reshape(height, width)


def _cut_windows(feature_map: Tensor, shape: tuple[int, int]) -> Tensor:
    """(1, C, ., .) -> (h * w, C, WINDOW, WINDOW), row by row; beyond the edge stands what stands at it."""
    fine = functional.interpolate(feature_map, size=shape, mode="nearest")
    fine = functional.pad(fine, (WINDOW // 2,) * 4, mode="replicate")
    windows = fine.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)
    return windows[0].permute(1, 2, 0, 3, 4).reshape(-1, fine.shape[1], WINDOW, WINDOW)
