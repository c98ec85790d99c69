"""A RAW file as small as LibRaw takes it: a DNG with a few sensor values and a JPEG preview.

No library writes one. A DNG is a TIFF; here its first directory is the sensor's, and the one below it the preview's.
"""

import io
import struct

from PIL import Image

LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 10: "i"}
"""A TIFF's kinds of numbers, as `struct` writes them; a fraction is two."""
IDENTITY = [number for row in range(3) for column in range(3) for number in (int(row == column), 1)]


def make_dng(preview: bytes, *, width: int = 96, height: int = 64, orientation: int = 1) -> bytes:
    """The bytes of a DNG of this size, held as EXIF's orientation says, around a JPEG."""
    sensor = bytes(2 * width * height)
    across, down = Image.open(io.BytesIO(preview)).size
    at_preview = 8 + len(sensor)
    at_below = at_preview + len(preview) + len(preview) % 2
    below = write_directory(at_below, {
        254: (4, [1]), 256: (4, [across]), 257: (4, [down]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6]),
        273: (4, [at_preview]), 277: (3, [3]), 278: (4, [down]), 279: (4, [len(preview)]),
    })  # fmt: skip
    at_first = at_below + len(below)
    first = write_directory(at_first, {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803]),
        271: (2, b"Maker\0"), 272: (2, b"Model\0"), 273: (4, [8]), 274: (3, [orientation]), 277: (3, [1]),
        278: (4, [height]), 279: (4, [len(sensor)]), 330: (4, [at_below]), 33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2]),
        50706: (1, [1, 4, 0, 0]), 50708: (2, b"Maker Model\0"), 50721: (10, IDENTITY), 50778: (3, [21]),
    })  # fmt: skip
    head = b"II*\0" + struct.pack("<I", at_first)
    return (head + sensor + preview).ljust(at_below, b"\0") + below + first


def write_directory(at: int, tags: dict[int, tuple[int, list[int] | bytes]]) -> bytes:
    """A directory of tags that stands at this offset, with the values that do not fit into it behind it."""
    entries, behind = b"", b""
    end = at + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        values = struct.pack(f"<{len(numbers)}{LETTERS[kind]}", *numbers)
        count = len(numbers) // 2 if kind == 10 else len(numbers)
        if len(values) > 4:
            place, behind = struct.pack("<I", end + len(behind)), behind + values + bytes(len(values) % 2)
        else:
            place = values.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, count) + place
    return struct.pack("<H", len(tags)) + entries + bytes(4) + behind
