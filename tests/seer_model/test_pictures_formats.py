"""HEIC, JPEG XL and RAW: the libraries themselves, and what is said where one of them is not there."""

import io
import subprocess
import sys

import numpy as np
import pillow_jxl
import pytest
import rawpy
from PIL import Image, TiffImagePlugin

from seer_model import formats
from seer_model.errors import PictureError
from seer_model.extra_decoders import measure_jxl
from seer_model.formats import EXTRAS, explain_missing, list_met_needs, name_format, sniff_format
from seer_model.pictures import open_picture
from tests.conftest import REPOSITORY
from tests.seer_model.making_dng import make_dng
from tests.seer_model.making_pictures import encode, every_format, make_scene, pixels_of
from tests.seer_model.test_pictures import ORIENTATION, lay_down, make_profile


def is_scene(data: bytes, **options: object) -> bool:
    """Whether a file shows the scene, upright."""
    difference = np.abs(pixels_of(data, **options).astype(int) - np.asarray(make_scene(), int))
    return difference.mean() < 6


def pretend_absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let libraries of these formats not be found."""
    missing = {EXTRAS[name].module for name in names}
    find = formats.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda module: None if module in missing else find(module))


# --- where a library is not there --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXTRAS)
def test_a_format_without_its_library_says_what_to_install(name, monkeypatch):
    pretend_absent(monkeypatch, name)
    with pytest.raises(PictureError) as refusal:
        open_picture(every_format()[name])
    assert str(refusal.value) == explain_missing(name)
    assert f'pip install "seer[{name.lower()}]"' in explain_missing(name)
    assert set(list_met_needs()) == {explain_missing(other) for other in EXTRAS if other != name}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_what_pillow_reads_loads_no_library_more(name):
    loaded = "print(*sorted({'pillow_heif', 'pillow_jxl', 'rawpy'} & sys.modules.keys()))"
    start = "import sys; from seer_model.pictures import open_picture; open_picture(sys.stdin.buffer.read())"
    command = [sys.executable, "-c", f"{start}; {loaded}"]
    done = subprocess.run(command, input=every_format()[name], capture_output=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout.strip()) == (0, b""), done.stderr


def test_avif_stays_with_pillow(monkeypatch):
    pretend_absent(monkeypatch, *EXTRAS)
    assert is_scene(every_format()["AVIF"])


# --- upright, in colour ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(orientation):
    laid_down, exif = lay_down(make_scene(), orientation)
    data = encode(laid_down, "HEIC", quality=90, exif=exif.tobytes())
    assert (open_picture(data).width, open_picture(data).height) == (96, 64) and is_scene(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_preview_of_a_raw_file_is_turned_as_the_camera_was_held(orientation):
    laid_down, _ = lay_down(make_scene(), orientation)
    data = encode(laid_down, "RAW", orientation=orientation)
    picture = open_picture(data)
    assert (picture.width, picture.height, picture.format) == (96, 64, "RAW") and is_scene(data)


def test_a_preview_that_says_how_it_lies_is_turned_once():
    laid_down, exif = lay_down(make_scene(), 6)
    preview = encode(laid_down, "JPEG", exif=exif, quality=90)
    assert is_scene(make_dng(preview, orientation=6))


def test_a_jxl_is_upright_whatever_its_exif_says():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert is_scene(encode(make_scene(), "JXL", use_container=True, exif=exif.tobytes()[6:]))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jxl_made_of_a_jpeg_opens_as_that_jpeg(orientation):
    laid_down, exif = lay_down(make_scene(256, 192), orientation)
    jpeg = encode(laid_down, "JPEG", exif=exif, quality=90)
    packer = pillow_jxl.Encoder("RGB", lossless=True, effort=3, use_container=True)
    data = packer(jpeg, *laid_down.size, jpeg_encode=True)
    np.testing.assert_array_equal(pixels_of(data), pixels_of(jpeg))
    shrunk = open_picture(data, short_side_px=48)
    assert (shrunk.width, shrunk.height, shrunk.format) == (256, 192, "JXL") and min(shrunk.pixels.size) < 192


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_jxl_of_any_kind_becomes_rgb(mode):
    grey = make_scene().convert("L")
    expected = np.asarray(grey.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(encode(grey.convert(mode), "JXL", lossless=True)), expected)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_deep_jxl_becomes_rgb_by_its_profile(kind):
    ramp = np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)
    deep = Image.fromarray((ramp * (65535 if kind is np.uint16 else 1)).astype(kind))
    # The writer calls deep greys linear; sRGB's curve brightens them.
    expected = 255 * np.where(ramp < 0.0031308, 12.92 * ramp, 1.055 * ramp ** (1 / 2.4) - 0.055)
    difference = np.abs(pixels_of(encode(deep, "JXL", lossless=True)) - expected[..., None])
    assert difference[ramp > 0.2].max() < 3 and difference.max() < 17, "one step of 8 linear bits in the dark"


def test_heic_lies_on_white_where_it_is_transparent():
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert pixels_of(encode(clear, "HEIC", quality=90)).min() > 245


def test_the_profile_of_a_heic_is_converted_to_srgb():
    data = encode(Image.new("RGB", (64, 64), (200, 40, 40)), "HEIC", quality=95, icc_profile=make_profile())
    red, _green, blue = pixels_of(data)[32, 32].astype(int)
    assert blue > red + 100


# --- the limit on pixels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height"),
    [(96, 64), (64, 64), (7, 513), (8192, 8), (1, 70000), (120, 100), (300, 225), (96, 54), (250, 200), (202, 101)],
)
def test_the_size_of_a_jxl_is_read_without_its_decoder(width, height):
    for options in ({}, {"use_container": True}):
        assert measure_jxl(encode(Image.new("L", (width, height)), "JXL", **options)) == (width, height)


@pytest.mark.parametrize("name", ["HEIC", "JXL", "RAW"])
def test_pixels_are_counted_before_they_are_decoded(name, monkeypatch):
    data = every_format()[name]
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr("pillow_heif.HeifImageFile.load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr("pillow_jxl.Decoder", lambda **_: pytest.fail("it was decoded"))
    with pytest.raises(PictureError, match=r"96 x 64\), allowed are 0\.006; .*--max-megapixels 1"):
        open_picture(data, max_megapixels=0.006)


def test_a_header_of_a_jxl_that_ends_early_is_damage():
    for data in (b"\xff\x0a", b"\xff\x0a\x02", every_format()["JXL, in boxes"][:40], b"\0\0\0\x0cJXL \r\n\x87\n" * 3):
        with pytest.raises(PictureError, match="JXL data is"):
            open_picture(data)


# --- what is a RAW file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"II*\0\x10\0\0\0CR\x02\0",
        b"II\x1a\0\x1a\0\0\0HEAPCCDR",
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
        b"FUJIFILMCCD-RAW 0201FF393101",
        b"IIRO\x08\0\0\0",
        b"MMOR\0\0\0\x08",
        b"IIU\0\x18\0\0\0",
        b"\0MRM\0\0\0\0",
        b"FOVb\x01\0\x02\0",
    ],
)
def test_raw_files_that_are_no_tiff_are_told_by_their_first_bytes(head):
    assert sniff_format(head.ljust(64, b"\0")) == "RAW"


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({}, "TIFF"),
        ({254: 1}, "TIFF"),
        ({50706: b"\1\4\0\0"}, "RAW"),
        ({262: 32803}, "RAW"),
        ({259: 34713}, "RAW"),
        ({254: 1, 330: 8}, "RAW"),
    ],
)
def test_a_tiff_of_a_camera_is_told_by_its_tags(tags, name):
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: 16, 257: 16, 262: 1, **tags}.items():
        directory[tag] = value
    stream = io.BytesIO(b"II*\0\x08\0\0\0")
    stream.seek(8)
    directory.save(stream)
    assert name_format(stream.getvalue()) == name


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "jpeg"}, {"compression": "tiff_lzw"}])
def test_a_tiff_of_no_camera_stays_one(options):
    assert open_picture(encode(make_scene(), "TIFF", **options)).format == "TIFF"


def test_a_raw_file_without_a_preview_says_so():
    data = every_format()["RAW"].replace(b"\x4a\x01\x04\0\x01\0\0\0", b"\x4b\x01\x04\0\x01\0\0\0")
    with pytest.raises(PictureError, match="RAW"):
        open_picture(data)


@pytest.mark.parametrize(
    ("flip", "upright"),
    [(0, None), (3, Image.Transpose.ROTATE_180), (5, Image.Transpose.ROTATE_90), (6, Image.Transpose.ROTATE_270)],
)
def test_a_preview_of_bare_pixels_is_turned_as_libraw_says(flip, upright, monkeypatch):
    pixels = np.asarray(make_scene())
    bare = rawpy.Thumbnail(rawpy.ThumbFormat.BITMAP, pixels)
    shown = type("Shown", (), {"extract_thumb": lambda self: bare, "sizes": type("S", (), {"flip": flip})})

    class Opened:
        def __enter__(self):
            return shown()

        def __exit__(self, *_):
            pass

    # LibRaw itself reads the file in all other tests; a camera that keeps bare pixels is not at hand.
    monkeypatch.setattr("rawpy.imread", lambda _: Opened())
    expected = make_scene() if upright is None else make_scene().transpose(upright)
    np.testing.assert_array_equal(pixels_of(every_format()["RAW"]), np.asarray(expected))


def test_a_panic_of_the_library_is_damage(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(_: bytes):
        raise PanicException("unreachable")

    monkeypatch.setattr("pillow_jxl.Decoder", lambda **_: panic)
    with pytest.raises(PictureError, match="refuses it"):
        open_picture(every_format()["JXL"])
