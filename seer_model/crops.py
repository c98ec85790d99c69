"""Multi-crop: from a batch of pictures to the crops that a training step learns from, on the device, all at once.

    pictures (B, 3, S, S) uint8  ->  cut + resize + flip  ->  colour  ->  blur  ->  normalise  ->  (B, 3, side, side)

A picture is squeezed to a square; its aspect, width over height, undoes that. Cutting, resizing and flipping are one
product with two matrices for each crop (antialiased bilinear, as Pillow resizes with a box); the colour distortion is
one affine map of RGB for each crop; the blur is a product again. So nothing is done picture by picture.

Shapes: R = n * B crops, n of each of B pictures; crop r is of picture r mod B.

Rule: nothing here draws. A crop is decided by a row of `CHANCES` uniform numbers, so that it does not matter which
device, rank or run cuts it.
Source: SwAV, arXiv:2006.09882, appendix; numbers in VISSL's `data/ssl_transforms`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from seer_model.errors import SettingsError

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, Pillow's mode L."""
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Rows: luma, and the two axes of chroma that a change of hue turns."""
CONTRAST = 1
"""Its place among brightness, contrast, saturation, hue."""
CANDIDATES = 10
"""Boxes tried before the largest one in the middle is taken."""
CHANCES = 2 * CANDIDATES + 15
"""Uniform numbers in [0, 1) that decide one crop."""
BLUR = CHANCES - 2
"""The one that decides whether it is blurred."""


@dataclass(frozen=True, kw_only=True)
class CropKind:
    """Crops of one size: how many of each picture, and what is done to them."""

    count: int
    side_px: int
    scale: tuple[float, float]
    """Share of the picture's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height, in the picture before it was squeezed."""
    flip: float = 0.5
    """Probability; so are `jitter`, `grey` and `blur`."""
    jitter: float = 0.8
    strength: float = 1.0
    """Of the colour distortion: brightness, contrast and saturation by up to 0.8 of this, hue by 0.2 of a turn."""
    grey: float = 0.2
    blur: float = 0.5
    blur_px: tuple[float, float] = (0.1, 2.0)
    """Standard deviation."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.side_px < 8:
            raise SettingsError(f"{self.count} crops of {self.side_px} px; allowed are 1 or more of 8 px or more.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise SettingsError(f"The crops' scale is {self.scale}; it must rise within (0, 1].")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise SettingsError(f"The crops' ratio is {self.ratio}; it must rise and be above 0.")
        for name in ("flip", "jitter", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"The probability {name} is {getattr(self, name)}; allowed are 0 to 1.")
        if not 0 <= self.strength <= 1.25 or not 0 < self.blur_px[0] <= self.blur_px[1]:
            raise SettingsError(f"strength {self.strength} must lie in 0..1.25, blur_px {self.blur_px} rise above 0.")


def cut_crops(
    pictures: Tensor, aspects: Tensor, chances: Tensor, kind: CropKind, *, mean: Tensor, std: Tensor
) -> Tensor:
    """Cut crops of one kind out of pictures and distort them: n of each picture, as many as there are chances for.

    Args:
        pictures: (B, 3, S, S) uint8 on the training device, squeezed to squares.
        aspects: (B,) float32 on the CPU, width / height before the squeeze.
        chances: (n * B, CHANCES) float32 on the CPU, uniform in [0, 1); crop r is of picture r mod B.
        mean, std: (3,) on the device, of RGB in 0..1.
    Returns: float32 (n * B, 3, side_px, side_px), normalised.
    """
    pixels, device = pictures.shape[-1], pictures.device
    # Chosen before they are sent: to count them there, the device would have to be waited for.
    blurred = send((chances[:, BLUR] < kind.blur).nonzero()[:, 0], device)
    drawn = _read_chances(send(chances, device), kind)
    boxes = choose_boxes(send(aspects.repeat(len(chances) // len(pictures)), device), drawn, kind)
    rows = _weigh_pixels(boxes[:, 1], boxes[:, 3], kind.side_px, pixels)
    columns = _weigh_pixels(boxes[:, 0], boxes[:, 2], kind.side_px, pixels)
    columns = torch.where(drawn.is_flipped[:, None, None], columns.flip(1), columns)
    crops = _resample(pictures, rows, columns)
    _distort_colours(crops, drawn)
    _blur(crops, blurred, drawn.sigmas)
    return (crops - mean[:, None, None]) / std[:, None, None]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, whose work that is under way is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the chances mean for one kind of crop; one row for each crop."""

    areas: Tensor
    """(R, CANDIDATES), as shares of the picture's."""
    ratios: Tensor
    """(R, CANDIDATES), width / height."""
    places: Tensor
    """(R, 2): 0 puts the box at the left, the top; 1 at the right, the bottom."""
    is_flipped: Tensor
    factors: Tensor
    """(R, 3) of brightness, contrast, saturation."""
    turns: Tensor
    """(R,) of hue, in whole turns."""
    order: Tensor
    """(R, 4): in which these four are applied."""
    is_jittered: Tensor
    is_grey: Tensor
    sigmas: Tensor
    """(R,) of the blur, in pixels; 0: none."""


def _read_chances(chances: Tensor, kind: CropKind) -> Drawn:
    parts = (CANDIDATES, CANDIDATES, 2, 3, 4, 1, 1, 1, 1, 1, 1)
    areas, ratios, places, factors, order, *single = chances.split(parts, dim=1)
    turns, flip, jitter, grey, blur, sigma = (column[:, 0] for column in single)
    reach = 0.8 * kind.strength
    return Drawn(
        areas=_spread(areas, *kind.scale),
        ratios=_spread(ratios, math.log(kind.ratio[0]), math.log(kind.ratio[1])).exp(),
        places=places,
        is_flipped=flip < kind.flip,
        factors=_spread(factors, max(0.0, 1 - reach), 1 + reach),
        turns=_spread(turns, -0.2 * kind.strength, 0.2 * kind.strength),
        order=order.argsort(1),
        is_jittered=jitter < kind.jitter,
        is_grey=grey < kind.grey,
        sigmas=torch.where(blur < kind.blur, _spread(sigma, *kind.blur_px), 0.0),
    )


def _spread(chances: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * chances


def choose_boxes(aspects: Tensor, drawn: Drawn, kind: CropKind) -> Tensor:
    """The first box of the drawn areas and ratios that lies inside its picture, else the largest in the middle.

    Returns: (R, 4) in 0..1 of the picture's width or height: left, top, width, height.
    """
    # The picture is `aspect` wide and 1 high.
    areas = drawn.areas * aspects[:, None]
    widths, heights = (areas * drawn.ratios).sqrt() / aspects[:, None], (areas / drawn.ratios).sqrt()
    fits = (widths <= 1) & (heights <= 1)
    does_one_fit = fits.any(1, keepdim=True)
    first = fits.int().argmax(1, keepdim=True)
    sizes = torch.cat([widths.gather(1, first), heights.gather(1, first)], 1)
    sizes = torch.where(does_one_fit, sizes, _find_largest(aspects, kind))
    places = torch.where(does_one_fit, drawn.places, 0.5)
    return torch.cat([places * (1 - sizes), sizes], 1)


def _find_largest(aspects: Tensor, kind: CropKind) -> Tensor:
    ratios = aspects.clamp(*kind.ratio)
    return torch.stack([(ratios / aspects).clamp(max=1), (aspects / ratios).clamp(max=1)], 1)


def _weigh_pixels(starts: Tensor, lengths: Tensor, side: int, pixels: int) -> Tensor:
    """(R, side, pixels): what each pixel of a line gives to each pixel of the crop; a tent as wide as the step."""
    starts, steps = starts * pixels, lengths * pixels / side
    centres = starts[:, None] + steps[:, None] * (torch.arange(side, device=starts.device) + 0.5)
    distances = torch.arange(pixels, device=starts.device) + 0.5 - centres[..., None]
    weights = (1 - distances.abs() / steps.clamp(min=1)[:, None, None]).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def _resample(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float32 (n * B, 3, side, side) in 0..1."""
    count, channels, _, pixels = pictures.shape
    side = rows.shape[1]
    lines = pictures.float().div_(255).reshape(count, channels * pixels, pixels)
    # All crops of one picture side by side: the picture is gone through once.
    across = columns.view(-1, count, side, pixels).permute(1, 3, 0, 2).reshape(count, pixels, -1)
    narrow = torch.bmm(lines, across).view(count, channels, pixels, -1, side).permute(3, 0, 1, 2, 4)
    return torch.matmul(rows[:, None], narrow.reshape(len(rows), channels, pixels, side))


def _distort_colours(crops: Tensor, drawn: Drawn) -> None:
    """Apply brightness, contrast, saturation and hue in each crop's own order, then grey, in place.

    All five are affine in RGB, so they become one matrix; colours are held within 0..1 once, after the last.
    """
    matrices, shifts = _compose_colours(crops.mean((2, 3)), drawn)
    flat = crops.view(*crops.shape[:2], -1)
    torch.baddbmm(shifts[..., None], matrices, flat.clone(), out=flat)
    crops.clamp_(0, 1)


def _compose_colours(means: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """(R, 3, 3) and (R, 3): the affine map of each crop, whose mean colour is in `means` (R, 3)."""
    device, count = means.device, len(means)
    one, grey = _put_constants(device)[:2]
    lifts, operations = 1 - drawn.factors[:, 1], _list_operations(drawn)
    matrices, shifts, each = one.repeat(count, 1, 1), torch.zeros_like(means), torch.arange(count, device=device)
    for which in drawn.order.unbind(1):
        operation = operations[each, which]
        mean_grey = (torch.einsum("bij,bj->bi", matrices, means) + shifts) @ grey
        lift = torch.where(which == CONTRAST, lifts * mean_grey, 0.0)
        matrices, shifts = operation @ matrices, torch.einsum("bij,bj->bi", operation, shifts) + lift[:, None]
    is_jittered, is_grey = drawn.is_jittered[:, None], drawn.is_grey[:, None]
    matrices, shifts = torch.where(is_jittered[..., None], matrices, one), torch.where(is_jittered, shifts, 0.0)
    to_grey = torch.where(is_grey[..., None], grey.expand(3, 3), one)
    return to_grey @ matrices, torch.einsum("bij,bj->bi", to_grey, shifts)


def _list_operations(drawn: Drawn) -> Tensor:
    """(R, 4, 3, 3): brightness, contrast but for its shift, saturation, hue."""
    one, grey = _put_constants(drawn.factors.device)[:2]
    brightness, contrast, saturation = (factor[:, None, None] for factor in drawn.factors.unbind(1))
    saturate = saturation * one + (1 - saturation) * grey.expand(3, 3)
    return torch.stack([brightness * one, contrast * one, saturate, _turn_hue(drawn.turns)], 1)


def _turn_hue(turns: Tensor) -> Tensor:
    """(R,) parts of a turn -> (R, 3, 3): RGB turned about the grey axis, luma kept."""
    one, _, axes, back = _put_constants(turns.device)
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    turn = one.repeat(len(turns), 1, 1)
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    return back @ turn @ axes


@lru_cache(maxsize=8)
def _put_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """On a device: the unit matrix, GREY, YIQ and its inverse; sent once, as the device is waited for."""
    with torch.inference_mode(False):
        axes = torch.tensor(YIQ)
        constants = torch.eye(3), torch.tensor(GREY), axes, torch.linalg.inv(axes)
        return tuple(constant.to(device) for constant in constants)


def _blur(crops: Tensor, chosen: Tensor, sigmas: Tensor) -> None:
    """Blur those that are chosen, by their numbers, with a Gaussian, in place."""
    places = torch.arange(crops.shape[-1], device=crops.device)
    distances = (places[:, None] - places).square()
    weights = (distances / (-2 * sigmas[chosen].square()[:, None, None])).exp()
    weights = (weights / weights.sum(2, keepdim=True))[:, None]
    crops[chosen] = weights @ crops[chosen] @ weights.transpose(2, 3)
