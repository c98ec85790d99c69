"""The decoders that come with an extra: HEIC, JPEG XL, and the previews inside the RAW files of cameras.

Each library is loaded with the first picture that needs it. HEIC and JPEG XL come upright from their decoders, whatever
an EXIF block beside them says; a preview is turned as the camera was held.

Rule: only called for a format whose library is installed; what goes wrong leaves as one of `pictures.DECODER_ERRORS`.
"""

import io

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from seer_model.errors import PictureError

ORIENTATION_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
"""How LibRaw says that the camera was held -> EXIF's orientation."""
HEIGHT_BITS = (9, 13, 18, 30)
RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Of a JPEG XL's width to its height, by their number; None: the width stands by itself."""


def open_heic(data: bytes) -> Image.Image:
    """A HEIC picture, of which only the header has been read."""
    from pillow_heif import HeifImageFile

    return HeifImageFile(io.BytesIO(data))


def open_preview(data: bytes) -> Image.Image:
    """The largest preview of a RAW file, mostly a JPEG of which only the header has been read.

    Raises: PictureError if the file has none that can be read.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            preview, orientation = raw.extract_thumb(), ORIENTATION_OF_FLIP.get(raw.sizes.flip, 1)
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError) as error:
        raise PictureError(
            f"This RAW file holds no preview that can be read ({_say(error)}); export it as a JPEG."
        ) from error
    except (rawpy.LibRawError, NotImplementedError) as error:
        raise OSError(_say(error)) from error
    if preview.format is rawpy.ThumbFormat.BITMAP:
        opened = Image.fromarray(np.squeeze(preview.data))
    else:
        opened = JpegImageFile(io.BytesIO(preview.data))
    # LibRaw marks a JPEG that has no EXIF block; a camera may have marked it, too.
    opened.getexif().setdefault(ExifTags.Base.Orientation, orientation)
    return opened


def measure_jxl(data: bytes) -> tuple[int, int]:
    """Width and height that the header of a JPEG XL tells, which its decoder would only tell with all the pixels.

    Raises: EOFError, ValueError.
    """
    bits = _Bits(_find_codestream(data)[2:18])
    is_of_eights = bool(bits.take(1))
    height = _read_side(bits, is_of_eights)
    ratio = RATIOS[bits.take(3)]
    return (height * ratio[0] // ratio[1] if ratio else _read_side(bits, is_of_eights)), height


def decode_jxl(data: bytes) -> Image.Image:
    """A JPEG XL picture, decoded; one that was made of a JPEG becomes that JPEG again, of which the header is read."""
    from pillow_jxl import Decoder

    try:
        # 0: no threads of its own, the workers are as many as there are cores.
        is_jpeg, info, pixels, profile, _ = Decoder(num_threads=0)(data)
    except BaseException as error:
        # A panic of the library is no Exception; and its messages tell how to compile it.
        if isinstance(error, RuntimeError) or type(error).__name__ == "PanicException":
            raise OSError("its decoder refuses it") from error
        raise
    if is_jpeg:
        return JpegImageFile(io.BytesIO(pixels))
    opened = Image.fromarray(_to_bytes(pixels, info))
    if profile:
        opened.info["icc_profile"] = bytes(profile)
    return opened


def _to_bytes(pixels: bytes, info: object) -> np.ndarray:
    """(H, W) or (H, W, C) uint8, from samples of 8, 16 or 32 bits, or floats that are white at 1."""
    shape = info.height, info.width, info.num_channels + info.has_alpha_channel
    depth = len(pixels) // max(1, shape[0] * shape[1] * shape[2])
    kind = f"f{depth}" if info.mode.startswith("F") else f"u{depth}"
    samples = np.frombuffer(pixels, kind).reshape(shape)
    if kind.startswith("f"):
        samples = (np.nan_to_num(samples).clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif depth > 1:
        samples = (samples >> (8 * depth - 8)).astype(np.uint8)
    return samples[..., 0] if shape[2] == 1 else samples


def _find_codestream(data: bytes) -> bytes:
    """The beginning of the codestream, which may lie in a box, or in the first of several."""
    at, begun = 0, b""
    if data.startswith(b"\xff\x0a"):
        return data[:64]
    while at + 8 <= len(data) and len(begun) < 64:
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size and size < head:
            raise ValueError("a box is smaller than its head")
        end = at + size if size else len(data)
        if kind in (b"jxlc", b"jxlp"):
            begun += data[at + head + (4 if kind == b"jxlp" else 0) : min(end, at + head + 68)]
        at = end
    if not begun.startswith(b"\xff\x0a"):
        raise ValueError("there is no codestream in it")
    return begun


class _Bits:
    """Numbers of some bits each, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._left, self._number = 8 * len(data), int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        if count > self._left:
            raise EOFError("its header ends early")
        taken = self._number & ((1 << count) - 1)
        self._number >>= count
        self._left -= count
        return taken


def _read_side(bits: _Bits, is_of_eights: bool) -> int:
    return 8 * (bits.take(5) + 1) if is_of_eights else bits.take(HEIGHT_BITS[bits.take(2)]) + 1


def _say(error: BaseException) -> str:
    text = error.args[0] if error.args else type(error).__name__
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
