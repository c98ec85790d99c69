"""What a camera wrote: read as it stands, and never believed."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from seer_model.errors import PictureError
from seer_model.shots import LONGEST, read_shot

BASE, GPS = ExifTags.Base, ExifTags.GPS


def write(shot: dict, base: dict | None = None, place: dict | None = None, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif.update(base or {})
    exif.get_ifd(ExifTags.IFD.Exif).update(shot)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place or {})
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_all_that_is_known_of_a_shot(kind: str):
    shot = {
        BASE.DateTimeOriginal: "2019:05:01 12:30:59", BASE.ExposureTime: 0.005, BASE.FNumber: 1.8,
        BASE.ISOSpeedRatings: 400, BASE.FocalLength: 50.0, BASE.LensModel: "EF50mm f/1.8",
    }  # fmt: skip
    place = {
        GPS.GPSLatitude: (33.0, 51.0, 30.0), GPS.GPSLatitudeRef: "S",
        GPS.GPSLongitude: (151.0, 12.0, 36.0), GPS.GPSLongitudeRef: "E",
    }  # fmt: skip
    assert read_shot(write(shot, {BASE.Make: "Canon", BASE.Model: "Canon EOS 5D"}, place, kind)) == {
        "Taken": "2019-05-01 12:30",
        "Camera": "Canon EOS 5D",
        "Lens": "EF50mm f/1.8",
        "Exposure": "1/200 s, f/1.8, ISO 400, 50 mm",
        "Place": "-33.85833, 151.21000",
    }


def test_a_maker_that_the_model_does_not_name_stands_before_it():
    assert read_shot(write({}, {BASE.Make: "SONY", BASE.Model: "ILCE-7"})) == {"Camera": "SONY ILCE-7"}


def test_a_picture_without_a_block_tells_nothing():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    assert read_shot(stream.getvalue()) == {}


def test_what_makes_no_sense_is_left_out():
    shot = {BASE.DateTimeOriginal: "0000:00:00 00:00:00", BASE.ExposureTime: 0.0, BASE.FNumber: 2.8}
    place = {GPS.GPSLatitude: (933.0, 0.0, 0.0), GPS.GPSLongitude: (1.0, 0.0, 0.0)}
    assert read_shot(write(shot, {}, place)) == {"Exposure": "f/2.8"}


def test_texts_are_short_and_printable():
    found = read_shot(write({BASE.LensModel: "a\x1b[31m\x07b" + "x" * 500}))["Lens"]
    assert found.startswith("a[31mb") and len(found) == LONGEST and found.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_block_costs_nothing_else(data: st.DataObject):
    whole = bytearray(write({BASE.DateTimeOriginal: "2019:05:01 12:30:59", BASE.FNumber: 1.8}, {BASE.Make: "Canon"}))
    end = min(len(whole), whole.index(b"Exif") + 220)
    for place in data.draw(st.lists(st.integers(whole.index(b"Exif") + 6, end - 1), max_size=12)):
        whole[place] = data.draw(st.integers(0, 255))
    try:
        told = read_shot(bytes(whole))
    except PictureError:
        return
    assert set(told) <= {"Taken", "Camera", "Lens", "Exposure", "Place"}
    assert all(text and text.isprintable() for text in told.values())
