"""The catalog as answers see it: without the images that a person has hidden.

A hidden image is treated like one that is gone: passed over while candidates are looked through, so that an answer has
as many as there are; nothing about the index changes.

Rule: whatever asks for images to show asks here.
"""

import numpy as np

from indexer.catalog_reader import CatalogReader, ImageDetails
from indexer.filters import Filter


class VisibleCatalog:
    """A catalog less some images; its methods are as those of `CatalogReader`."""

    def __init__(self, catalog: CatalogReader, hidden: frozenset[int]) -> None:
        self._catalog, self._hidden = catalog, hidden

    def list_living(self, image_ids: list[int]) -> set[int]:
        """Those of these images that still have a file and are not hidden."""
        return self._catalog.list_living(image_ids) - self._hidden

    def list_rows(self, store: int, rows: int, where: Filter) -> np.ndarray:
        """(n,) int64, ascending and read-only: rows that have a file, pass the filter and are not hidden."""
        found = self._catalog.list_rows(store, rows, where)
        if not self._hidden:
            return found
        hidden = self._catalog.list_rows(store, rows, Filter(images=self._hidden))
        return found[~np.isin(found, hidden, assume_unique=True)]

    def read_hashes(self, store: int, rows: int) -> np.ndarray:
        """(rows, 32) uint8 content hashes of the images of a store's first rows; zeros for a row without one."""
        return self._catalog.read_hashes(store, rows)

    def read_images(self, image_ids: list[int]) -> dict[int, ImageDetails]:
        """Details of those of these images that still have a file."""
        return self._catalog.read_images(image_ids)
