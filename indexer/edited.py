"""Edited copies of a collection's own images, embedded: what an index is measured with, and words are found by.

People search with pictures that were cropped, made smaller or written over; the rows of a store are not like these.
Copies are made of thumbnails, which are at hand.

Rule: nothing is kept, and an image whose thumbnail cannot be read is passed over.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from indexer.edits import EDITS, apply_edit
from indexer.fleet import Lane
from seer_model.errors import PictureError
from seer_model.pictures import DECODER_ERRORS, open_picture
from seer_model.preprocess import Preprocessing, prepare

COPIES = 128
"""Copies that are made at a time, each of another image."""


def edit_thumbnails(
    thumbnails: Mapping[int, bytes | None], titles: Sequence[str], seed: int = 0
) -> Iterator[tuple[int, Image.Image]]:
    """One edited copy of each of these WebP pictures that can be read, with its number; the edit drawn at random.

    Args:
        titles: of the edits to draw from (`edits.EDITS`).
    """
    chance = random.Random(seed)
    for number, thumbnail in thumbnails.items():
        edit = EDITS[chance.choice(titles)]
        try:
            yield number, apply_edit(open_picture(thumbnail or b"").pixels, edit, number=number, seed=seed)
        except (PictureError, *DECODER_ERRORS):
            continue


def embed_copies(
    copies: Iterable[tuple[int, Image.Image]], how: Preprocessing, lane: Lane, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batch by batch (b, D) float32 rows of length 1 of those copies that have an embedding, and (b,) their numbers.

    The next batch is edited while one is embedded.
    """
    prepared = ((number, prepare(copy, how)) for number, copy in copies)
    with ThreadPoolExecutor(1, thread_name_prefix="copies") as thread:
        under_way: Future | None = None
        while batch := list(islice(prepared, batch_size)):
            begun = thread.submit(_embed, batch, lane)
            if under_way:
                yield under_way.result()
            under_way = begun
        if under_way:
            yield under_way.result()


def _embed(batch: list[tuple[int, np.ndarray]], lane: Lane) -> tuple[np.ndarray, np.ndarray]:
    rows, usable = lane([pixels for _, pixels in batch])
    return rows, np.array([number for number, _ in batch], dtype=np.int64)[usable]
