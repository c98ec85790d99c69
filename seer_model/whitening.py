"""Whitening: the last layer of a model, fitted without labels on its own pictures when its training ends.

    maps  ->  pooled (`poolings`), if nothing else is asked for the generalised means of the last two stages: (B, R, D)
          ->  minus the mean row, times W: (B, R, d), to be of length 1

SwAV leaves most of the spread of its maps in a few directions, which then decide every cosine: copies that were made
small are lost among pictures of the same brightness and sharpness. Whitening gives each direction its equal part.

Rule: what is fitted is one linear layer beside the other weights, whose names say what it stands on; how it was fitted
is not asked when it is used.
Source: whitening of pooled maps for retrieval: Jegou and Chum, ECCV 2012; VISSL's `utils/pca.py`, which SEER's copy
detection uses (spec/seer.md, 4.4).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from seer_model.checkpoint import Checkpoint, build_network
from seer_model.crops import CHANCES, CropKind, cut_crops
from seer_model.errors import SettingsError, TrainingError
from seer_model.key_tables import WHITENING
from seer_model.outputs import POOLINGS, UNNAMED, Pooling
from seer_model.poolings import pool_maps
from seer_model.preprocess import PREPROCESSINGS
from seer_model.regnet import RegNet
from seer_model.squares import Square

ROWS_EACH = 4
"""Pictures that a direction must be fitted on: with fewer its variance would be that of the draw."""
MOST_BAD = 0.5
HOW = PREPROCESSINGS["vissl"]
WHOLE = CropKind(count=1, side_px=HOW.crop_px, scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=0, grey=0, blur=0)
"""The largest square in the middle, as large as what the product embeds; but of the training's, so not as sharp."""
CROPPED = CropKind(count=1, side_px=HOW.crop_px, scale=(0.35, 1.0), jitter=0, grey=0, blur=0)
"""Of a picture that comes again: the same rows once more would only seem to be more."""
BATCH = 16
SIDE_PX = 256
"""Of the squares that pictures are best kept as for this."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a whitening stands on, and how it is fitted."""

    pooling: Pooling = UNNAMED
    numbers: int | None = None
    """Directions that are kept at most, those of the largest variance; None: all."""
    floor: float = 1e-3
    """A share of the largest variance, for what hardly varies is mostly noise."""
    is_added: bool = True
    """Whether the floor is added to every variance; else those below it are set to it."""

    def __post_init__(self) -> None:
        if self.numbers is not None and self.numbers < 1:
            raise SettingsError(f"An embedding of {self.numbers} numbers cannot be; it must have 1 or more.")


OURS = Fit()
COPIES = "copies"
FITS = {
    COPIES: Fit(pooling=POOLINGS["rmac-res4"], numbers=1024, floor=1e-5, is_added=False),
    **{name: Fit(pooling=pooling) for name, pooling in POOLINGS.items()},
}
"""By name. `copies` is what SEER's copy detection was published with; the others are fitted as `seer pretrain` does."""


def find_fit(name: str, numbers: int | None = None) -> Fit:
    """The fit of this name, with another size of the embedding if one is given.

    Raises: SettingsError.
    """
    if name not in FITS:
        raise SettingsError(f"There is no readout {name!r} that could be whitened; allowed are {', '.join(FITS)}.")
    return FITS[name] if numbers is None else replace(FITS[name], numbers=numbers)


def fit_whitening(rows: Tensor, fit: Fit = OURS) -> dict[str, Tensor]:
    """The layer after which the spread of such rows is the same in every direction that it keeps, the largest first.

    Args:
        rows: (N, R, D), as `pool_maps` gives them of N pictures, or (N, D).
    Returns: a weight (d, D) and a bias (d,), float32, by name; d is the least of D, N / `ROWS_EACH` and `fit.numbers`.
    Raises: TrainingError when there are not rows enough for one direction, or one is not finite.
    """
    if len(rows) < ROWS_EACH or not rows.isfinite().all():
        finite = int(rows.flatten(1).isfinite().all(1).sum())
        raise TrainingError(
            f"The last layer cannot be fitted: of {len(rows)} crops {finite} gave finite numbers, and {ROWS_EACH} or "
            "more, all of them, must."
        )
    kept = min(len(rows) // ROWS_EACH, fit.numbers or rows.shape[-1])
    rows = rows.flatten(0, -2).double()
    mean = rows.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(rows.T))
    floor = (fit.floor * variances[-1]).clamp(min=torch.finfo(torch.float32).tiny)
    variances = variances.clamp(min=0) + floor if fit.is_added else variances.clamp(min=floor)
    weight = (directions * variances.rsqrt()).T.flip(0)[:kept]
    name = name_layer(fit.pooling)
    return {f"{name}weight": weight.float().contiguous(), f"{name}bias": (-weight @ mean).float()}


def name_layer(pooling: Pooling) -> str:
    """What the names of a whitening's weights begin with."""
    return WHITENING if pooling is UNNAMED else f"{WHITENING}{pooling.spelled}."


def find_whitened(heads: Mapping[str, Tensor]) -> Pooling | None:
    """What the whitening among a checkpoint's heads stands on; None if there is none."""
    return next((pooling for pooling in POOLINGS.values() if f"{name_layer(pooling)}weight" in heads), None)


def build_whitening(heads: Mapping[str, Tensor]) -> nn.Linear:
    """The layer of a checkpoint that has one, on the CPU: (B, D) -> (B, d), not of length 1 yet."""
    name = name_layer(find_whitened(heads))
    weight = heads[f"{name}weight"]
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": heads[f"{name}bias"]}, assign=True)
    return layer


class Pile(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def read(self, numbers: Iterable[int]) -> Iterable[Square | None]:
        """The pictures in the order asked for, None for a bad one."""


def whiten(
    checkpoint: Checkpoint,
    pile: Pile,
    *,
    crops: int,
    device: torch.device,
    fit: Fit = OURS,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint | None:
    """A model with a whitening that fits its own maps of these pictures.

    Args:
        crops: how many are looked at, of pictures drawn at random: each as a whole, and if there are fewer, again in
            crops. Bad pictures are passed over.
        should_stop: asked at each batch.
    Returns: the checkpoint, any whitening that it had replaced; None when it was told to stop.
    Raises: TrainingError, as `fit_whitening`, or if half of the pictures or more cannot be read.
    """
    rows = []
    for maps in look_at(checkpoint, pile, crops=crops, device=device, seed=seed):
        if should_stop():
            return None
        rows.append(pool_maps(maps, fit.pooling).cpu())
    heads = {key: weight for key, weight in checkpoint.heads.items() if not key.startswith(WHITENING)}
    return replace(checkpoint, heads=heads | fit_whitening(torch.cat(rows), fit))


def look_at(
    checkpoint: Checkpoint, pile: Pile, *, crops: int, device: torch.device, seed: int = 0
) -> Iterator[list[Tensor]]:
    """The network's maps, batch by batch, of pictures drawn as `whiten` says. Raises: TrainingError, as there."""
    order = np.random.default_rng([seed, *b"whitening"]).permutation(len(pile))
    squares = list(pile.read(np.resize(order, crops).tolist()))
    good = [square for square in squares if square is not None]
    if len(good) <= MOST_BAD * len(squares):
        raise TrainingError(
            f"The last layer cannot be fitted: {len(squares) - len(good)} of {len(squares)} pictures cannot be read "
            "any more. Is their disk still there?"
        )
    network = build_network(checkpoint).eval().requires_grad_(False)
    network.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(good), BATCH):
        kind = WHOLE if start < len(pile) else CROPPED
        yield read_maps(network, good[start : start + BATCH], kind, generator, device)


@torch.inference_mode()
def read_maps(
    network: RegNet, squares: Sequence[Square], kind: CropKind, generator: torch.Generator, device: torch.device
) -> list[Tensor]:
    """The maps of one crop of each of B squares."""
    pictures = torch.from_numpy(np.stack([square.pixels for square in squares])).permute(0, 3, 1, 2)
    crops = cut_crops(
        pictures.contiguous().to(device),
        torch.tensor([square.aspect for square in squares], dtype=torch.float32),
        torch.rand(len(squares), CHANCES, generator=generator),
        kind,
        mean=torch.tensor(HOW.mean, device=device),
        std=torch.tensor(HOW.std, device=device),
    )
    return network.read_maps(crops.contiguous(memory_format=torch.channels_last))
