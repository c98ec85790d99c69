"""Edited copies: equal for equal seeds, different from their original, and as strong as their name says."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from indexer.edited import embed_copies
from indexer.edits import EDITS, KINDS, apply_edit, choose_edits
from seer_model.errors import SettingsError
from seer_model.preprocess import PREPROCESSINGS


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture of fine grain on soft colours, without symmetry, 420 x 360."""
    random = np.random.default_rng(5)
    soft, fine = (Image.fromarray(random.integers(20, 236, (6 * n, 7 * n, 3), dtype=np.uint8)) for n in (1, 20))
    return Image.blend(*(layer.resize((420, 360), Image.Resampling.BICUBIC) for layer in (soft, fine)), 0.3)


def read(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64)


def make(picture: Image.Image, title: str, number: int = 1, seed: int = 0) -> Image.Image:
    return apply_edit(picture, EDITS[title], number=number, seed=seed)


def test_the_edits_that_are_asked_for_are_there():
    assert KINDS == ("crop", "resize", "JPEG", "rotate", "flip", "colour", "text", "blur")
    needed = {"JPEG 30", "resize half", "flip mirrored", "colour mild", "crop 60 %", "resize half, JPEG 30"}
    assert needed <= EDITS.keys()
    assert all(sum(edit.name == kind for edit in EDITS.values()) >= 2 for kind in KINDS), "several strengths each"
    assert all(title == edit.title for title, edit in EDITS.items())


@pytest.mark.parametrize("title", EDITS)
def test_equal_arguments_give_equal_pixels_and_the_original_is_left_alone(picture: Image.Image, title: str):
    before = picture.tobytes()
    one, again = make(picture, title, 7, 3), make(picture.copy(), title, 7, 3)
    assert one.mode == "RGB"
    assert (one.size, one.tobytes()) == (again.size, again.tobytes())
    assert picture.tobytes() == before
    assert one is not picture


@pytest.mark.parametrize("title", EDITS)
def test_a_copy_is_really_different(picture: Image.Image, title: str):
    copy = make(picture, title)
    assert copy.size != picture.size or np.abs(read(copy) - read(picture)).max() >= 8


@pytest.mark.parametrize("title", ["crop 60 %", "rotate 15 deg", "colour mild", "text one line"])
def test_pictures_of_other_numbers_and_other_seeds_are_edited_otherwise(picture: Image.Image, title: str):
    assert len({make(picture, title, number).tobytes() for number in range(12)}) > 1
    assert len({make(picture, title, 1, seed).tobytes() for seed in range(12)}) > 1


@pytest.mark.parametrize("title", EDITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (3, 3)])
def test_pictures_of_any_size_can_be_edited(title: str, size: tuple[int, int]):
    copy = make(Image.new("RGB", size, (200, 90, 10)), title)
    assert copy.mode == "RGB"
    assert min(copy.size) >= 1


@pytest.mark.parametrize("share", [80, 60, 40])
def test_a_crop_keeps_its_share_of_the_area_and_the_shape_and_lies_in_the_picture(picture: Image.Image, share: int):
    corners = set()
    for number in range(20):
        copy = make(picture, f"crop {share} %", number)
        assert copy.width * copy.height / (420 * 360) == pytest.approx(share / 100, abs=0.005)
        assert copy.width / copy.height == pytest.approx(420 / 360, rel=0.01)
        corners.add(find_corner(picture, copy))
    assert None not in corners, "a crop is a part of the picture"
    assert len(corners) > 10


def find_corner(picture: Image.Image, part: Image.Image) -> tuple[int, int] | None:
    """Where a part lies in a picture, in pixels from left and top."""
    whole, piece = np.asarray(picture), np.asarray(part)
    for top, left in zip(*np.nonzero((whole == piece[0, 0]).all(axis=2)), strict=True):
        if np.array_equal(whole[top : top + part.height, left : left + part.width], piece):
            return int(left), int(top)
    return None


def test_a_smaller_copy_is_half_or_a_quarter_as_wide(picture: Image.Image):
    sizes = {title: make(picture, f"resize {title}").size for title in ("half", "quarter", "half, JPEG 30")}
    assert sizes == {"half": (210, 180), "quarter": (105, 90), "half, JPEG 30": (210, 180)}


@pytest.mark.parametrize("quality", [60, 30, 10])
def test_a_jpeg_copy_is_what_pillow_writes_and_reads_at_this_quality(picture: Image.Image, quality: int):
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=quality)
    assert make(picture, f"JPEG {quality}").tobytes() == Image.open(stream).tobytes()


def test_lower_quality_is_farther_from_the_original(picture: Image.Image):
    errors = [np.abs(read(make(picture, f"JPEG {quality}")) - read(picture)).mean() for quality in (60, 30, 10)]
    assert errors == sorted(errors)
    assert errors[0] < errors[2]


@pytest.mark.parametrize("degrees", [5, 15])
def test_a_turned_copy_is_turned_by_its_degrees_to_either_side(picture: Image.Image, degrees: int):
    expected = {}
    for angle in (degrees, -degrees):
        turned = ndimage.rotate(read(picture), angle, axes=(1, 0), reshape=False, order=1)
        expected[angle] = turned[120:240, 140:280]
    sides = set()
    for number in range(12):
        middle = read(make(picture, f"rotate {degrees} deg", number))[120:240, 140:280]
        errors = {angle: np.abs(middle - pixels).mean() for angle, pixels in expected.items()}
        assert min(errors.values()) < 3
        sides.add(min(errors, key=errors.get))
    assert sides == {degrees, -degrees}


def test_a_quarter_turn_keeps_every_pixel(picture: Image.Image):
    copies = {make(picture, "rotate 90 deg", number).tobytes() for number in range(12)}
    quarters = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270
    assert copies == {picture.transpose(quarter).tobytes() for quarter in quarters}


def test_flips(picture: Image.Image):
    assert make(picture, "flip mirrored").tobytes() == ImageOps.mirror(picture).tobytes()
    assert make(picture, "flip upside down").tobytes() == ImageOps.flip(picture).tobytes()


def test_a_recoloured_copy_has_brightness_contrast_and_saturation_changed_by_its_strength(picture: Image.Image):
    for title, by in (("colour mild", 0.2), ("colour strong", 0.5)):
        possible = set()
        for factors in np.ndindex(2, 2, 2):
            copy = picture
            kinds = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
            for enhance, up in zip(kinds, factors, strict=True):
                copy = enhance(copy).enhance(1 + by if up else 1 - by)
            possible.add(copy.tobytes())
        found = {make(picture, title, number).tobytes() for number in range(40)}
        assert found <= possible
        assert len(found) > 4


def test_a_grey_copy_has_no_colour(picture: Image.Image):
    copy = read(make(picture, "colour grey"))
    assert np.ptp(copy, axis=2).max() == 0
    assert np.ptp(copy) > 50


def test_text_covers_a_part_with_black_and_white_letters_and_leaves_the_rest(picture: Image.Image):
    covered = {}
    for title in ("text one line", "text three lines"):
        shares = []
        for number in range(10):
            copy = make(picture, title, number)
            changed = (np.asarray(copy) != np.asarray(picture)).any(axis=2)
            assert {(0, 0, 0), (255, 255, 255)} <= set(map(tuple, np.asarray(copy)[changed].tolist()))
            shares.append(changed.mean())
        covered[title] = np.mean(shares)
        assert len(set(shares)) > 1, "other words, other places"
    assert 0.005 < covered["text one line"] < 0.08 < covered["text three lines"] < 0.4


@pytest.mark.parametrize("percent", [1, 3])
def test_a_blurred_copy_is_a_gaussian_of_its_share_of_the_short_side(picture: Image.Image, percent: int):
    expected = ndimage.gaussian_filter(read(picture), (3.6 * percent, 3.6 * percent, 0), mode="nearest")
    assert np.abs(read(make(picture, f"blur {percent} %")) - expected).mean() < 1.5


def test_edits_are_chosen_by_kind_or_by_title():
    titles = [edit.title for edit in choose_edits(("JPEG", "crop 60 %"))]
    assert titles == ["crop 60 %", "JPEG 60", "JPEG 30", "JPEG 10"]
    assert choose_edits(()) == tuple(EDITS.values())


@pytest.mark.parametrize("name", ["jpeg", "crop 50 %", "", "sepia"])
def test_an_edit_that_there_is_not_is_refused_with_those_there_are(name: str):
    with pytest.raises(SettingsError, match="allowed are crop, resize, JPEG") as refused:
        choose_edits((name,))
    assert "crop 60 %" in str(refused.value)


def test_copies_are_embedded_batch_by_batch_in_their_order_and_those_without_an_embedding_left_out():
    sizes = []

    def embed(pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        sizes.append(len(pixels))
        levels = [int(one[0, 0, 0]) for one in pixels]
        return np.array([[level] for level in levels if level != 40], np.float32), [level != 40 for level in levels]

    copies = ((number, Image.new("RGB", (300, 300), (10 * number,) * 3)) for number in range(8))
    rows, numbers = map(np.concatenate, zip(*embed_copies(copies, PREPROCESSINGS["vissl"], embed, 3), strict=True))
    assert numbers.tolist() == [0, 1, 2, 3, 5, 6, 7] and rows[:, 0].tolist() == [10 * number for number in numbers]
    assert sizes == [3, 3, 2]
