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
ROWS_AT_ONCE = 4096
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

    @property
    def recall(self) -> float:
        """The part of the nearest rows that the index finds, as measured when it was made."""
        return self.generation.manifest["recall"]

    @property
    def is_approximate(self) -> bool:
        """Whether the index may miss rows."""
        return self.recall < 1.0

    def compare_all(self, query: np.ndarray) -> np.ndarray:
        """Cosines of a query (D,) with every row, (N,) float32, but for rounding; no checksum is looked at."""
        chunks = range(0, self.rows, ROWS_AT_ONCE)
        parts = [self.store.rows[first : first + ROWS_AT_ONCE].astype(np.float32) @ query for first in chunks]
        return np.concatenate([np.empty(0, dtype=np.float32), *parts]) / self.store.norms

    def rank(
        self,
        query: np.ndarray,
        own_row: int | None,
        wanted: int,
        list_living: Callable[[list[int]], set[int]],
        *,
        allowed: np.ndarray | None = None,
        is_exact: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank at least `wanted` rows whose images live, as far as there are so many.

        The query's own row comes first, and equal similarities stand in the order of their rows. More rows are proposed
        until the last one is clearly below the place where the answer is cut, so that pages fit together.

        Args:
            query: (D,) float32 of length 1.
            own_row: the row that the query was read from, if it was.
            list_living: tells which of these images still have a file.
            allowed: ascending row numbers, (n,) int64; no other row is answered. None: all.
            is_exact: whether every row is to be compared, whatever the index is.
        Returns: (k,) int64 rows and (k,) float32 cosines, best first.
        """
        proposed = wanted + MARGIN
        most = self.rows if allowed is None else len(allowed)
        propose = self.index.search if allowed is None else self._rank_allowed(query, allowed)
        while True:
            rows = propose(query, proposed)
            similarities = self.store.compare(query, rows)
            lowest = similarities.min(initial=np.inf)
            rows, similarities = sort_rows(*self._keep_living(rows, similarities, list_living), own_row)
            is_clear = len(rows) >= wanted and similarities[wanted - 1] > lowest + ROUNDING
            if is_clear or proposed >= most:
                return rows, similarities
            proposed *= 4

    def _rank_allowed(self, query: np.ndarray, allowed: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
        order = allowed[np.argsort(-self.compare_all(query)[allowed], kind="stable")]
        return lambda _, count: order[:count]

    def _keep_living(
        self, rows: np.ndarray, similarities: np.ndarray, list_living: Callable[[list[int]], set[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        image_ids = self.image_ids[rows].tolist()
        living = list_living(image_ids)
        kept = np.array([image_id in living for image_id in image_ids], dtype=bool)
        return rows[kept], similarities[kept]


def sort_rows(rows: np.ndarray, similarities: np.ndarray, own_row: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Best first, equals in the order of their rows; the query's own row before all."""
    order = np.lexsort((rows, -similarities, rows != (-1 if own_row is None else own_row)))
    return rows[order], similarities[order]
