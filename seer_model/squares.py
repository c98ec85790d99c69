"""Pictures squeezed to one size: squares of pixels that fit into one array, each with the aspect it had.

Training keeps every picture as such a square. The crop code draws its boxes in the proportions of the upright picture
and undoes the squeeze by the aspect.

Rule: pixels in, pixels out, uint8; decoding processes import this module, so it knows of no torch.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Square:
    """One picture squeezed to a square."""

    pixels: np.ndarray
    """(S, S, 3) uint8, RGB, upright."""
    aspect: float
    """Width / height of the upright picture before it was squeezed."""


def squeeze(picture: Image.Image, side_px: int) -> Square:
    """Resize a picture to side_px x side_px whatever its aspect: bilinear, antialiased where it shrinks.

    Args:
        picture: mode RGB, upright, any size from 1 x 1 on.
    """
    pixels = np.array(picture.resize((side_px, side_px), Image.Resampling.BILINEAR))
    return Square(pixels, picture.width / picture.height)
