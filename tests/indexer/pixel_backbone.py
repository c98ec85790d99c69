"""A stand-in for `indexer.embed` without torch: an embedding is the picture's 8 x 8 thumbnail, of length 1.

Importing this module changes nothing; `install` puts it in the place of `indexer.embed`.
"""

import sys
from contextlib import suppress
from functools import partial

import numpy as np

from indexer.aside import prepare_picture
from indexer.errors import QueryError
from indexer.fleet import About, Fleet, Lane
from seer_model.errors import UserError
from seer_model.preprocess import PREPROCESSINGS
from seer_model.zoo import find_model


class PixelBackbone:
    """As `seer_model.backbone.Backbone`; a black picture has no embedding; `model` is in the fingerprint."""

    dimension = 192
    preprocessing = PREPROCESSINGS["vissl"]
    stamps: tuple = ()

    def __init__(self, model: str) -> None:
        self.model = model
        self.fingerprint = f"pixels of {model}"

    def describe(self) -> dict:
        """As the real one's, shorter."""
        return {"model": self.model, "fingerprint": self.fingerprint}

    def embed(self, pixels: list) -> np.ndarray:
        """(B, 192) float32, rows of length 1, or NaNs."""
        blocks = np.stack(pixels).reshape(-1, 8, 28, 8, 28, 3)
        cells = (blocks.sum(axis=2, dtype=np.uint32).sum(axis=3) / 28**2).reshape(len(pixels), -1)
        lengths = np.linalg.norm(cells, axis=1, keepdims=True)
        return np.where(lengths > 0, cells / np.where(lengths > 0, lengths, 1), np.nan).astype(np.float32)


Backbone = PixelBackbone


def open_backbone(model: str, **_: object) -> PixelBackbone:
    """As the real one."""
    return PixelBackbone(model)


def open_fleet(model: str, devices: list[str], *, batch_size: int | None, **_: object) -> Fleet:
    """As the real one, in this process whatever the devices are."""
    about, lane = open_lane(model, devices[0], {"batch_size": batch_size})
    return Fleet(about, [lane])


def open_lane(model: str, device: str, how: dict, threads: int | None = None) -> tuple[About, Lane]:
    """As the real one."""
    backbone = PixelBackbone(model)
    with suppress(UserError):
        backbone.stamps = find_model(model).stamps
    about = About(
        fingerprint=backbone.fingerprint,
        dimension=backbone.dimension,
        preprocessing=backbone.preprocessing,
        batch_size=how.get("batch_size") or 8,
        described=backbone.describe(),
        stamps=[list(stamp) for stamp in backbone.stamps],
    )
    return about, partial(embed_batch, backbone)


def embed_batch(backbone: PixelBackbone, pixels: list) -> tuple[np.ndarray, list[bool]]:
    """As the real one."""
    rows = backbone.embed(pixels)
    usable = np.isfinite(rows).all(axis=1)
    return rows[usable], usable.tolist()


def embed_prepared(backbone: PixelBackbone, pixels: np.ndarray) -> np.ndarray:
    """As the real one."""
    rows, _ = embed_batch(backbone, [pixels])
    if not len(rows):
        raise QueryError("no finite embedding")
    return rows[0]


def embed_query(backbone: PixelBackbone, data: bytes, *, max_megapixels: float) -> np.ndarray:
    """What a collection makes of a picture's bytes."""
    return embed_prepared(backbone, prepare_picture(data, backbone.preprocessing, max_megapixels))


def install(monkeypatch=None) -> None:
    """Let the job and the collection embed by pixels, for one test or for the rest of this process."""
    module = sys.modules[__name__]
    if monkeypatch is None:
        sys.modules["indexer.embed"] = module
    else:
        monkeypatch.setitem(sys.modules, "indexer.embed", module)
