"""Large JPEGs to measure on, made of small photos: enlarged, under grain, so that they have as many bytes as a
camera's.

Rule: the same photos and the same count give the same bytes, on every machine with the same Pillow.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from indexer.workers import count_cores

QUALITY = 90
GRAIN, TILE_PX = 7.0, 512
"""Standard deviation of the grain in levels of 255; side of the square of it that is laid out again and again."""


def make_large(photos: Sequence[Path], target: Path, megapixels: float) -> list[Path]:
    """Write a large JPEG of each photo into a folder, in the aspect that it has. Returns: the files."""
    target.mkdir(parents=True)
    files = [target / f"{number:06d}.jpg" for number in range(len(photos))]
    tile = np.random.default_rng(0).normal(0, GRAIN, (TILE_PX, TILE_PX, 3)).astype(np.float32)
    with ThreadPoolExecutor(count_cores()) as threads:
        list(threads.map(_enlarge, photos, files, repeat(megapixels), repeat(tile)))
    return files


def _enlarge(photo: Path, file: Path, megapixels: float, tile: np.ndarray) -> None:
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = round(picture.width * scale), round(picture.height * scale)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    Image.fromarray(_add_grain(pixels, tile)).save(file, quality=QUALITY)


def _add_grain(pixels: np.ndarray, tile: np.ndarray) -> np.ndarray:
    grained = np.empty_like(pixels)
    # Piece by piece: a whole large picture as floats would take 150 MB.
    for top in range(0, len(pixels), TILE_PX):
        for left in range(0, pixels.shape[1], TILE_PX):
            piece = pixels[top : top + TILE_PX, left : left + TILE_PX]
            grain = tile[: piece.shape[0], : piece.shape[1]]
            grained[top : top + TILE_PX, left : left + TILE_PX] = np.clip(piece + grain, 0, 255)
    return grained
