"""From pictures of any size to what the backbone sees."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seer_model.errors import SettingsError
from seer_model.preprocess import FILTERS, PREPROCESSINGS, Preprocessing, prepare

SHAPES = {
    "vissl": (224, 224),
    "vissl-finetuned": (384, 384),
    "geolocalisation": (224, 224),
    "timm": (224, 224),
    "timm-finetuned": (384, 384),
    "huggingface": (384, 384),
}


def make_noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blocks of noise, so that a shift by one pixel shows."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("name", "resize", "resize_px", "crop_px", "interpolation"),
    [
        ("vissl", "short", 256, 224, "bilinear"),
        ("vissl-finetuned", "short", 384, 384, "bicubic"),
        ("copydays", "long", 224, None, "bilinear"),
        ("geolocalisation", "short", 224, 224, "bilinear"),
        ("timm", "short", 232, 224, "bicubic"),
        ("timm-finetuned", "short", 384, 384, "bicubic"),
        ("huggingface", "squash", 384, None, "bicubic"),
    ],
)
def test_the_choices_are_those_of_the_published_libraries(name, resize, resize_px, crop_px, interpolation):
    how = PREPROCESSINGS[name]
    assert (how.name, how.resize, how.resize_px, how.crop_px) == (name, resize, resize_px, crop_px)
    assert how.interpolation == interpolation
    assert (how.mean, how.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), name=st.sampled_from(sorted(SHAPES)))
@settings(max_examples=60, deadline=None)
def test_any_size_gives_exactly_the_shape(width, height, name):
    pixels = prepare(Image.new("RGB", (width, height), (1, 2, 3)), PREPROCESSINGS[name])
    assert pixels.shape == (*SHAPES[name], 3) and pixels.dtype == np.uint8
    assert (pixels == (1, 2, 3)).all()


@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
@settings(max_examples=30, deadline=None)
def test_a_long_side_resize_keeps_the_aspect(width, height):
    down, across, _ = prepare(Image.new("RGB", (width, height)), PREPROCESSINGS["copydays"]).shape
    assert max(down, across) == 224
    assert min(down, across) == max(1, int(224 * min(width, height) / max(width, height)))


@pytest.mark.parametrize(
    ("size", "resized", "left", "top"),
    [
        # By hand: int(640 * 256 / 480) = 341; (341 - 224) / 2 = 58.5, half to even 58; (256 - 224) / 2 = 16.
        ((640, 480), (341, 256), 58, 16),
        # int(533 * 256 / 400) = int(341.12) = 341.
        ((400, 533), (256, 341), 16, 58),
        # int(1000 * 256 / 999) = int(256.256...) = 256.
        ((999, 1000), (256, 256), 16, 16),
        # int(383 * 256 / 100) = int(980.48) = 980; (980 - 224) / 2 = 378.
        ((383, 100), (980, 256), 378, 16),
        # Smaller than the cut, so enlarged: int(61 * 256 / 45) = int(347.02) = 347; 61.5, half to even 62.
        ((45, 61), (256, 347), 16, 62),
        ((256, 256), (256, 256), 16, 16),
    ],
)
@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_it_equals_resizing_the_whole_picture_and_then_cutting(size, resized, left, top, interpolation):
    how = Preprocessing(name="test", resize="short", resize_px=256, crop_px=224, interpolation=interpolation)
    picture = make_noise(*size)
    whole = np.asarray(picture.resize(resized, FILTERS[interpolation]), int)
    expected = whole[top : top + 224, left : left + 224]
    # The same sums in another order: a value that lies on a half may round the other way.
    assert np.abs(prepare(picture, how).astype(int) - expected).max() <= 1


def test_squashing_ignores_the_aspect():
    picture = make_noise(300, 80)
    expected = np.asarray(picture.resize((384, 384), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(prepare(picture, PREPROCESSINGS["huggingface"]), expected)


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (1, 100000)])
def test_a_line_of_pixels_needs_no_gigabytes(size, monkeypatch):
    resize = Image.Image.resize

    def watched(self, target, *args, **options):
        assert target[0] * target[1] <= 384 * 384, "the whole strip was enlarged before the cut"
        return resize(self, target, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert prepare(Image.new("RGB", size), PREPROCESSINGS["vissl"]).shape == (224, 224, 3)


def test_the_decoder_keeps_twice_the_side_that_is_needed():
    assert PREPROCESSINGS["vissl"].short_side_px == 512
    assert PREPROCESSINGS["huggingface"].short_side_px == 768


def test_a_description_says_everything_that_changes_an_embedding():
    described = [json.dumps(how.describe(), sort_keys=True) for how in PREPROCESSINGS.values()]
    assert len(set(described)) == len(PREPROCESSINGS)
    assert set(PREPROCESSINGS["vissl"].describe()) == {
        "name", "resize", "resize_px", "crop_px", "interpolation", "mean", "std", "short_side_px",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": "tall"},
        {"interpolation": "nearest"},
        {"resize_px": 8},
        {"crop_px": None},
        {"crop_px": 300},
        {"crop_px": 8},
        {"resize": "long"},
        {"resize": "squash"},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong):
    right = {"name": "test", "resize": "short", "resize_px": 256, "crop_px": 224}
    with pytest.raises(SettingsError):
        Preprocessing(**(right | wrong))
