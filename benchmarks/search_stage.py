"""What search is measured on: a collection of rows without pictures, queries that are not among them, exact answers.

    real        the rows of a collection, but for those that are asked about
    stretched   rows made of them (`search_rows`)

The catalog has an image and a file for each row. Of the files 10 %, 1 % and 0.1 %, drawn at random, lie in folders
within each other, so that a filter by folder lets these shares through.

Rule: all that answers is the product's own: store, catalog, generation. Only the pictures are made up.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.search_rows import Stretch, Wanted, find_store, study, write_rows
from indexer.catalog import Catalog
from indexer.fitting import Before, Demands, Fitted, fit_index
from indexer.generations import Generation, publish_generation
from indexer.layout import CATALOG, STORES, name_store
from indexer.recall import NO_OWN, HeldOut, answer_exactly
from indexer.schema import connect_to_write
from indexer.vectors import Store, pick_rows

ASKED, LEAST_SHARE = 1000, 10
"""Queries that are kept out; of few rows, one in so many."""
FOLDERS = {0.1: "/pictures/a", 0.01: "/pictures/a/b", 0.001: "/pictures/a/b/c"}
"""Share of the files -> the folder that they lie in, or below."""
ROOT = "/pictures"
DESCRIPTION, QUERIES = "stage.json", "queries.npy"
ABOUT = {
    "fingerprint": "rows without pictures",
    "model": {},
    "settings": {"model": "seer-mini", "max_megapixels": 200, "thumbnail_px": 320},
}
"""What a manifest says besides the rows and the index."""


@dataclass(frozen=True)
class Stage:
    """A collection in a folder, without a generation at first."""

    folder: Path

    @cached_property
    def described(self) -> dict:
        """What its rows are, as JSON-able values; at least `rows` and `dimension`."""
        return json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))

    @property
    def place(self) -> Path:
        """The store's folder."""
        return self.folder / STORES / name_store(1)

    def open_store(self, rows: int | None = None) -> Store:
        """All rows, or the first so many."""
        return Store(self.place, self.described["dimension"], rows or self.described["rows"])

    def read_queries(self) -> np.ndarray:
        """(Q, D) float32 of length 1; none of them is a row."""
        return np.load(self.folder / QUERIES)

    def answer_exactly(self, rows: int | None = None) -> HeldOut:
        """The queries with their true answers among all rows, or the first so many."""
        store, queries = self.open_store(rows), self.read_queries()
        return answer_exactly(queries, np.full(len(queries), NO_OWN), store.rows, store.norms)

    def fit(self, demands: Demands, rows: int | None = None, before: Generation | None = None) -> Fitted:
        """An index for all rows, or the first so many; gone on with from an earlier generation's, if there is one."""
        told = before.manifest if before else {}
        known = Before(folder=before.folder, search=told["search"], rows=told["rows"]) if "search" in told else None
        return fit_index(self.open_store(rows), demands, before=known)

    def publish(self, fitted: Fitted, rows: int | None = None) -> Generation:
        """Let an index answer."""
        rows, dimension = self.open_store(rows).rows.shape
        manifest = {"store": 1, "rows": rows, "dimension": dimension, **ABOUT, **fitted.described}
        image_ids = np.arange(1, rows + 1, dtype=np.int64)
        return publish_generation(self.folder, manifest, image_ids, fitted.write, lambda step: None)


def stage_real(collection: Path, folder: Path) -> Stage:
    """Take the rows of a collection, but for those that are asked about. Raises: CollectionDamaged."""
    place, dimension, rows = find_store(collection)
    wanted = {"made_of": "the collection's own", "rows_of_it": rows}
    if is_staged(folder, wanted):
        return Stage(folder)
    drawn, asked = np.random.default_rng(0).permutation(rows), min(ASKED, rows // LEAST_SHARE)
    own, kept = np.sort(drawn[:asked]), np.sort(drawn[asked:])
    pick_rows(place, Stage(folder).place, dimension, kept)
    store = Store(place, dimension, rows)
    queries = store.rows[own].astype(np.float32) / store.norms[own, None]
    return _finish(folder, queries, {**wanted, "rows": len(kept), "dimension": dimension})


def stage_stretched(collection: Path, folder: Path, wanted: Wanted) -> Stage:
    """Make many rows of a collection's few. Raises: CollectionDamaged."""
    if is_staged(folder, vars(wanted)):
        return Stage(folder)
    real = study(Store(*find_store(collection)), wanted.sources, wanted.seed)
    stretch = Stretch(wanted, real)
    described = write_rows(stretch, real, Stage(folder).place)
    queries = stretch.make_queries(min(ASKED, wanted.rows // LEAST_SHARE))
    return _finish(folder, queries, {"made_of": "stretched rows", **described})


def is_staged(folder: Path, wanted: dict) -> bool:
    """Whether these rows lie there already, whole."""
    if not (folder / DESCRIPTION).exists():
        return False
    described = Stage(folder).described
    return all(described.get(name) == value for name, value in wanted.items())


def _finish(folder: Path, queries: np.ndarray, described: dict) -> Stage:
    fill_catalog(folder, described["rows"], described["dimension"])
    np.save(folder / QUERIES, queries)
    # Last: a folder that has it is whole.
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1), encoding="utf-8")
    return Stage(folder)


def fill_catalog(folder: Path, rows: int, dimension: int) -> None:
    """Make a catalog with an image for each row, all at once: one file by one, as a build does it, takes hours."""
    (folder / CATALOG).unlink(missing_ok=True)
    with closing(Catalog(folder / CATALOG)) as catalog:
        catalog.add_folders([Path(ROOT)])
        store = catalog.open_store(ABOUT["fingerprint"], dimension, "seer-mini")
    with closing(connect_to_write(folder / CATALOG)) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            """INSERT INTO images (image_id, content_hash, size_bytes, width, height, format, added_at)
            VALUES (?, ?, 300000, 1024, 768, 'JPEG', 0)""",
            ((number, number.to_bytes(32)) for number in range(1, rows + 1)),
        )
        connection.executemany(
            "INSERT INTO files (path, size_bytes, mtime_ns, image_id, seen_at) VALUES (?, 300000, 0, ?, 0)",
            _list_files(rows),
        )
        connection.executemany(
            "INSERT INTO rows (store, row, image_id) VALUES (?, ?, ?)",
            ((store, row, row + 1) for row in range(rows)),
        )
        connection.execute("COMMIT")
        # As a build leaves it: a read-only copy opens.
        connection.execute("PRAGMA journal_mode=DELETE")


def _list_files(rows: int) -> Iterator[tuple[bytes, int]]:
    """In the order of the table's key, which is many times faster."""
    drawn = np.random.default_rng(0).random(rows)
    shares = [*sorted(FOLDERS), 1.0]
    inner = np.searchsorted(shares, drawn, side="right")
    for place in sorted(range(len(shares)), key=lambda place: -shares[place]):
        folder = FOLDERS.get(shares[place], ROOT)
        for row in np.flatnonzero(inner == place).tolist():
            yield f"{folder}/{row:08d}.jpg".encode(), row + 1
