"""Whitening: the last layer of a model, fitted without labels on its own pictures when its training ends.

    maps of the last two stages  ->  generalised mean of each, of length 1, side by side: (B, D)
                                 ->  minus the mean row, times W: (B, d), to be of length 1

SwAV leaves most of the spread of its maps in a few directions, which then decide every cosine: copies that were made
small are lost among pictures of the same brightness and sharpness. Whitening gives each direction its equal part.

Rule: what is fitted is one linear layer beside the other weights; how it was fitted is not asked when it is used.
Source: generalised mean, p = 3: Radenovic et al., arXiv:1711.02512; whitening of pooled maps for retrieval: Jegou and
Chum, ECCV 2012; VISSL's `utils/pca.py`, which SEER's copy detection uses (spec/seer.md, 4.4).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from seer_model.checkpoint import Checkpoint, build_network
from seer_model.crops import CHANCES, CropKind, cut_crops
from seer_model.errors import TrainingError
from seer_model.key_tables import WHITENING
from seer_model.preprocess import PREPROCESSINGS
from seer_model.regnet import RegNet
from seer_model.squares import Square

WEIGHT, BIAS = f"{WHITENING}weight", f"{WHITENING}bias"
FLOOR = 1e-3
"""Added to each direction's variance, as a share of the largest: what hardly varies is mostly noise."""
ROWS_EACH = 4
"""Rows that a direction must be fitted on: with fewer its variance would be that of the draw."""
MOST_BAD = 0.5
HOW = PREPROCESSINGS["vissl"]
WHOLE = CropKind(count=1, side_px=HOW.crop_px, scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=0, grey=0, blur=0)
"""The largest square in the middle, as large as what the product embeds; but of the training's, so not as sharp."""
CROPPED = CropKind(count=1, side_px=HOW.crop_px, scale=(0.35, 1.0), jitter=0, grey=0, blur=0)
"""Of a picture that comes again: the same rows once more would only seem to be more."""
BATCH = 16
RESUME = "The run's last checkpoint is whole: --resume fits the layer again."


def pool_maps(maps: Sequence[Tensor]) -> Tensor:
    """What is whitened: of each of the last two maps the generalised mean, of length 1.

    That is the cube root of the mean cube, so that strong places count for more. The last map knows more of what is
    shown, the one before more of how it looks; SEER's copy detection reads that one.

    Args:
        maps: (B, C, h, w) each, not negative, as they are after a ReLU.
    Returns: float32 (B, D), D the sum of their widths; NaNs where a map is zero everywhere, or not finite.
    """
    means = [feature_map.float().pow(3).mean((2, 3)).pow(1 / 3) for feature_map in maps[-2:]]
    return torch.cat([normalise(mean) for mean in means], 1)


def normalise(rows: Tensor) -> Tensor:
    """(B, D) rows brought to length 1; those that are zero or not finite become NaNs."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    is_good = torch.isfinite(lengths) & (lengths > 0)
    return torch.where(is_good, rows / lengths, torch.nan)


def fit_whitening(rows: Tensor) -> dict[str, Tensor]:
    """The layer after which the spread of such rows is the same in every direction that it keeps, the largest first.

    VISSL's, which this follows, sets variances below a hundred-thousandth of the largest to that.

    Args:
        rows: (N, D), as `pool_maps` gives them.
    Returns: `WEIGHT` (d, D) and `BIAS` (d,), float32; d is D, or N / `ROWS_EACH` if that is less.
    Raises: TrainingError when there are not rows enough for one direction, or one is not finite.
    """
    if len(rows) < ROWS_EACH or not rows.isfinite().all():
        raise TrainingError(
            f"The last layer cannot be fitted: of {len(rows)} crops {int(rows.isfinite().all(1).sum())} gave finite "
            f"numbers, and {ROWS_EACH} or more, all of them, must. {RESUME}"
        )
    rows = rows.double()
    mean = rows.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(rows.T))
    floor = (FLOOR * variances[-1]).clamp(min=torch.finfo(torch.float32).tiny)
    weight = (directions * (variances.clamp(min=0) + floor).rsqrt()).T.flip(0)[: len(rows) // ROWS_EACH]
    return {WEIGHT: weight.float().contiguous(), BIAS: (-weight @ mean).float()}


def has_whitening(heads: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint's heads bring a whitening."""
    return WEIGHT in heads


def build_whitening(heads: Mapping[str, Tensor]) -> nn.Linear:
    """The layer of a checkpoint, on the CPU: (B, D) -> (B, d), not of length 1 yet."""
    weight = heads[WEIGHT]
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": heads[BIAS]}, assign=True)
    return layer


def whiten(
    checkpoint: Checkpoint,
    squares: Iterable[Square | None],
    *,
    whole: int,
    device: torch.device,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint | None:
    """A model with a whitening that fits its own maps of these pictures.

    Args:
        squares: one that could not be read is None and passed over.
        whole: how many of them, from the first on, are looked at as a whole; of the others a crop is.
        should_stop: asked before each batch.
    Returns: the checkpoint, any whitening that it had replaced; None when it was told to stop.
    Raises: TrainingError, as `fit_whitening`, or if more than half of the pictures cannot be read.
    """
    network = build_network(checkpoint).eval().requires_grad_(False)
    network.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    squares = list(squares)
    good = [square for square in squares if square is not None]
    if len(good) <= MOST_BAD * len(squares):
        raise TrainingError(
            f"The last layer cannot be fitted: {len(squares) - len(good)} of {len(squares)} pictures cannot be read "
            f"any more. Is their disk still there? {RESUME}"
        )
    rows = []
    for start in range(0, len(good), BATCH):
        if should_stop():
            return None
        kind = WHOLE if start < whole else CROPPED
        rows.append(read_rows(network, good[start : start + BATCH], kind, generator, device))
    return replace(checkpoint, heads=checkpoint.heads | fit_whitening(torch.cat(rows)))


@torch.inference_mode()
def read_rows(
    network: RegNet, squares: Sequence[Square], kind: CropKind, generator: torch.Generator, device: torch.device
) -> Tensor:
    """What is whitened, float32 (B, D), of one crop of each of B squares."""
    pictures = torch.from_numpy(np.stack([square.pixels for square in squares])).permute(0, 3, 1, 2)
    crops = cut_crops(
        pictures.contiguous().to(device),
        torch.tensor([square.aspect for square in squares], dtype=torch.float32),
        torch.rand(len(squares), CHANCES, generator=generator),
        kind,
        mean=torch.tensor(HOW.mean, device=device),
        std=torch.tensor(HOW.std, device=device),
    )
    return pool_maps(network.read_maps(crops.contiguous(memory_format=torch.channels_last))).cpu()
