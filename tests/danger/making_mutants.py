"""Pictures that are not what they say: mutated at random from whole ones of every format, and made by hand to do harm.

Equal seeds give equal files. A mutant is known by its number and its kind, which are in its name.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image

from tests.seer_model.making_pictures import encode, every_format, make_scene

SUFFIXES = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".avif", ".heic", ".jxl", ".dng", ".cr2")
SIDES = (0, 1, 2, 3, 255, 16383, 60000, 65535, 2**24, 2**31 - 1, 2**32 - 1)
"""What a header may say."""


class Mutant(NamedTuple):
    """A file. `is_whole`: it is the scene, undamaged, whatever it is called, and must be read."""

    name: str
    data: bytes
    is_whole: bool = False


@cache
def list_wholes() -> list[bytes]:
    """The scene in every format, and in the corners of some of them."""
    scene = make_scene()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 1
    return [
        *every_format().values(),
        encode(scene, "JPEG", exif=exif, icc_profile=bytes(600)),
        encode(scene.convert("CMYK"), "JPEG"),
        encode(scene.convert("P"), "PNG", transparency=3),
        encode(scene.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        encode(scene.convert("LAB"), "TIFF", compression="tiff_lzw"),
        encode(scene, "TIFF", compression="jpeg"),
        encode(scene, "TIFF", big_tiff=True),
        encode(scene, "GIF", save_all=True, append_images=[scene.convert("L")]),
        encode(scene.convert("RGBA"), "AVIF"),
        encode(scene.convert("RGBA"), "HEIC", quality=90),
    ]


def make_mutants(seed: int, count: int, trap: Path) -> Iterator[Mutant]:
    """`count` files: first those made by hand, then mutants of each kind in turn.

    Args:
        trap: what the program among them writes if somebody runs it.
    """
    random, made = Random(seed), [*make_foreign(trap), *make_bombs()]
    for number in range(count):
        if number < len(made):
            kind, data, is_whole = made[number]
        else:
            mutate = KINDS[number % len(KINDS)]
            kind, data, is_whole = mutate.__name__, mutate(random, random.choice(list_wholes())), mutate is rename
        yield Mutant(f"{number:06d}-{kind.replace('_', '-')}{random.choice(SUFFIXES)}", data, is_whole)


# --- at random ---------------------------------------------------------------------------------------------------


def flip_bits(random: Random, data: bytes) -> bytes:
    """Some bits turned over; half of the time within the header."""
    flipped = bytearray(data)
    reach = random.choice([40, 400, len(data), len(data)])
    for _ in range(random.choice([1, 2, 8, 64])):
        flipped[random.randrange(min(reach, len(data)))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def overwrite(random: Random, data: bytes) -> bytes:
    """A stretch of zeros, ones or noise."""
    start, length = random.randrange(len(data)), random.choice([1, 4, 16, 256])
    filler = random.choice([bytes(length), b"\xff" * length, random.randbytes(length)])
    return (data[:start] + filler + data[start + length :])[: len(data)]


def cut_short(random: Random, data: bytes) -> bytes:
    """Only the beginning."""
    return data[: random.randrange(len(data))]


def leave_out(random: Random, data: bytes) -> bytes:
    """A stretch from the middle is missing, or there twice."""
    start, end = sorted(random.randrange(len(data)) for _ in range(2))
    return data[:start] + random.choice([b"", data[start:end] * 2]) + data[end:]


def splice(random: Random, data: bytes) -> bytes:
    """The header of one format, the body of another."""
    other, at = random.choice(list_wholes()), random.choice([4, 12, 30, 64, 200])
    return data[:at] + other[random.choice([0, at]) :]


def lie_about_size(random: Random, data: bytes) -> bytes:
    """Another width and height in the header, in all places where the format keeps them."""
    width, height = random.choice(SIDES), random.choice(SIDES)
    lied = bytearray(data)
    for at, layout in find_sizes(data):
        most = (1 << 8 * struct.calcsize(layout) // 2) - 1
        struct.pack_into(layout, lied, at, min(width, most), min(height, most))
    if data.startswith(b"\x89PNG"):
        lied[29:33] = struct.pack(">I", zlib.crc32(lied[12:29]))
    if (at := data.find(b"\xff\x0a")) in (0, 44, 48):
        # Its size is in bits: 0, 3, 30 bits of height, and the number of a ratio.
        lied[at + 2 : at + 7] = (6 | (height % 2**30) << 3 | 1 << 33).to_bytes(5, "little")
    return bytes(lied)


def rename(_: Random, data: bytes) -> bytes:
    """Nothing is wrong with it but its name."""
    return data


KINDS: tuple[Callable[[Random, bytes], bytes], ...] = (
    flip_bits,
    overwrite,
    cut_short,
    leave_out,
    splice,
    lie_about_size,
    rename,
)


def find_sizes(data: bytes) -> Iterator[tuple[int, str]]:
    """Where width and height stand, and how `struct` writes them."""
    if data.startswith(b"\x89PNG"):
        yield 16, ">II"
    elif data.startswith(b"GIF8"):
        yield 6, "<HH"
        yield data.index(b"\x2c\0\0\0\0") + 5, "<HH"
    elif data.startswith(b"BM"):
        yield 18, "<II"
    elif data.startswith(b"\xff\xd8"):
        yield max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5, ">HH"
    elif data[8:12] == b"WEBP":
        yield 26, "<HH"
    elif data[4:8] == b"ftyp":
        at = -1
        while (at := data.find(b"ispe", at + 1)) >= 0:
            yield at + 8, ">II"
    elif data.startswith(b"II*\0"):
        first = struct.unpack_from("<I", data, 4)[0]
        for at in range(first + 2, first + 2 + 24, 12):
            if struct.unpack_from("<H", data, at)[0] == 256:
                # The values of two neighbouring tags are 12 bytes apart.
                yield at + 8, "<I8xI"


# --- by hand -----------------------------------------------------------------------------------------------------


PROGRAM_STARTS = (b"%!PS-Adobe-3.0 EPSF-3.0", b"%!PSftypavif\n%!PS-Adobe-3.0")
"""The second one is an AVIF by the bytes that tell one."""


def make_program(trap: Path, start: bytes) -> bytes:
    """An EPS picture, which is a program: Pillow has Ghostscript run those that it opens."""
    writes = b"(%b) (w) file closefile showpage\n" % os.fsencode(trap)
    return start + b"\n%%BoundingBox: 0 0 9 9\n%%EndComments\n" + writes


def make_foreign(trap: Path) -> Iterator[tuple[str, bytes, bool]]:
    """What is no picture, and two files that are a picture and something else."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("picture.jpg", every_format()["JPEG"])
    page = b"<!doctype html><img src=x onerror=alert(1)><script>alert(1)</script>"
    foreign = {
        "fits": b"SIMPLE  =                    T / FITS".ljust(2880),
        "eps": make_program(trap, PROGRAM_STARTS[0]),
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 96, 8, 3) + bytes(4000),
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "html": page,
        "zip": archive.getvalue(),
        "film": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(2000),
        "program": b"\x7fELF\2\1\1" + bytes(4000),
        "table": b"SQLite format 3\0" + bytes(4000),
        "nothing": b"",
        "zeros": bytes(5000),
    }
    yield from ((name, data, False) for name, data in foreign.items())
    yield "jpeg-and-zip", every_format()["JPEG"] + archive.getvalue(), True
    yield "gif-and-page", every_format()["GIF"] + page, True


def make_bombs() -> Iterator[tuple[str, bytes, bool]]:
    """Small files that would become large, or never end."""
    big = zlib.compress(bytes(256 << 20), 9)
    yield "png-of-many-pixels", make_png(50000, 50000, zlib.compress(bytes(9))), False
    yield "png-that-swells", make_png(96, 64, big), False
    yield "png-with-a-huge-text", make_png(96, 64, b"", (b"zTXt", b"a\0\0" + big)), False
    yield "png-with-a-huge-profile", make_png(96, 64, b"", (b"iCCP", b"a\0\0" + big)), False
    yield "tiff-in-a-ring", make_tiff_chain(1, is_ring=True), False
    yield "tiff-in-a-long-ring", make_tiff_chain(20000, is_ring=True), False
    yield "tiff-deep", make_tiff_chain(50000), False
    for tag in (256, 257, 273, 277, 278, 279, 258, 317, 320, 322, 324, 330, 339, 34675, 34665):
        yield f"tiff-{tag}-enormous", make_enormous_tiff(tag), False
    yield "jpeg-of-a-thousand-scans", make_jpeg_of_scans(1000), True
    yield "jpeg-with-a-huge-profile", put_into_jpeg(b"\xe2", b"ICC_PROFILE\0\1\xff", 255), True
    yield "jpeg-with-a-huge-exif", put_into_jpeg(b"\xe1", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", 200), True
    yield "gif-of-many-frames", every_format()["GIF"][:-1] + b"\x2c" + b"\0\0\0\0\1\0\1\0\0\2\2\x44\1\0" * 50000, True
    yield "heic-in-boxes", struct.pack(">I4s4s4x4s", 20, b"ftyp", b"heic", b"mif1") + b"\0\0\0\x08meta" * 50000, False
    yield "avif-in-boxes", struct.pack(">I4s4s4x4s", 20, b"ftyp", b"avif", b"mif1") + b"\0\0\0\1meta" * 50000, False
    yield "jxl-in-boxes", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x08jxlp" * 50000, False


def make_png(width: int, height: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with what is given, whether it fits together or not."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    written = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        written += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return written


def make_tiff_chain(count: int, *, is_ring: bool = False) -> bytes:
    """Directories of one tag, each of which leads to the next; in a ring, the last one to the first."""
    tag = struct.pack("<HHHII", 1, 256, 4, 1, 9)
    ends = [8 + 18 * number for number in range(1, count)] + [8 if is_ring else 0]
    return b"II*\0\x08\0\0\0" + b"".join(tag + struct.pack("<I", following) for following in ends)


def make_enormous_tiff(tag: int) -> bytes:
    """A TIFF in which one tag says that it has four thousand million values."""
    data = bytearray(every_format()["TIFF"])
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    places = [first + 2 + 12 * number for number in range(count)]
    # A tag that is not there takes the place of the last one.
    at = next((place for place in places if struct.unpack_from("<H", data, place)[0] == tag), places[-1])
    struct.pack_into("<HHII", data, at, tag, 4, 2**32 - 1, 8)
    return bytes(data)


def make_jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there many times: each costs as much as a whole picture."""
    data = encode(make_scene(), "JPEG", progressive=True, quality=90)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def put_into_jpeg(marker: bytes, start: bytes, count: int) -> bytes:
    """A JPEG with many segments of the largest size before its own."""
    data = every_format()["JPEG"]
    return data[:2] + (b"\xff" + marker + b"\xff\xff" + start.ljust(65533, b"\x41")) * count + data[2:]
