"""The catalog as answers see it: without the images that a person has hidden.

A hidden image is treated like one that is gone: passed over while candidates are looked through, so that an answer has
as many as there are; nothing about the index changes.

Rule: whatever asks for images to show asks here.
"""

import logging

import numpy as np

from indexer.catalog_reader import CatalogReader, ImageDetails
from indexer.decisions import Decisions, Kind
from indexer.errors import CollectionError
from indexer.filters import Filter

log = logging.getLogger(__name__)


class Curtain:
    """What keeps the hidden images of one collection out of sight. Threads may share it."""

    def __init__(self, catalog: CatalogReader, decisions: Decisions) -> None:
        self._catalog, self._decisions = catalog, decisions
        self._known: tuple[object, frozenset[int]] = None, frozenset()

    def draw(self) -> "VisibleCatalog":
        """The catalog, less what a person has hidden by now."""
        hidden = self._list_hidden()
        # Which images these are is asked again only where they or the catalog have changed.
        key, known = (hidden, self._catalog.read_version()), self._known
        if known[0] != key:
            found = (self._catalog.find_image(bytes.fromhex(one)) for one in hidden)
            known = self._known = key, frozenset(one for one in found if one is not None)
        return VisibleCatalog(self._catalog, known[1])

    def _list_hidden(self) -> tuple[str, ...]:
        try:
            return tuple(self._decisions.list_marked(Kind.HIDDEN))
        except CollectionError as error:
            # What people decided is damaged or out of reach: the status says so, and the search goes on.
            log.warning("%s", error)
            return ()


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

    def list_images(self, store: int, rows: int, first: int, count: int) -> list[int]:
        """Images that have a file and one of the store's first `rows` rows and are not hidden, the newest first."""
        if not self._hidden:
            return self._catalog.list_images(store, rows, first, count)
        found = self._catalog.list_images(store, rows, 0, first + count + len(self._hidden))
        return [one for one in found if one not in self._hidden][first : first + count]

    def read_hashes(self, store: int, rows: np.ndarray) -> np.ndarray:
        """(m, 32) uint8 content hashes of the images of (m,) rows of a store; zeros for a row without one."""
        return self._catalog.read_hashes(store, rows)

    def read_images(self, image_ids: list[int]) -> dict[int, ImageDetails]:
        """Details of those of these images that still have a file."""
        return self._catalog.read_images(image_ids)
