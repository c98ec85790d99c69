"""What the bytes of a file are: the formats that are known, how each is told, and what its decoder is called.

Pillow reads most of them. HEIC, JPEG XL and the RAW files of cameras each need a library more, which comes with an
extra of this package; without it such a picture is known and refused, with the command that installs what it needs.

Rule: the content decides, never a name; and no format is registered with Pillow, whose own are not changed by ours.
"""

import io
import re
import struct
import zlib
from importlib.util import find_spec
from typing import NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from seer_model.errors import PictureError

RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".rwl", ".pef"}
    | {".srw", ".3fr", ".fff", ".iiq", ".mrw", ".x3f", ".erf", ".kdc", ".dcr", ".mef", ".mos"}
)
PICTURE_SUFFIXES = RAW_SUFFIXES.union(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"},
    {".heic", ".heif", ".hif", ".jxl"},
)
"""Suffixes, lower-case with their dot, of files that are expected to hold a picture."""

DECODERS = {
    # The classes themselves instead of Image.open: no other format is ever tried (EPS starts a program), the limit on
    # pixels is ours alone, and of a JPEG with several pictures (MPO) the first is read.
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
"""Format -> the class of Pillow that reads it."""

DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)
"""What decoders have been seen to throw at damaged bytes."""


class Extra(NamedTuple):
    """The library that a format needs."""

    extra: str
    """Of this package, as pip knows it."""
    module: str
    library: str


EXTRAS = {
    "HEIC": Extra("heic", "pillow_heif", "pillow-heif"),
    "JXL": Extra("jxl", "pillow_jxl", "pillow-jxl-plugin"),
    "RAW": Extra("raw", "rawpy", "rawpy"),
}
"""Format -> what it needs."""

BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
STILL_BRANDS = frozenset({b"mif1", b"msf1", b"miaf"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
RAW_STARTS = re.compile(
    rb"(?:II\*\0....CR|II\x1a\0....HEAPCCDR|FUJIFILMCCD-RAW|IIRO|IIRS|MMOR|IIU\0|\0MRM|FOVb|....ftypcrx )", re.DOTALL
)
"""Canon (three kinds), Fuji, Olympus (three), Panasonic, Minolta, Sigma. The others look like a TIFF."""
DNG_VERSION, SUBFILE_TYPE, COMPRESSION, PHOTOMETRIC, SUB_IFDS = 50706, 254, 259, 262, 330
SENSOR_COMPRESSIONS = frozenset({32767, 32769, 32770, 32772, 34713, 65000, 65535})
"""Of Sony, Epson, Samsung, Nikon, Kodak, Pentax."""
SENSOR_LAYOUTS = frozenset({32803, 34892})
"""A colour filter array, and what DNG makes of one."""


def sniff_format(head: bytes) -> str | None:
    """Name the picture format by the first 64 bytes: a key of DECODERS or EXTRAS, or None.

    Most RAW files begin as a TIFF does; `name_format` tells them apart.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if RAW_STARTS.match(head):
        return "RAW"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    return "BMP" if _is_bmp(head) else _sniff_brands(head)


def name_format(data: bytes) -> str:
    """Name the format of a whole file, one that can be decoded here.

    Raises: PictureError that says what the bytes are not, or what has to be installed.
    """
    if not data:
        raise PictureError("The file is empty (0 bytes); restore it from a copy.")
    name = sniff_format(data[:64])
    if name is None:
        known = ", ".join([*DECODERS, *EXTRAS])
        raise PictureError(f"The content is no picture in a known format ({known}), whatever the file is called.")
    if name == "TIFF" and _holds_sensor_data(data):
        name = "RAW"
    if name == "AVIF" and not AvifImagePlugin.SUPPORTED:
        raise PictureError("AVIF cannot be decoded by this installation of Pillow; convert the picture to JPEG.")
    if name in EXTRAS and not is_installed(name):
        raise PictureError(explain_missing(name))
    return name


def is_installed(name: str) -> bool:
    """Whether the library of a format of EXTRAS is there; nothing is loaded."""
    return find_spec(EXTRAS[name].module) is not None


def explain_missing(name: str) -> str:
    """The reason of a picture whose library is not there; the same sentence for all of a format."""
    extra, _, library = EXTRAS[name]
    return f'{name} pictures need {library}: pip install "seer[{extra}]", then build again.'


def list_met_needs() -> list[str]:
    """The sentences of `explain_missing` that are no longer true: whoever was refused with one has another try."""
    return [explain_missing(name) for name in EXTRAS if is_installed(name)]


def _is_bmp(head: bytes) -> bool:
    # Two letters begin many a text; the size of the second header, with its three zero bytes, begins none.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADER_SIZES


def _sniff_brands(head: bytes) -> str | None:
    # Films share this container: the brand decides, the compatible brands only where the first one is a general one.
    if head[4:8] != b"ftyp":
        return None
    brands = [head[8:12]]
    if brands[0] in STILL_BRANDS:
        end = min(len(head), int.from_bytes(head[:4], "big"))
        brands += [head[at : at + 4] for at in range(16, end - 3, 4)]
    if not AVIF_BRANDS.isdisjoint(brands):
        return "AVIF"
    return None if HEIC_BRANDS.union(STILL_BRANDS).isdisjoint(brands) else "HEIC"


def _holds_sensor_data(data: bytes) -> bool:
    """Whether a TIFF is a camera's RAW file: Pillow would read its thumbnail, or nothing."""
    try:
        head = data[: 16 if b"+" in data[2:4] else 8]
        tags, file = TiffImagePlugin.ImageFileDirectory_v2(head), io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        is_small_copy = bool(tags.get(SUBFILE_TYPE, 0) & 1) and SUB_IFDS in tags
        is_sensors = tags.get(COMPRESSION) in SENSOR_COMPRESSIONS or tags.get(PHOTOMETRIC) in SENSOR_LAYOUTS
        return DNG_VERSION in tags or is_small_copy or is_sensors
    except DECODER_ERRORS:  # A damaged directory is the decoder's to explain.
        return False
