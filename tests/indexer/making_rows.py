"""Making collections out of embeddings alone, for tests of what is searched with and among."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.catalog import Catalog
from indexer.layout import CATALOG, STORES, name_store
from indexer.publish import publish_store
from indexer.schema import connect_to_write
from indexer.vectors import Store, StoreWriter


@dataclass(frozen=True)
class Kept:
    """One image of such a collection: its files, each a path and a time, and what is known of its content."""

    files: tuple[tuple[bytes, int], ...]
    size_bytes: int = 1000
    width: int = 100
    height: int = 80
    format: str = "JPEG"


def store_rows(folder: Path, rows: np.ndarray) -> Store:
    """A store of these rows alone, (N, D) of length 1."""
    with closing(StoreWriter(folder, rows.shape[1], 0)) as writer:
        writer.append(rows)
    return Store(folder, rows.shape[1], len(rows))


def keep_rows(place: Path, embeddings: np.ndarray, images: Sequence[Kept] | None = None) -> Path:
    """A collection with these rows, (N, D) of length 1; its files are nowhere."""
    place.mkdir(parents=True)
    return add_rows(place, embeddings, images)


def add_rows(place: Path, embeddings: np.ndarray, images: Sequence[Kept] | None = None) -> Path:
    """Go on with such a collection, and publish."""
    with closing(Catalog(place / CATALOG)) as catalog:
        store = catalog.open_store("none", embeddings.shape[1], "seer-mini")
        first = catalog.count_rows(store)
        named = range(first, first + len(embeddings))
        images = images or [Kept(((b"/pictures/%06d.jpg" % number, 0),)) for number in named]
        with closing(StoreWriter(place / STORES / name_store(store), embeddings.shape[1], first)) as writer:
            writer.append(embeddings.astype(np.float32))
        _record(place / CATALOG, store, images, first)
        settings = {"model": "seer-mini", "max_megapixels": 200, "thumbnail_px": 64}
        about = {"dimension": embeddings.shape[1], "fingerprint": "none", "model": {}, "settings": settings}
        publish_store(place, catalog, store, about, lambda step: None)
    return place


def _record(path: Path, store: int, images: Sequence[Kept], first: int) -> None:
    with closing(connect_to_write(path)) as connection:
        connection.execute("BEGIN")
        for number, one in enumerate(images, start=first + 1):
            about = (number, number.to_bytes(32), one.size_bytes, one.width, one.height, one.format)
            connection.execute(
                "INSERT INTO images (image_id, content_hash, size_bytes, width, height, format) VALUES (?,?,?,?,?,?)",
                about,
            )
            connection.executemany(
                "INSERT INTO files (path, size_bytes, mtime_ns, image_id, seen_at) VALUES (?, ?, ?, ?, 0)",
                [(file, one.size_bytes, mtime_ns, number) for file, mtime_ns in one.files],
            )
            connection.execute("INSERT INTO rows (store, row, image_id) VALUES (?, ?, ?)", (store, number - 1, number))
        connection.execute("COMMIT")


def draw_embeddings(count: int, dimension: int, seed: int) -> np.ndarray:
    """(N, D) of length 1, in all directions."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
