"""Answers as files to keep: a table, JSON as `seer search --json` prints it, the originals in a ZIP.

Rule: what is handed out is what was answered; an original that no longer holds its content is left out and named.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from indexer.collection import Answer, Collection, Neighbour, show_similarity
from indexer.overview import DuplicateGroup, choose_reference
from indexer.tables import format_table
from indexer.texts import describe_answer, escape_path

COLUMNS = ("rank", "similarity", "file", "more files", "width", "height", "bytes", "format", "changed", "content hash")
DUPLICATE_COLUMNS = ("group", "keep", "similarity to the first", "file", "width", "height", "bytes")
MISSING = "missing.txt"
"""In a ZIP: which originals are no longer where they were."""


def export_table(neighbours: Sequence[Neighbour]) -> bytes:
    """CSV, safe to open in a spreadsheet."""
    return format_table(COLUMNS, map(_list_cells, neighbours))


def export_json(collection: Collection, answer: Answer, milliseconds: float) -> bytes:
    """As `seer search --json`."""
    return json.dumps(describe_answer(collection.folder, answer, milliseconds), indent=1).encode()


def export_originals(collection: Collection, neighbours: Sequence[Neighbour]) -> bytes:
    """A ZIP of the originals, in the order of the answer: their names begin with the rank."""
    stream, missing = io.BytesIO(), []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        for one in neighbours:
            original = collection.read_original(one.content_hash)
            name = PurePosixPath(escape_path(one.path)).name
            if original is None:
                missing.append(escape_path(one.path))
            else:
                packed.writestr(f"{one.rank:04d}-{name}", original[0])
        if missing:
            packed.writestr(MISSING, "\n".join(missing) + "\n")
    return stream.getvalue()


def export_duplicates(groups: Sequence[DuplicateGroup], keep: str) -> bytes:
    """CSV, safe to open in a spreadsheet: every file of every group, and which image is to be kept by a rule."""
    rows = (
        (number, "keep" * (image is kept), round(similarity, 4), path, image.width, image.height, image.size_bytes)
        for number, group in enumerate(groups, start=1)
        for kept in [choose_reference(group.images, keep)]
        for image, similarity in zip(group.images, group.similarities, strict=True)
        for path in image.paths
    )
    return format_table(DUPLICATE_COLUMNS, rows)


def export_copies(collection: Collection) -> bytes:
    """CSV, safe to open in a spreadsheet: every file of every image that several hold; the oldest is to be kept."""
    oldest = {one.image_id: one.oldest for one in collection.list_copies()}
    rows = (
        (number, "keep" * (path == oldest[image.image_id]), 1.0, path, image.width, image.height, image.size_bytes)
        for number, image in enumerate(collection.read_images(list(oldest)), start=1)
        for path in image.paths
    )
    return format_table(DUPLICATE_COLUMNS, rows)


def _list_cells(one: Neighbour) -> tuple:
    more = "; ".join(map(escape_path, one.paths[1:]))
    changed = f"{one.modified:%Y-%m-%d %H:%M:%S}"
    numbers = one.width, one.height, one.size_bytes
    return one.rank, float(show_similarity(one)), one.path, more, *numbers, one.format, changed, one.content_hash
