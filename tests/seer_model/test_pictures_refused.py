"""Pictures that are too large, too thin, cut short or damaged: opened whole, or refused in one sentence."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from seer_model.errors import PictureError
from seer_model.formats import DECODERS
from seer_model.pictures import encode_thumbnail, open_picture
from seer_model.preprocess import PREPROCESSINGS, prepare
from tests.seer_model.making_pictures import encode, every_format, make_scene, pixels_of

# --- size --------------------------------------------------------------------------------------------------------


def make_png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises this size, with next to nothing behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(PictureError, match=r"900\.0 megapixels \(30000 x 30000\), allowed are 200; .*--max-megapixels"):
        open_picture(make_png_of_size(30000, 30000))


def test_the_limit_is_the_callers_not_the_decoders():
    with pytest.raises(PictureError, match="cut short"):
        open_picture(make_png_of_size(20000, 10000), max_megapixels=200)
    with pytest.raises(PictureError, match=r"allowed are 0\.005"):
        open_picture(encode(make_scene(), "PNG"), max_megapixels=0.005)


def test_a_tiff_above_the_decoders_own_limit_opens_when_it_is_allowed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(make_scene(100, 100), "TIFF", compression="tiff_adobe_deflate")
    assert open_picture(data, max_megapixels=0.02).width == 100


def test_a_gif_whose_frame_outgrows_its_header_is_told_the_option():
    gif = bytearray(encode(Image.new("P", (10, 10)), "GIF"))
    at_frame = gif.index(b"\x2c\0\0\0\0")
    gif[at_frame + 5 : at_frame + 9] = struct.pack("<HH", 60000, 60000)
    with pytest.raises(PictureError, match="--max-megapixels"):
        open_picture(bytes(gif))


def test_a_mistake_of_the_caller_is_not_blamed_on_the_picture():
    with pytest.raises(TypeError):
        open_picture(encode(make_scene(), "PNG"), max_megapixels=None)


def test_a_warning_filter_is_put_in_once(recwarn):
    data = encode(make_scene(), "PNG")
    open_picture(data)
    before = list(warnings.filters)
    open_picture(data)
    assert warnings.filters == before


def test_a_picture_of_exactly_the_limit_opens():
    assert open_picture(encode(make_scene(100, 100), "PNG"), max_megapixels=0.01).width == 100


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_a_picture_without_pixels_is_refused_with_a_reason(size):
    gif = bytearray(encode(Image.new("P", (10, 10)), "GIF"))
    gif[6:10] = struct.pack("<HH", *size)
    at_frame = gif.index(b"\x2c\0\0\0\0")
    gif[at_frame + 5 : at_frame + 9] = struct.pack("<HH", *size)
    for data in (bytes(gif), make_png_of_size(*size)):
        with pytest.raises(PictureError):
            open_picture(data)


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (1, 1)])
def test_a_line_of_pixels_is_a_picture(size):
    picture = open_picture(encode(Image.new("RGB", size, (9, 8, 7)), "PNG"), short_side_px=512)
    assert (picture.width, picture.height) == size
    assert max(Image.open(io.BytesIO(encode_thumbnail(picture))).size) <= 320


@given(width=st.integers(1, 400), height=st.integers(1, 400), short_side_px=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_decoder_never_shrinks_below_the_short_side(width, height, short_side_px):
    data = encode(Image.new("RGB", (width, height)), "JPEG")
    picture = open_picture(data, short_side_px=short_side_px)
    assert (picture.width, picture.height) == (width, height)
    assert min(picture.pixels.size) >= min(short_side_px, width, height)


def test_a_shrunk_decode_is_close_to_the_full_one_after_preparation(photos_folder):
    how = PREPROCESSINGS["vissl"]
    for path in sorted(photos_folder.glob("*.jpg"))[:5]:
        large = Image.open(path).convert("RGB").resize((1600, 2134), Image.Resampling.BICUBIC)
        data = encode(large, "JPEG", quality=92)
        shrunk = open_picture(data, short_side_px=how.short_side_px)
        assert shrunk.pixels.width == 800
        difference = np.abs(
            prepare(shrunk.pixels, how).astype(int) - prepare(open_picture(data).pixels, how).astype(int)
        )
        assert difference.mean() < 1.0 and difference.max() <= 16, path.name


# --- bad bytes ---------------------------------------------------------------------------------------------------


def test_an_empty_file_says_so():
    with pytest.raises(PictureError, match="empty"):
        open_picture(b"")


@pytest.mark.parametrize("half_pictures_allowed", [False, True])
@pytest.mark.parametrize(("name", "data"), every_format().items())
def test_a_file_cut_short_is_refused_or_whole(name, data, half_pictures_allowed, monkeypatch):
    whole = pixels_of(data)
    for kept in [*range(1, len(data), max(1, len(data) // 40)), *range(len(data) - 20, len(data))]:
        # The decoder's own switch for half pictures may have been turned on by anyone in this process.
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", half_pictures_allowed)
        try:
            seen = pixels_of(data[:kept], short_side_px=4096)
        except PictureError as error:
            assert str(error).endswith(".")
        else:
            np.testing.assert_array_equal(seen, whole, err_msg=f"{name}: {kept} of {len(data)} bytes")


@pytest.mark.parametrize("name", DECODERS)
def test_a_header_with_nothing_sensible_behind_it_is_refused(name):
    data = every_format()[name]
    for filler in (bytes(400), b"\xff" * 400, b"once upon a time " * 30):
        with pytest.raises(PictureError, match="try|cut short|damaged|known format|megapixels|nothing"):
            open_picture(data[:30] + filler)


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(every_format())))
@settings(max_examples=250, deadline=None)
def test_damaged_bytes_give_a_picture_or_one_sentence(seed, name):
    random = np.random.default_rng(seed)
    data = bytearray(every_format()[name])
    reach = int(random.choice([40, 200, 1000, len(data)]))
    for at in random.integers(0, min(reach, len(data)), size=random.integers(1, 12)):
        data[at] = random.integers(256)
    try:
        picture = open_picture(bytes(data), short_side_px=32, max_megapixels=4)
    except PictureError as error:
        assert "\n" not in str(error) and " at 0x" not in str(error)
    else:
        assert picture.pixels.mode == "RGB"


def test_the_decoders_warnings_are_neither_printed_nor_raised():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0])
    noisy = encode(palette, "PNG", transparency=bytes([0, 255]))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        open_picture(noisy)
        open_picture(encode(make_scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0" + bytes(7)))
    assert [str(warning.message) for warning in seen] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_picture(noisy)
