"""A picture to test with, in every format."""

import io
from functools import cache

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - teaches Pillow to write JPEG XL
from PIL import Image

from seer_model.pictures import open_picture
from tests.seer_model.making_dng import make_dng


def make_scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture without any symmetry: each of its eight orientations is a different one."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / width, 255 * y / height
    blue = 127 + 120 * np.sin(x / 9.0) * np.cos(y / 13.0)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encode(picture: Image.Image, name: str, **options: object) -> bytes:
    """The bytes of a file in this format; Pillow's, HEIC, or RAW, which is a DNG around a JPEG."""
    stream = io.BytesIO()
    if name == "RAW":
        return make_dng(encode(picture, "JPEG", quality=90), **options)
    if name == "HEIC":
        pillow_heif.from_pillow(picture).save(stream, **options)
        return stream.getvalue()
    picture.save(stream, format=name, **options)
    return stream.getvalue()


def pixels_of(data: bytes, **options: object) -> np.ndarray:
    """(H, W, 3) uint8 as our decoder sees them."""
    picture = open_picture(data, **options)
    assert picture.pixels.mode == "RGB"
    return np.asarray(picture.pixels)


@cache
def every_format() -> dict[str, bytes]:
    """The scene in each format that is decoded."""
    scene = make_scene()
    return {
        "JPEG": encode(scene, "JPEG", quality=90),
        "JPEG, progressive": encode(scene, "JPEG", progressive=True),
        "PNG": encode(scene, "PNG"),
        "WEBP": encode(scene, "WEBP"),
        "GIF": encode(scene, "GIF"),
        "TIFF": encode(scene, "TIFF"),
        "TIFF, deflate": encode(scene, "TIFF", compression="tiff_adobe_deflate"),
        "BMP": encode(scene, "BMP"),
        "AVIF": encode(scene, "AVIF"),
        "HEIC": encode(scene, "HEIC", quality=90),
        "JXL": encode(scene, "JXL"),
        "JXL, in boxes": encode(scene, "JXL", use_container=True),
        "RAW": encode(scene, "RAW"),
    }
