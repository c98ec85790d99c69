"""From a picture's bytes to its row, with the real backbone."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from indexer.aside import prepare_picture
from indexer.embed import Backbone, embed_prepared, open_backbone
from indexer.errors import QueryError
from seer_model.errors import PictureError
from tests.device import DEVICE

UNDONE_BY = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how a camera that writes it has turned the picture."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_backbone(device=DEVICE, batch_size=1)


def embed(backbone: Backbone, data: bytes, max_megapixels: float = 200) -> np.ndarray:
    return embed_prepared(backbone, prepare_picture(data, backbone.preprocessing, max_megapixels))


def turn(photo: Image.Image, orientation: int) -> bytes:
    turned = photo if orientation == 1 else photo.transpose(UNDONE_BY[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    turned.save(stream, format="PNG", exif=exif)
    return stream.getvalue()


def test_the_eight_orientations_give_one_embedding(backbone: Backbone, photos_folder: Path):
    photo = Image.open(sorted(photos_folder.glob("*.jpg"))[5]).convert("RGB")
    rows = [embed(backbone, turn(photo, orientation)) for orientation in UNDONE_BY]
    assert all(np.array_equal(rows[0], row) for row in rows[1:])
    upside_down = io.BytesIO()
    photo.transpose(Image.Transpose.ROTATE_180).save(upside_down, format="PNG")
    assert not np.array_equal(rows[0], embed(backbone, upside_down.getvalue()))


def test_a_query_is_refused_with_a_reason_never_answered_with_nonsense(
    backbone: Backbone, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    data = sorted(photos_folder.glob("*.jpg"))[0].read_bytes()
    with pytest.raises(PictureError, match="cut short"):
        embed(backbone, data[:5000])
    with pytest.raises(PictureError, match="--max-megapixels"):
        embed(backbone, data, 0.01)
    monkeypatch.setattr(
        backbone, "embed", lambda pixels: np.full((len(pixels), backbone.dimension), np.nan, np.float32)
    )
    with pytest.raises(QueryError, match="no finite embedding"):
        embed(backbone, data)


def test_a_query_takes_half_of_the_cores_and_leaves_the_number_as_it_was(
    backbone: Backbone, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, whole, before = [], backbone.embed, torch.get_num_threads()
    monkeypatch.setattr(backbone, "embed", lambda pixels: seen.append(torch.get_num_threads()) or whole(pixels))
    torch.set_num_threads(4)
    try:
        embed(backbone, sorted(photos_folder.glob("*.jpg"))[0].read_bytes())
        assert (seen, torch.get_num_threads()) == ([2], 4)
    finally:
        torch.set_num_threads(before)
