"""From bytes to an upright RGB picture, and from a picture to a thumbnail.

What the bytes are is told by their content, never by a name. The pixel count is checked in the header, before anything
is decoded. A file that is cut short is refused: half a picture would be found by nothing.

Rule: whatever the decoder throws at bad bytes leaves this module as PictureError, a reason in one sentence without a
path. Decoding processes import this module, so it knows of no torch.
"""

import io
import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from seer_model.errors import PictureError
from seer_model.extra_decoders import decode_jxl, measure_jxl, open_heic, open_preview
from seer_model.formats import DECODER_ERRORS, DECODERS, name_format

PILLOW = re.compile(r"PIL\.")

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""

BYTES_PER_PIXEL = 28
"""What decoding takes at most: 21 were measured, for a WEBP with transparency; most pictures take 8."""
DECODER_BYTES = 512 << 20
"""What a process and its libraries take before the first pixel."""

SRGB_NAMES = ("sRGB", "c2")
"""How descriptions of profiles begin that change nothing; c2 is the short sRGB profile that many web sites put in."""


class Region(NamedTuple):
    """A part of a picture, in pixels of the upright original; of a RAW file, of its preview."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """Pixels, upright, and what is known of the original."""

    pixels: Image.Image
    """Mode RGB, without any metadata; smaller than the original where the decoder shrank it, or a part was cut out."""
    width: int
    """Of the upright original, in pixels; so is `height`. Of a RAW file, its preview's."""
    height: int
    format: str
    """As `formats.name_format` names it."""


def open_picture(
    data: bytes, *, max_megapixels: float = 200.0, short_side_px: int | None = None, region: Region | None = None
) -> Picture:
    """Decode the first frame of a picture: upright by EXIF, sRGB, transparency laid on white.

    Args:
        data: a whole file.
        max_megapixels: a larger picture is refused by its header.
        short_side_px: the decoder may shrink the picture as it reads (JPEG: by 2, 4 or 8), but never below this
            short side, which is the region's where there is one. None: full size.
        region: the part to cut out. None: all of it.
    Raises: PictureError with the reason in one sentence, without a path.
    """
    _set_decoder(max_megapixels)
    name, opened = name_format(data), open_header(data, max_megapixels=max_megapixels)
    width, height = opened.size
    # What the decoder of a JPEG can do is done for one inside another format, too.
    is_jpeg = isinstance(opened, JpegImageFile)
    with _reasons_for(name):
        if short_side_px is not None and is_jpeg:
            opened.draft(None, _choose_draft(opened.size, short_side_px, region))
        opened.load()
        orientation = _read_orientation(opened)
        pixels = _turn_upright(_to_rgb(opened, name), orientation)
    if not is_jpeg:
        # Nothing else shrinks; and a TIFF may be turned while it loads.
        width, height = pixels.size
    elif orientation >= 5:
        width, height = height, width
    if region is not None:
        pixels = _cut(pixels, region, width, height)
    return Picture(pixels=pixels, width=width, height=height, format=name)


def open_header(data: bytes, *, max_megapixels: float = 200.0) -> Image.Image:
    """A picture of which no more is decoded than its library must, of an allowed size. Raises: PictureError."""
    name = name_format(data)
    _set_decoder(max_megapixels)
    with _reasons_for(name):
        opened = _open(name, data, max_megapixels)
    _check_size(*opened.size, max_megapixels)
    return opened


def bound_memory(max_megapixels: float) -> int:
    """Bytes of memory with which every picture within the limit can be decoded, whatever its format.

    For the process as a whole, without the bytes of the file. What decodes no more than it promises stays far below.
    """
    return DECODER_BYTES + math.ceil(max_megapixels * 1e6) * BYTES_PER_PIXEL


def encode_thumbnail(picture: Picture, *, side_px: int = 320) -> bytes:
    """Shrink a picture to fit in a square of side_px, never enlarging it; WebP bytes without any metadata."""
    width, height = picture.pixels.size
    scale = min(1.0, side_px / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = picture.pixels.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    stream = io.BytesIO()
    small.save(stream, format="WEBP", quality=80, method=0)
    return stream.getvalue()


def _open(name: str, data: bytes, max_megapixels: float) -> Image.Image:
    """A picture of which no more is decoded than its library must; its pixels are within the limit then."""
    if name == "HEIC":
        return open_heic(data)
    if name == "RAW":
        return open_preview(data)
    if name == "JXL":
        _check_size(*measure_jxl(data), max_megapixels)
        return decode_jxl(data)
    return DECODERS[name](io.BytesIO(data))


def _set_decoder(max_megapixels: float) -> None:
    # Another library in this process may have asked for half pictures, or be strict about warnings.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow's own check knows parts that the header does not tell (frames, strips); it refuses twice this number.
    Image.MAX_IMAGE_PIXELS = max(1, math.ceil(max_megapixels * 1e6 / 2))
    # Not catch_warnings: that one swaps the filters of all threads. A filter that is there is not put in again: each
    # change lets Python forget which warnings it has shown.
    for category in (UserWarning, RuntimeWarning):
        if ("ignore", None, category, PILLOW, 0) not in warnings.filters:
            warnings.filterwarnings("ignore", category=category, module=PILLOW.pattern)


@contextmanager
def _reasons_for(name: str) -> Iterator[None]:
    try:
        yield
    except DECODER_ERRORS as error:
        raise PictureError(_explain(name, error)) from error


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    if width < 1 or height < 1:
        raise PictureError(f"The picture is {width} x {height} pixels; there is nothing in it.")
    found = width * height / 1e6
    if found > max_megapixels:
        raise PictureError(
            f"The picture has {found:,.1f} megapixels ({width} x {height}), allowed are {max_megapixels:g}; "
            f"to read it, give --max-megapixels {math.ceil(found)}."
        )


def _choose_draft(size: tuple[int, int], short_side_px: int, region: Region | None) -> tuple[int, int]:
    """What to ask of a JPEG's decoder: it shrinks by a whole number, and stays above both sides."""
    if region is None:
        return short_side_px, short_side_px
    # By so much that the region, which may be small, keeps the short side.
    shrink = max(1, min(region.width, region.height) // short_side_px)
    return math.ceil(size[0] / shrink), math.ceil(size[1] / shrink)


def _cut(pixels: Image.Image, region: Region, width: int, height: int) -> Image.Image:
    """The region of a picture that was `width` x `height` before its decoder shrank it."""
    right, bottom = region.left + region.width, region.top + region.height
    if min(region) < 0 or not (region.left < right <= width and region.top < bottom <= height):
        raise PictureError(
            f"The part X,Y,W,H = {','.join(map(str, region))} does not lie in the picture, which has {width} x {height}"
            f" pixels; allowed are parts of 1 x 1 to {width} x {height} pixels within it."
        )
    x, y = pixels.width / width, pixels.height / height
    return pixels.crop((round(region.left * x), round(region.top * y), round(right * x), round(bottom * y)))


def _read_orientation(opened: Image.Image) -> int:
    # After load(): Pillow turns a TIFF there, and then forgets the tag. A damaged EXIF block costs no picture.
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in TRANSPOSITIONS else 1
    except DECODER_ERRORS:
        return 1


def _turn_upright(pixels: Image.Image, orientation: int) -> Image.Image:
    return pixels.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else pixels


def _to_rgb(opened: Image.Image, name: str) -> Image.Image:
    profile = opened.info.get("icc_profile")
    if opened.mode.startswith("I") or opened.mode == "F":
        opened, profile = _squeeze_depth(opened, name), None
    elif opened.has_transparency_data:
        opened = _lay_on_white(opened if opened.mode == "RGBA" else opened.convert("RGBA"), profile)
        profile = None
    elif opened.mode not in ("RGB", "CMYK", "L", "LAB"):
        opened = opened.convert("RGB")
    rgb = _apply_profile(opened, profile)
    # A copy would carry the GPS position of the original into everything that is saved later.
    rgb.info = {}
    return rgb


def _lay_on_white(rgba: Image.Image, profile: bytes | None) -> Image.Image:
    rgb = _apply_profile(rgba.convert("RGB"), profile)
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgb, mask=rgba.getchannel("A"))
    return white


def _apply_profile(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an ICC profile; one that is broken, or made for other channels, is ignored."""
    if picture.mode == "LAB":
        return ImageCms.profileToProfile(
            picture, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if not ImageCms.getProfileDescription(source).startswith(SRGB_NAMES):
                target = ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
        except DECODER_ERRORS:
            pass
    return picture.convert("RGB")


def _squeeze_depth(picture: Image.Image, name: str) -> Image.Image:
    """Grey of more than 8 bits, or in floats, to 8 bits.

    White is 65535 in a PNG. A TIFF does not say: there it is the end of the smallest usual range (8, 12 or 16 bits;
    1.0 for floats) that holds every pixel. Values outside all of them are stretched from darkest to brightest.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    darkest, brightest = float(values.min()), float(values.max())
    ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 4095.0, 65535.0)
    if name == "PNG":
        ranges = (65535.0,)
    white = next((white for white in ranges if brightest <= white), None)
    if darkest < 0 or white is None:
        values, white = values - darkest, (brightest - darkest) or 1.0
    return Image.fromarray(np.rint(values / white * 255.0).astype(np.uint8))


def _explain(name: str, error: BaseException) -> str:
    text = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if isinstance(error, MemoryError):
        return f"There is not enough memory to decode this {name} picture; make it smaller or close other programs."
    if isinstance(error, Image.DecompressionBombError):
        return f"A part of this {name} picture is larger than allowed ({text}); to read it, raise --max-megapixels."
    if "truncated" in text.lower() or isinstance(error, EOFError | struct.error):
        return f"The {name} data is cut short ({text}); copy the file again from where it came."
    return f"The {name} data is damaged ({text}); open it in another program and save it anew."
