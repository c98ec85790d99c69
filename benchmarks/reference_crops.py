"""The reference's data: crops made picture by picture with Pillow, in the workers of a torch DataLoader.

What is measured against: it does what the recipe's `CropKind` says in the way that one writes first, and takes no care
to be fast beyond what is usual (as many workers as cores, kept alive, pinned memory for a GPU).

Rule: pictures lie in memory, encoded or decoded, so the disk is no factor; what one crop is, `CropKind` alone says.
Source: SwAV, arXiv:2006.09882, appendix: random resized crop, flip, colour distortion, grey, blur, in this order.
"""

import io
import math
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from indexer.shards import Place, read_place
from seer_model.crops import CropKind
from seer_model.errors import PileError, SettingsError
from seer_model.preprocess import PREPROCESSINGS

ATTEMPTS = 10
"""At a box that fits, before one in the middle is taken."""
PREFETCHED = 2
"""Batches that each worker may be ahead."""
SHARED_MEMORY = Path("/dev/shm")


class Pictures(Dataset):
    """Pictures in memory; each comes out as its C crops, (3, side, side) float32, normalised."""

    def __init__(
        self, contents: Sequence[bytes], kinds: Sequence[CropKind], sizes: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Keep the bytes of encoded files, or, with the sizes (width, height), RGB pixels."""
        # One tensor: workers share it, where a list would be copied into each.
        self._bytes = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8)
        self._ends = np.cumsum([len(content) for content in contents])
        self._sizes, self._kinds = sizes, kinds

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> list[Tensor]:
        picture = self._open(number)
        return [to_tensor(cut_crop(picture, kind)) for kind in self._kinds for _ in range(kind.count)]

    def _open(self, number: int) -> Image.Image:
        start = self._ends[number - 1] if number else 0
        content = self._bytes[start : self._ends[number]].numpy().tobytes()
        if self._sizes is not None:
            return Image.frombytes("RGB", self._sizes[number], content)
        return decode(content)


def decode(content: bytes) -> Image.Image:
    """An encoded picture as RGB."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def read_encoded(places: Iterable[Place]) -> list[bytes]:
    """The bytes of pictures as they lie on the disk."""
    return [read_place(place) for place in places]


def decode_all(encoded: Iterable[bytes]) -> tuple[list[bytes], list[tuple[int, int]]]:
    """RGB pixels and sizes (width, height) of encoded pictures.

    Raises: PileError when Pillow cannot read one of them.
    """
    pixels, sizes = [], []
    for number, content in enumerate(encoded):
        try:
            picture = decode(content)
        except OSError as error:
            raise PileError(f"Picture {number} cannot be decoded ({error}). Measure on good pictures.") from error
        pixels.append(picture.tobytes())
        sizes.append(picture.size)
    return pixels, sizes


def make_loader(
    pictures: Pictures, batch_size: int, batches: int, workers: int, device: torch.device
) -> "DataLoader[list[Tensor]]":
    """Batches as lists of C tensors (B, 3, side, side), as many in one pass as are asked for.

    Args:
        workers: processes; 0 makes the crops in this one.
    """
    return DataLoader(
        pictures,
        batch_size=batch_size,
        # One permutation after the other, so that an epoch's end costs the reference nothing.
        sampler=RandomSampler(pictures, num_samples=batches * batch_size),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=PREFETCHED if workers else None,
        persistent_workers=workers > 0,
        # Not fork: this process holds torch's threads and the feed's.
        multiprocessing_context=_choose_start() if workers else None,
    )


def _choose_start() -> str:
    return "forkserver" if "forkserver" in torch.multiprocessing.get_all_start_methods() else "spawn"


def require_shared_memory(kinds: Sequence[CropKind], batch_size: int, workers: int) -> None:
    """Refuse what the workers could not hand over: the system would end them in the middle, without a word.

    Raises: SettingsError.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return
    values = sum(kind.count * 3 * kind.side_px**2 for kind in kinds)
    # Two loaders stand side by side, but only one of them works at a time.
    needed = 4 * values * batch_size * (workers * PREFETCHED + 1)
    status = os.statvfs(SHARED_MEMORY)
    if (free := status.f_bavail * status.f_frsize) < needed:
        raise SettingsError(
            f"The reference's {workers} workers need {needed >> 20:,} MB of shared memory, and {free >> 20:,} MB are "
            "free. Use a smaller --batch-size or fewer --workers, or give the container more (--shm-size)."
        )


# --- one crop ----------------------------------------------------------------------------------------------------


def cut_crop(picture: Image.Image, kind: CropKind) -> Image.Image:
    """One crop of a picture, distorted; chance is the module `random`, which a DataLoader seeds in each worker."""
    left, top, width, height = choose_box(*picture.size, kind)
    crop = picture.crop((left, top, left + width, top + height))
    crop = crop.resize((kind.side_px, kind.side_px), Image.Resampling.BILINEAR)
    if random.random() < kind.flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < kind.jitter:
        crop = distort_colours(crop, kind.strength)
    if random.random() < kind.grey:
        crop = crop.convert("L").convert("RGB")
    if random.random() < kind.blur:
        crop = crop.filter(ImageFilter.GaussianBlur(random.uniform(*kind.blur_px)))
    return crop


def choose_box(width: int, height: int, kind: CropKind) -> tuple[int, int, int, int]:
    """Left, top, width, height in pixels: the first drawn box that fits, else the largest in the middle."""
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*kind.scale)
        ratio = math.exp(random.uniform(math.log(kind.ratio[0]), math.log(kind.ratio[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            return random.randint(0, width - across), random.randint(0, height - down), across, down
    ratio = min(max(width / height, kind.ratio[0]), kind.ratio[1])
    across, down = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (width - across) // 2, (height - down) // 2, across, down


def distort_colours(picture: Image.Image, strength: float) -> Image.Image:
    """Brightness, contrast, saturation and hue by drawn amounts, in a drawn order."""
    reach = 0.8 * strength
    steps = [
        lambda one, enhancer=enhancer: enhancer(one).enhance(random.uniform(max(0.0, 1 - reach), 1 + reach))
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    ]
    steps.append(lambda one: turn_hue(one, random.uniform(-0.2 * strength, 0.2 * strength)))
    random.shuffle(steps)
    for step in steps:
        picture = step(picture)
    return picture


def turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    """Hue moved on by a part of a whole turn, in HSV."""
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + round(255 * turns)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) float32, normalised."""
    how = PREPROCESSINGS["vissl"]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
    return (pixels - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]
