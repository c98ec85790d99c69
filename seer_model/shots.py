"""What a camera wrote into a picture's file: when, with what, how and where it was taken.

    {"Taken": "2019-05-01 12:30", "Camera": "Canon EOS 5D", "Exposure": "1/200 s, f/1.8, ISO 400, 50 mm"}

Source: the tags of EXIF 2.32 (CIPA DC-008), as Pillow's `ExifTags` numbers them.

Rule: nothing in it is believed. Numbers are read as numbers; texts are cut short, and what cannot be printed is left
out.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from fractions import Fraction

from PIL import ExifTags

from seer_model.pictures import open_header

LONGEST = 80
"""Letters of a text."""
WRONG = (ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError, AttributeError, OSError)
"""What reading gives of a block that is not what it should be."""


def read_shot(data: bytes, *, max_megapixels: float = 200.0) -> dict[str, str]:
    """What is known of how a picture was taken: name -> a short printable text; empty where the file says nothing.

    Args:
        data: a whole file; its pixels are not decoded where the format allows it.
    Raises: PictureError.
    """
    exif = open_header(data, max_megapixels=max_megapixels).getexif()
    tags = dict(exif)
    for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        with suppress(*WRONG):
            tags |= {(block, tag): value for tag, value in exif.get_ifd(block).items()}
    told = {}
    for name, read in READERS.items():
        with suppress(*WRONG):
            if text := read(tags):
                told[name] = text
    return told


def _read_taken(tags: dict) -> str:
    moment = datetime.strptime(_clean(_shot(tags, "DateTimeOriginal")), "%Y:%m:%d %H:%M:%S")
    return f"{moment:%Y-%m-%d %H:%M}"


def _read_camera(tags: dict) -> str:
    make, model = (_clean(tags.get(ExifTags.Base[name], "")) for name in ("Make", "Model"))
    # Some makers begin the model's name with their own.
    return model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()


def _read_lens(tags: dict) -> str:
    return _clean(_shot(tags, "LensModel"))


def _read_exposure(tags: dict) -> str:
    parts = []
    for read in (_read_time, _read_aperture, _read_speed, _read_length):
        with suppress(*WRONG):
            parts.append(read(tags))
    return ", ".join(parts)


def _read_time(tags: dict) -> str:
    seconds = Fraction(_positive(_shot(tags, "ExposureTime"))).limit_denominator(100_000)
    return f"{float(seconds):g} s" if seconds >= 1 else f"1/{round(1 / seconds):,} s"


def _read_aperture(tags: dict) -> str:
    return f"f/{_positive(_shot(tags, 'FNumber')):.3g}"


def _read_speed(tags: dict) -> str:
    given = _shot(tags, "ISOSpeedRatings")
    return f"ISO {int(_positive(given[0] if isinstance(given, tuple) else given))}"


def _read_length(tags: dict) -> str:
    return f"{_positive(_shot(tags, 'FocalLength')):.3g} mm"


def _read_place(tags: dict) -> str:
    where = [_read_angle(tags, name, negative) for name, negative in (("GPSLatitude", "S"), ("GPSLongitude", "W"))]
    if abs(where[0]) > 90 or abs(where[1]) > 180 or where == [0, 0]:
        return ""
    return f"{where[0]:.5f}, {where[1]:.5f}"


def _read_angle(tags: dict, name: str, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in tags[ExifTags.IFD.GPSInfo, ExifTags.GPS[name]])
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if _clean(tags.get((ExifTags.IFD.GPSInfo, ExifTags.GPS[f"{name}Ref"]), "")) == negative else angle


def _shot(tags: dict, name: str) -> object:
    return tags[ExifTags.IFD.Exif, ExifTags.Base[name]]


def _positive(value: object) -> float:
    """A number above 0. Raises: ValueError."""
    number = float(value)
    if not 0 < number < 1e7:
        raise ValueError(number)
    return number


def _clean(value: object) -> str:
    return "".join(letter for letter in str(value) if letter.isprintable()).strip()[:LONGEST]


READERS: dict[str, Callable[[dict], str]] = {
    "Taken": _read_taken,
    "Camera": _read_camera,
    "Lens": _read_lens,
    "Exposure": _read_exposure,
    "Place": _read_place,
}
