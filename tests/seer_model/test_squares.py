"""Pictures squeezed to squares."""

import numpy as np
import pytest
from PIL import Image

from seer_model.squares import squeeze
from tests.seer_model.making_pictures import make_scene


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (200, 200), (16, 16), (1, 2000), (2000, 1), (1, 1)])
def test_a_square_has_the_size_asked_for_and_knows_its_aspect(size: tuple[int, int]):
    square = squeeze(make_scene(*size), 32)
    assert (square.pixels.shape, square.pixels.dtype) == ((32, 32, 3), np.uint8)
    assert square.aspect == size[0] / size[1]


def test_shrinking_takes_every_pixel_into_account():
    # Black and white columns: without antialiasing a square of a quarter of the width shows but one of the two.
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    middle = squeeze(Image.fromarray(stripes), 32).pixels[:, 2:-2]
    assert np.abs(middle.astype(int) - 128).max() <= 2


def test_a_square_shows_the_whole_picture_in_its_own_orientation():
    scene = make_scene(96, 64)
    pixels = np.asarray(scene).astype(float)
    means = pixels.reshape(4, 16, 4, 24, 3).mean((1, 3))
    square = squeeze(scene, 32).pixels.astype(float).reshape(4, 8, 4, 8, 3).mean((1, 3))
    np.testing.assert_allclose(square, means, atol=3)


def test_a_square_of_its_own_size_is_left_as_it_is():
    scene = make_scene(32, 32)
    np.testing.assert_array_equal(squeeze(scene, 32).pixels, np.asarray(scene))


def test_the_pixels_can_be_written_to():
    assert squeeze(make_scene(), 32).pixels.flags.writeable
