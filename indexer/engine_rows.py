"""What another search engine holds of an image, and a filter in its words.

    row      the image's row in the store: the engine's candidates are row numbers, and what they are worth stands here
    path, mtime_ns, files   its first file by path, and how many hold it; empty and 0 for one that is gone
    draw     0 to 999, as if drawn: `draw < 100` lets through every tenth row, to measure with

What an engine holds of files is as old as the publication. An expression may therefore let through too much and never
too little: it leaves out what cannot be said in a few words, or is not true any more.

Rule: an expression narrows, the catalog decides.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from indexer.catalog_reader import CatalogReader, FilteredBy, begin_day, spell_folder
from indexer.filters import Filter

ROW, VECTOR = "row", "embedding"
LONGEST_TEXT = 65_535
"""Bytes of a text that Milvus takes."""
FIELDS: dict[str, tuple[str, int | None]] = {
    ROW: ("INT64", None),
    "image_id": ("INT64", None),
    "content_hash": ("VARCHAR", 64),
    "path": ("VARCHAR", LONGEST_TEXT),
    "mtime_ns": ("INT64", None),
    "files": ("INT32", None),
    "size_bytes": ("INT64", None),
    "width": ("INT32", None),
    "height": ("INT32", None),
    "short_px": ("INT32", None),
    "format": ("VARCHAR", 16),
    "shape": ("VARCHAR", 16),
    "draw": ("INT32", None),
}
"""Name -> type, and the most bytes of a text. `row` is the primary key."""
DRAWS = 1000
MOST_NUMBERS = 1000
"""Images that an expression names one by one; beyond that, too much would travel with each question."""
SEVERAL = 2
"""As many files as say that an expression knows nothing of an image's files."""


def draw_rows(rows: np.ndarray) -> np.ndarray:
    """(n,) int64 in [0, DRAWS): the same for a row wherever it is asked."""
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(DRAWS)).astype(np.int64)


def list_records(catalog: CatalogReader, store: int, image_ids: np.ndarray, first: int) -> list[dict]:
    """What is to be held of (n,) images in the rows from `first` on, a record each, without the embedding."""
    known = {one.row: one for one in catalog.list_filtered_by(store, first, first + len(image_ids))}
    rows = range(first, first + len(image_ids))
    draws = draw_rows(np.arange(rows.start, rows.stop)).tolist()
    return [
        {ROW: row, "image_id": image_id, "draw": draw, **_describe(known.get(row))}
        for row, image_id, draw in zip(rows, image_ids.tolist(), draws, strict=True)
    ]


def _describe(one: FilteredBy | None) -> dict:
    # The catalog has let go of an image that is gone for good; its row stays until the store is pruned.
    one = one or FilteredBy(0, 0, b"", 0, 0, 0, "", "", 0, None, None)
    path = spell_path(one.path or b"")
    is_long = len(path.encode()) > LONGEST_TEXT
    return {
        "content_hash": one.content_hash.hex(),
        "path": "" if is_long else path,
        "mtime_ns": one.mtime_ns or 0,
        "files": max(one.files, SEVERAL) if is_long else one.files,
        "size_bytes": one.size_bytes,
        "width": one.width,
        "height": one.height,
        "short_px": min(one.width, one.height),
        "format": one.format,
        "shape": one.shape,
    }


def spell_path(path: bytes) -> str:
    """A path as text; what is not UTF-8 is escaped, so that the paths below a folder begin as the folder does."""
    return path.decode("utf-8", "backslashreplace")


def write_expression(where: Filter, *, knows_files: bool) -> str:
    """A filter as Milvus understands it; empty where all of it is for the catalog to decide.

    Args:
        knows_files: whether paths and times of files are what they were when they were published.
    """
    about_files = " and ".join(_write_about_files(where)) if knows_files else ""
    if about_files:
        # One file must fulfil all of it, and only the first is known.
        about_files = f"(files >= {SEVERAL} or ({about_files}))"
    return " and ".join(filter(None, (about_files, *_write_about_content(where))))


def _write_about_files(where: Filter) -> Iterator[str]:
    bounds = sorted({bound for folder in where.under for bound in spell_folder(folder)})
    if bounds:
        spelled = (tuple(map(_quote, map(spell_path, bound))) for bound in bounds)
        yield f"({' or '.join(f'(path >= {low} and path < {high})' for low, high in spelled)})"
    if where.since:
        yield f"mtime_ns >= {begin_day(where.since)}"
    if where.until:
        yield f"mtime_ns < {begin_day(where.until + timedelta(days=1))}"


def _write_about_content(where: Filter) -> Iterator[str]:
    for name, sign, bound in (
        ("size_bytes", ">=", where.least_bytes),
        ("size_bytes", "<=", where.most_bytes),
        ("short_px", ">=", where.least_px),
        ("short_px", "<=", where.most_px),
    ):
        if bound is not None and bound < 2**31:
            yield f"{name} {sign} {bound}"
    for name, chosen in (("format", where.formats), ("shape", where.shapes)):
        if chosen:
            yield f"{name} in [{', '.join(map(_quote, chosen))}]"
    if where.images is not None and len(where.images) <= MOST_NUMBERS:
        yield f"image_id in [{', '.join(map(str, sorted(where.images)))}]"


def _quote(text: str) -> str:
    """As a text between quotes; what is not ASCII stays as it is."""
    return json.dumps(os.fspath(text), ensure_ascii=False)
