"""From an upright picture to the square of pixels that the backbone sees, one named choice for each convention.

The libraries that publish SEER differ in how they resize and cut (spec/seer.md, 2.7); each way gives other embeddings,
so the choice is part of the fingerprint.

Geometry is torchvision's, stated anew: with the short side s and the long side l, the long side becomes
int(l * size / s); the centre cut of c pixels out of h begins at int(round((h - c) / 2)), halves to even.

Rule: pixels in, pixels out, uint8; the mean and std are only kept here, the backbone applies them.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from PIL import Image

from seer_model.errors import SettingsError

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the backbone's input.

    Raises: SettingsError when the values do not go together.
    """

    name: str
    resize: Literal["short", "long", "squash"]
    """Which side becomes `resize_px`; squash: both, whatever the aspect."""
    resize_px: int
    crop_px: int | None = None
    """Side of the square cut from the centre after a short-side resize; None: nothing is cut."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of red, green, blue in 0..1; so is `std`."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.resize not in ("short", "long", "squash"):
            raise SettingsError(f"resize is {self.resize!r}; allowed are 'short', 'long' and 'squash'.")
        if self.interpolation not in FILTERS:
            raise SettingsError(f"interpolation is {self.interpolation!r}; allowed are {', '.join(FILTERS)}.")
        if self.resize_px < 32:
            raise SettingsError(f"resize_px is {self.resize_px}; it must be 32 or more.")
        if (self.crop_px is not None) != (self.resize == "short"):
            raise SettingsError(f"crop_px is {self.crop_px}; it goes with a resize of the short side, and only there.")
        if self.crop_px is not None and not 32 <= self.crop_px <= self.resize_px:
            raise SettingsError(f"crop_px is {self.crop_px}; allowed are 32 to resize_px ({self.resize_px}).")

    @property
    def short_side_px(self) -> int:
        """The short side that a decoder must keep: twice what is needed, so that its own shrinking does no harm."""
        return 2 * self.resize_px

    def describe(self) -> dict:
        """Everything that changes an embedding, as JSON-able values, for the fingerprint and the manifest."""
        values = asdict(self) | {"short_side_px": self.short_side_px}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


CHOICES = (
    Preprocessing(name="vissl", resize="short", resize_px=256, crop_px=224),
    Preprocessing(name="vissl-finetuned", resize="short", resize_px=384, crop_px=384, interpolation="bicubic"),
    Preprocessing(name="copydays", resize="long", resize_px=224),
    Preprocessing(name="geolocalisation", resize="short", resize_px=224, crop_px=224),
    Preprocessing(name="timm", resize="short", resize_px=232, crop_px=224, interpolation="bicubic"),
    Preprocessing(name="timm-finetuned", resize="short", resize_px=384, crop_px=384, interpolation="bicubic"),
    Preprocessing(name="huggingface", resize="squash", resize_px=384, interpolation="bicubic"),
)
PREPROCESSINGS = {choice.name: choice for choice in CHOICES}
"""By name; `vissl` is the default."""


def prepare(picture: Image.Image, how: Preprocessing) -> np.ndarray:
    """Resize and cut a picture.

    Args:
        picture: mode RGB, upright, any size from 1 x 1 on.
    Returns: (H, W, 3) uint8. H and W are crop_px, or resize_px when squashed; with a long-side resize the longer of
        them is resize_px and the other follows the aspect, at least 1.
    """
    width, height = _resized_size(picture.size, how)
    across, down = (width, height) if how.crop_px is None else (how.crop_px, how.crop_px)
    left, top = _centre(width, across), _centre(height, down)
    # Only the part that stays is computed: a strip of 1 x 20000 pixels would grow to a gigabyte before it is cut.
    x, y = picture.width / width, picture.height / height
    box = (left * x, top * y, min((left + across) * x, picture.width), min((top + down) * y, picture.height))
    return np.array(picture.resize((across, down), FILTERS[how.interpolation], box=box))


def _resized_size(size: tuple[int, int], how: Preprocessing) -> tuple[int, int]:
    width, height = size
    if how.resize == "squash":
        return how.resize_px, how.resize_px
    fixed = min(size) if how.resize == "short" else max(size)
    # The side that is fixed comes out exact: n * size / n is size.
    return max(1, width * how.resize_px // fixed), max(1, height * how.resize_px // fixed)


def _centre(length: int, kept: int) -> int:
    return round((length - kept) / 2)
