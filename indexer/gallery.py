"""The gallery of an evaluation: pictures and their edited copies, read in worker processes and embedded.

The original is decoded and prepared just as a build does it. Copies are edited at full size, but a picture larger than
EDITED_PX is first shrunk to that: a JPEG at quality 10 would leave no trace in a photo of twenty megapixels that the
model sees at 224 px, and copies that circulate are smaller.

Rule: a picture that cannot be read, decoded or edited has a reason instead of views, and stops nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3
from PIL import Image

from indexer.edits import EDITS, apply_edit
from indexer.evaluation import SideRange
from indexer.shards import Place, read_place
from seer_model.errors import PictureError
from seer_model.pictures import DECODER_ERRORS, open_picture
from seer_model.preprocess import Preprocessing, prepare

if TYPE_CHECKING:
    from indexer.embed import Backbone

EDITED_PX = 1024
"""The longest side that a picture has when it is edited."""
SMALL_PX = 16
MIDDLE = 127.5
"""Taken off the small pixels; no whole number, so that no picture becomes zeros."""
BATCHES_AT_ONCE = 8
"""Views are embedded together, so that a picture with its copies leaves few places in a batch empty."""


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """What every worker needs to know."""

    preprocessing: Preprocessing
    max_megapixels: float
    seed: int = 0
    sides: tuple[SideRange, ...] = ()
    """Pictures whose short side is in none of these are only looked at; none given: all are wanted."""


@dataclass(frozen=True)
class ReadTask:
    """A picture to read, and the titles of the edits to make of it."""

    place: Place
    edits: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """A picture as it is compared. `pixels` (H, W, 3) uint8 for the backbone; `small` (768,) float16, the reference:
    the same pixels averaged over 16 x 16 fields, less MIDDLE."""

    pixels: np.ndarray
    small: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ReadPicture:
    """What reading gave: views of the picture and of its copies, in the order of the task's edits; or a reason; or
    neither, for a picture of an unwanted size."""

    task: ReadTask
    content_hash: bytes = b""
    short_side_px: int = 0
    views: tuple[View, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddedPicture:
    """A read picture with its V rows: the picture's own first, then those of its copies."""

    picture: ReadPicture
    by_model: np.ndarray
    """(V, D) float32 of length 1; NaNs where the network gave no finite embedding."""
    by_pixels: np.ndarray
    """(V, 768) float16."""


def read_picture(task: ReadTask, settings: ReadSettings) -> ReadPicture:
    """Read, decode, edit and prepare one picture; whatever is wrong with it is in `reason`."""
    try:
        data = read_place(task.place)
        how = settings.preprocessing
        picture = open_picture(data, max_megapixels=settings.max_megapixels, short_side_px=how.short_side_px)
        content_hash, short_side_px = blake3(data).digest(), min(picture.width, picture.height)
        views: tuple[View, ...] = ()
        if not settings.sides or any(short_side_px in sides for sides in settings.sides):
            copies = _edit(data, content_hash, task.edits, settings)
            views = tuple(_view(pixels, how) for pixels in (picture.pixels, *copies))
        return ReadPicture(task=task, content_hash=content_hash, short_side_px=short_side_px, views=views)
    except PictureError as error:
        return ReadPicture(task=task, reason=str(error))
    except DECODER_ERRORS as error:
        return ReadPicture(task=task, reason=f"The decoder failed with {type(error).__name__}: {error}.")


def lose_picture(task: ReadTask, reason: str) -> ReadPicture:
    """What is said of a picture that ended its worker, or took too long."""
    return ReadPicture(task=task, reason=reason)


def _edit(data: bytes, content_hash: bytes, edits: tuple[str, ...], settings: ReadSettings) -> Iterator[Image.Image]:
    if not edits:
        return
    whole = open_picture(data, max_megapixels=settings.max_megapixels, short_side_px=EDITED_PX).pixels
    whole.thumbnail((EDITED_PX, EDITED_PX), Image.Resampling.BICUBIC)
    # By its content: a picture is edited alike wherever it lies and whatever lies beside it.
    number = int.from_bytes(content_hash[:8], "little")
    for title in edits:
        yield apply_edit(whole, EDITS[title], number=number, seed=settings.seed)


def _view(picture: Image.Image, how: Preprocessing) -> View:
    pixels = prepare(picture, how)
    small = Image.fromarray(pixels).resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    return View(pixels, (np.asarray(small, dtype=np.float16) - np.float16(MIDDLE)).reshape(-1))


def embed_pictures(
    backbone: "Backbone", pictures: Iterator[ReadPicture], *, batch_size: int
) -> Iterator[EmbeddedPicture]:
    """Embed all views of each picture; pictures come in their order, those without views too."""
    waiting: list[ReadPicture] = []
    views = 0
    for picture in pictures:
        waiting.append(picture)
        views += len(picture.views)
        if max(views, len(waiting)) >= batch_size * BATCHES_AT_ONCE:
            yield from _embed_together(backbone, waiting)
            waiting, views = [], 0
    yield from _embed_together(backbone, waiting)


def _embed_together(backbone: "Backbone", pictures: Sequence[ReadPicture]) -> Iterator[EmbeddedPicture]:
    # Imported here: the workers load this module, and must not wait for torch.
    from indexer.embed import embed_batch

    views = [view for picture in pictures for view in picture.views]
    by_model = np.full((len(views), backbone.dimension), np.nan, dtype=np.float32)
    if views:
        rows, is_usable = embed_batch(backbone, [view.pixels for view in views])
        by_model[np.flatnonzero(is_usable)] = rows
    by_pixels = np.array([view.small for view in views], dtype=np.float16).reshape(len(views), 3 * SMALL_PX**2)
    first = 0
    for picture in pictures:
        rows = slice(first, first := first + len(picture.views))
        yield EmbeddedPicture(picture=picture, by_model=by_model[rows], by_pixels=by_pixels[rows])
