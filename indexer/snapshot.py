"""One generation, opened: its rows, its images, and its index; and how they rank.

Rule: the index proposes, the stored rows decide; which images still have a file is asked of whoever knows.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import CollectionDamaged
from indexer.generations import Generation
from indexer.layout import STORES, name_store
from indexer.vectors import Store

if TYPE_CHECKING:
    from indexer.index import RowIndex

MARGIN = 16
"""Rows proposed beyond those asked for."""
ROUNDING = 2e-6
"""By how much the index and the store may differ about a similarity."""


class Snapshot:
    """A generation as a reader holds it; later ones do not concern it.

    Raises: CollectionDamaged if its store is missing or too short.
    """

    def __init__(self, folder: Path, generation: Generation) -> None:
        self.generation = generation
        manifest = generation.manifest
        self.number, self.rows, self.dimension = manifest["store"], manifest["rows"], manifest["dimension"]
        self.image_ids = generation.read_image_ids()
        self.store = Store(folder / STORES / name_store(self.number), self.dimension, self.rows)

    @cached_property
    def index(self) -> "RowIndex":
        """The FAISS index, opened when a search first needs it."""
        # Imported here: `seer status` must not wait for FAISS.
        from indexer.index import RowIndex

        index = RowIndex(self.generation.index_path)
        if index.shape != (self.rows, self.dimension):
            raise CollectionDamaged(
                f"{self.generation.index_path} has {index.shape} rows and numbers where its manifest has "
                f"{(self.rows, self.dimension)}. Run seer check --repair: it makes the index anew."
            )
        return index

    def rank(
        self, query: np.ndarray, own_row: int | None, wanted: int, list_living: Callable[[list[int]], set[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank at least `wanted` rows whose images live, as far as there are so many.

        The query's own row comes first, and equal similarities stand in the order of their rows. More rows are proposed
        until the last one is clearly below the place where the answer is cut, so that pages fit together.

        Args:
            query: (D,) float32 of length 1.
            own_row: the row that the query was read from, if it was.
            list_living: tells which of these images still have a file.
        Returns: (k,) int64 rows and (k,) float32 cosines, best first.
        """
        proposed = wanted + MARGIN
        while True:
            rows = self.index.search(query, proposed)
            similarities = self.store.compare(query, rows)
            lowest = similarities.min(initial=np.inf)
            rows, similarities = _sort(*self._keep_living(rows, similarities, list_living), own_row)
            is_clear = len(rows) >= wanted and similarities[wanted - 1] > lowest + ROUNDING
            if is_clear or proposed >= self.rows:
                return rows, similarities
            proposed *= 4

    def _keep_living(
        self, rows: np.ndarray, similarities: np.ndarray, list_living: Callable[[list[int]], set[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        image_ids = self.image_ids[rows].tolist()
        living = list_living(image_ids)
        kept = np.array([image_id in living for image_id in image_ids], dtype=bool)
        return rows[kept], similarities[kept]


def _sort(rows: np.ndarray, similarities: np.ndarray, own_row: int | None) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -similarities, rows != (-1 if own_row is None else own_row)))
    return rows[order], similarities[order]
