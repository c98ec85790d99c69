"""A heat map drawn over a picture: where what matched lies.

    cosines of places -> the part that stands out -> as fine as the picture -> light where it matched, dark elsewhere

Rule: pixels in, a WebP out; nothing is asked and nothing is kept.
"""

import io

import numpy as np
from PIL import Image

COLOUR = (255, 176, 32)
"""Laid over what matched most."""
ENLARGED = 2
"""A network sees a picture small."""
DARKEST, STRONGEST = 0.4, 0.45
"""What is left of the light where nothing matched; how much of the colour stands where most did."""


def draw_heat(pixels: np.ndarray, places: np.ndarray) -> bytes:
    """A picture, (H, W, 3) uint8, with (h, w) float32 cosines of its places laid over it. Returns: a larger WebP."""
    pixels = np.asarray(Image.fromarray(pixels).resize([ENLARGED * side for side in pixels.shape[1::-1]]))
    low, high = np.quantile(places, 0.5), places.max()
    share = np.clip((places - low) / max(float(high - low), 1e-6), 0, 1)
    field = Image.fromarray(np.uint8(255 * share)).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    heat = np.asarray(field, dtype=np.float32)[:, :, None] / 255
    lit = pixels * (DARKEST + (1 - DARKEST) * heat)
    drawn = lit + STRONGEST * heat**2 * (np.array(COLOUR, dtype=np.float32) - lit)
    stream = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(drawn, 0, 255))).save(stream, "WEBP", quality=90)
    return stream.getvalue()
