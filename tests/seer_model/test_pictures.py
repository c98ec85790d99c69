"""Bytes in, upright RGB out - or one sentence that says why not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from seer_model.errors import PictureError
from seer_model.formats import PICTURE_SUFFIXES, sniff_format
from seer_model.pictures import TRANSPOSITIONS, Picture, encode_thumbnail, open_picture
from tests.seer_model.making_pictures import encode, every_format, make_scene, pixels_of

ORIENTATION = 0x0112
GPS = 0x8825
INVERSE = {5: 5, 6: 8, 7: 7, 8: 6}


def lay_down(picture: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The pixels as a camera that was held this way stores them, and the EXIF block that says so."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if orientation == 1:
        return picture, exif
    return picture.transpose(TRANSPOSITIONS[INVERSE.get(orientation, orientation)]), exif


# --- what the bytes are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), every_format().items())
def test_every_format_is_told_by_its_first_64_bytes_and_opens(name, data):
    first_bytes = sniff_format(data[:64])
    assert first_bytes == name.split(",")[0] or (first_bytes, name) == ("TIFF", "RAW")
    picture = open_picture(data)
    assert (picture.format, picture.width, picture.height) == (name.split(",")[0], 96, 64)
    difference = np.abs(np.asarray(picture.pixels, int) - np.asarray(make_scene(), int))
    assert difference.mean() < 6, "a palette of 256 colours is the coarsest of them"


@pytest.mark.parametrize(
    "head",
    [
        b"BM, said the note, is short for basement. Bring a lamp and a bag, we meet at the stairs at nine.",
        b"BM\x00\x00",
        b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(40),
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42avif" + bytes(40),
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40),
        b"RIFF\0\0\0\0AVI LIST" + bytes(48),
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1" + bytes(30),
        b"SIMPLE  =                    T",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"",
    ],
)
def test_films_texts_and_documents_are_no_pictures(head):
    assert sniff_format(head[:64]) is None
    with pytest.raises(PictureError):
        open_picture(head)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a\xfa\x1f\x41\x91", "JXL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JXL"),
    ],
)
def test_newer_formats_are_told_by_their_brand(head, name):
    assert sniff_format(head) == name


def test_suffixes_are_lower_case_with_their_dot():
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in PICTURE_SUFFIXES)
    assert {".jpg", ".heic", ".jxl", ".avif", ".webp"} <= PICTURE_SUFFIXES


# --- upright -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_give_one_picture_exactly(orientation):
    stored, exif = lay_down(make_scene(), orientation)
    for name in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if name == "WEBP" else {}
        picture = open_picture(encode(stored, name, exif=exif, **options))
        assert (picture.width, picture.height) == (96, 64)
        np.testing.assert_array_equal(np.asarray(picture.pixels), np.asarray(make_scene()), err_msg=name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_when_the_decoder_shrinks_the_picture(orientation):
    scene = make_scene(960, 640)
    stored, exif = lay_down(scene, orientation)
    picture = open_picture(encode(stored, "JPEG", quality=95, exif=exif), short_side_px=160)
    assert (picture.width, picture.height) == (960, 640)
    assert picture.pixels.size == (240, 160)
    expected = np.asarray(scene.resize((240, 160), Image.Resampling.BOX), int)
    assert np.abs(np.asarray(picture.pixels, int) - expected).mean() < 2.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_stands_upright_whether_exif_or_its_own_boxes_say_so(orientation):
    stored, exif = lay_down(make_scene(), orientation)
    picture = open_picture(encode(stored, "AVIF", quality=95, exif=exif))
    assert (picture.width, picture.height) == picture.pixels.size == (96, 64)
    assert np.abs(np.asarray(picture.pixels, int) - np.asarray(make_scene(), int)).mean() < 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_the_decoder_shrinks_grey_and_print_colours_too(mode):
    data = encode(make_scene(960, 640).convert(mode), "JPEG", quality=95)
    small, full = open_picture(data, short_side_px=160).pixels, open_picture(data).pixels
    assert small.size == (240, 160)
    difference = np.asarray(small, int) - np.asarray(full.resize(small.size, Image.Resampling.BOX), int)
    assert np.abs(difference).mean() < 2


def test_an_orientation_that_does_not_exist_is_no_orientation():
    exif = Image.Exif()
    exif[ORIENTATION] = 77
    np.testing.assert_array_equal(pixels_of(encode(make_scene(), "PNG", exif=exif)), np.asarray(make_scene()))


def test_a_broken_exif_block_costs_no_picture():
    data = encode(make_scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(8))
    assert open_picture(data).width == 96


# --- colours -----------------------------------------------------------------------------------------------------


def test_transparency_is_laid_on_white():
    rgba = make_scene().convert("RGBA")
    rgba.paste((10, 20, 30, 0), (0, 0, 48, 64))
    seen = pixels_of(encode(rgba, "PNG"))
    assert (seen[:, :48] == 255).all()
    np.testing.assert_array_equal(seen[:, 48:], np.asarray(make_scene())[:, 48:])


def test_half_transparent_grey_is_halfway_to_white():
    seen = pixels_of(encode(Image.new("LA", (8, 8), (100, 128)), "PNG"))
    assert np.abs(seen.astype(int) - 177).max() <= 1


def test_the_transparent_colour_of_a_palette_is_white():
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.paste(0, (0, 0, 4, 8))
    seen = pixels_of(encode(palette, "GIF", transparency=0))
    assert (seen[:, :4] == 255).all()
    assert (seen[:, 4:] == (0, 0, 200)).all()


def test_one_bit_pictures_are_black_and_white():
    seen = pixels_of(encode(Image.new("1", (9, 9), 1), "PNG"))
    assert seen.shape == (9, 9, 3) and (seen == 255).all()


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_grey_uses_its_whole_range(name):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(4, axis=0)
    seen = pixels_of(encode(Image.fromarray(ramp), name))
    np.testing.assert_array_equal(seen[0, :, 0], np.arange(256))


def test_a_dark_sixteen_bit_png_stays_dark():
    grey = np.full((4, 4), 4000, np.uint16)
    assert (pixels_of(encode(Image.fromarray(grey), "PNG")) == 16).all()


def test_twelve_bits_in_a_sixteen_bit_file_are_not_shown_as_night():
    ramp = np.linspace(0, 4095, 256).astype(np.uint16)[None, :]
    np.testing.assert_array_equal(pixels_of(encode(Image.fromarray(ramp), "TIFF"))[0, :, 1], np.arange(256))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0, np.nan]], np.float32), [0, 128, 255, 0]),
        (np.array([[0.0, 100.0, 255.0, np.inf]], np.float32), [0, 100, 255, 0]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 1e6, 2e6]], np.float32), [0, 128, 255]),
        (np.array([[0, 1 << 20, 1 << 21]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.0]], np.float32), [0, 0]),
        (np.array([[-5.0, -5.0]], np.float32), [0, 0]),
    ],
)
def test_floats_and_long_integers_are_scaled_to_eight_bits(values, expected):
    assert pixels_of(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


def test_cmyk_jpegs_with_adobes_inverted_channels_have_their_colours():
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    jpeg = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in jpeg[:64]
    for data in (jpeg, encode(cmyk, "TIFF")):
        assert np.abs(pixels_of(data).astype(int) - (255, 0, 0)).max() < 12


def test_lab_pictures_are_converted_by_their_meaning():
    lab = Image.new("LAB", (8, 8), (255, 128, 128))
    assert pixels_of(encode(lab, "TIFF")).min() >= 250


def make_profile() -> bytes:
    """A copy of the sRGB profile whose red and blue primaries have changed places: its effect cannot be missed."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at_red, at_blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[at_red : at_red + 4], data[at_blue : at_blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_icc_profile_is_converted_to_srgb(name):
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(Image.new("RGB", (16, 16), (200, 40, 40)), name, icc_profile=make_profile(), **options)
    red, _green, blue = pixels_of(data)[8, 8].astype(int)
    assert blue > red + 100


def test_a_profile_is_converted_under_transparency_too():
    data = encode(Image.new("RGBA", (16, 16), (200, 40, 40, 255)), "PNG", icc_profile=make_profile())
    red, _green, blue = pixels_of(data)[8, 8].astype(int)
    assert blue > red + 100


@pytest.mark.parametrize("profile", [b"not a profile", bytes(500), make_profile()[:300]])
def test_a_broken_profile_is_ignored(profile):
    data = encode(make_scene(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(pixels_of(data), np.asarray(make_scene()))


def test_a_profile_made_for_other_channels_is_ignored():
    data = encode(make_scene().convert("L"), "PNG", icc_profile=make_profile())
    assert pixels_of(data).shape == (64, 96, 3)


# --- the first frame ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_of_several_frames_the_first_is_the_picture(name):
    first, second = Image.new("RGB", (64, 48), (250, 5, 5)), Image.new("RGB", (64, 48), (5, 5, 250))
    data = encode(first, name, save_all=True, append_images=[second])
    picture = open_picture(data, short_side_px=16)
    assert (picture.width, picture.height) == (64, 48)
    assert np.abs(np.asarray(picture.pixels, int) - (250, 5, 5)).max() < 16


# --- thumbnails --------------------------------------------------------------------------------------------------


def test_a_thumbnail_carries_nothing_but_pixels():
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif.get_ifd(GPS)[1] = "N"
    data = encode(make_scene(), "WEBP", exif=exif, icc_profile=make_profile(), xmp=b"<x:xmpmeta/>")
    assert Image.open(io.BytesIO(data)).info.keys() >= {"exif", "icc_profile", "xmp"}
    picture = open_picture(data)
    assert picture.pixels.info == {}
    thumbnail = encode_thumbnail(picture)
    assert not any(mark in thumbnail for mark in (b"EXIF", b"ICCP", b"XMP ", b"A camera"))
    assert len(Image.open(io.BytesIO(thumbnail)).getexif()) == 0


@given(width=st.integers(1, 900), height=st.integers(1, 900), side_px=st.integers(16, 400))
@settings(max_examples=40, deadline=None)
def test_a_thumbnail_fits_its_square_and_is_never_enlarged(width, height, side_px):
    picture = Picture(Image.new("RGB", (width, height)), width, height, "PNG")
    across, down = Image.open(io.BytesIO(encode_thumbnail(picture, side_px=side_px))).size
    assert max(across, down) == min(side_px, max(width, height))
    assert min(across, down) == max(1, round(min(width, height) * min(1.0, side_px / max(width, height))))
