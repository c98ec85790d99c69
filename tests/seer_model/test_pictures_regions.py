"""Parts of pictures: cut out of the upright picture, with all the pixels that the network can use."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from seer_model.errors import PictureError
from seer_model.pictures import TRANSPOSITIONS, Region, open_picture
from tests.seer_model.making_pictures import encode, make_scene

WIDE, HIGH = 640, 480


def encode_turned(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(picture, "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("region", [Region(0, 0, 1, 1), Region(17, 5, 40, 90), Region(0, 0, WIDE, HIGH)])
def test_a_part_has_exactly_its_pixels(region: Region):
    data = encode(make_scene(WIDE, HIGH), "PNG")
    found = open_picture(data, region=region, short_side_px=32)
    left, top, width, height = region
    expected = np.asarray(open_picture(data).pixels)[top : top + height, left : left + width]
    np.testing.assert_array_equal(np.asarray(found.pixels), expected)
    assert (found.width, found.height) == (WIDE, HIGH)


@pytest.mark.parametrize("orientation", [1, *TRANSPOSITIONS])
def test_a_part_of_a_jpeg_is_of_the_upright_picture_and_keeps_the_short_side(orientation: int):
    data = encode_turned(make_scene(WIDE, HIGH), orientation)
    whole = open_picture(data).pixels
    # 35 px wide: nothing may be lost. 300: the decoder may shrink by four, not by eight.
    for region, shrink in ((Region(200, 100, 35, 90), 1), (Region(100, 48, 300, 256), 4)):
        found = open_picture(data, region=region, short_side_px=32 if shrink == 1 else 60).pixels
        left, top, width, height = region
        assert found.size == (width // shrink, height // shrink)
        expected = whole.crop((left, top, left + width, top + height)).resize(found.size, Image.Resampling.BOX)
        difference = np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).mean()
        assert difference < (0.01 if shrink == 1 else 1), difference


@pytest.mark.parametrize("region", [
    Region(0, 0, 0, 5), Region(0, 0, 5, -1), Region(-1, 0, 5, 5), Region(0, -1, 5, 5), Region(WIDE, 0, 1, 1),
    Region(WIDE - 4, 0, 5, 5), Region(0, HIGH - 4, 5, 5), Region(0, 0, 10**9, 10**9),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_part_that_does_not_lie_in_the_picture_is_refused(kind: str, region: Region):
    data = encode(make_scene(WIDE, HIGH), kind)
    with pytest.raises(PictureError, match=rf"does not lie in the picture, which has {WIDE} x {HIGH} pixels; allowed"):
        open_picture(data, region=region, short_side_px=64)
