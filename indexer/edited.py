"""Edited copies of a collection's own images, to be held out when an index is measured: made of their thumbnails.

People search with pictures that were cropped, made smaller or written over; the rows of a store are not like these.

Rule: nothing is kept, and an image whose thumbnail cannot be read is passed over.
"""

import random
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from indexer.edits import EDITS, apply_edit
from indexer.fleet import Lane
from seer_model.errors import PictureError
from seer_model.pictures import DECODER_ERRORS, open_picture
from seer_model.preprocess import Preprocessing, prepare

COPIES = 128
"""Copies that are held out, each of another image."""


def edit_thumbnails(thumbnails: Iterable[bytes | None], seed: int = 0) -> Iterator[Image.Image]:
    """One edited copy of each of these WebP pictures that can be read, the edit drawn at random."""
    chance, edits = random.Random(seed), list(EDITS.values())
    for number, thumbnail in enumerate(thumbnails):
        edit = chance.choice(edits)
        try:
            yield apply_edit(open_picture(thumbnail or b"").pixels, edit, number=number, seed=seed)
        except (PictureError, *DECODER_ERRORS):
            continue


def embed_copies(
    copies: Iterable[Image.Image], how: Preprocessing, lane: Lane, batch_size: int
) -> Iterator[np.ndarray]:
    """(b, D) float32 rows of length 1, batch by batch, of those copies that have an embedding."""
    batch: list[np.ndarray] = []
    for copy in copies:
        batch.append(prepare(copy, how))
        if len(batch) == batch_size:
            yield lane(batch)[0]
            batch = []
    if batch:
        yield lane(batch)[0]
