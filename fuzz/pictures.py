"""Fuzzes the reader of pictures: any bytes become a picture and its thumbnail, or PictureError."""

from collections.abc import Iterable

import atheris

from fuzz.running import fuzz

with atheris.instrument_imports(include=["seer_model", "PIL", "pillow_heif"]):
    from seer_model.errors import PictureError
    from seer_model.pictures import encode_thumbnail, open_picture
    from tests.seer_model.making_pictures import every_format


def read(data: bytes) -> None:
    """As a build reads a file."""
    try:
        picture = open_picture(data, max_megapixels=1, short_side_px=64)
    except PictureError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        encode_thumbnail(picture, side_px=64)


def make_seeds() -> Iterable[bytes]:
    """The same picture in each kind of file."""
    return every_format().values()


if __name__ == "__main__":
    fuzz("pictures", read, make_seeds())
