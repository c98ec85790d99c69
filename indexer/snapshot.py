"""One generation, opened: its rows, its images, and its index; and how they rank.

    exact        FAISS compares the query with every row where it lies in the store
    approximate  the index proposes candidates, as wide as was measured to be needed

Rule: an index proposes, the stored rows decide, and an answer has as many as there are; which images still have a file
is asked of whoever knows.
"""

import math
import threading
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import CollectionDamaged
from indexer.filters import Filter
from indexer.fitting import INDEX
from indexer.generations import Generation, open_generation, read_current
from indexer.layout import STORES, name_store
from indexer.parts import LISTS
from indexer.vectors import Store

if TYPE_CHECKING:
    from indexer.index import ApproximateIndex, ExactIndex

MARGIN = 16
"""Rows proposed beyond those asked for."""
ROUNDING = 1e-5
"""By how much FAISS and the store may differ about a product."""
SMALL_BYTES = 8 << 20
"""A filter that leaves no more than this of the rows is answered exactly: that takes milliseconds."""

ListLiving = Callable[[list[int]], set[int]]
"""Tells which of these images still have a file."""


class Snapshot:
    """A generation as a reader holds it; later ones do not concern it.

    Args:
        image_ids: (N,) int64, if they are not to be read from the generation.
    Raises: CollectionDamaged if its store is missing or too short.
    """

    engine: str | None = None
    """What proposes candidates in place of an index of ours, by name."""

    def __init__(self, folder: Path, generation: Generation, image_ids: np.ndarray | None = None) -> None:
        self.generation = generation
        manifest = generation.manifest
        self.number, self.rows, self.dimension = manifest["store"], manifest["rows"], manifest["dimension"]
        self.index: str = manifest["index"]
        self.recall: float = manifest["recall"]
        self.search: dict | None = manifest.get("search")
        self.image_ids = generation.read_image_ids() if image_ids is None else image_ids
        self.store = Store(folder / STORES / name_store(self.number), self.dimension, self.rows)

    @property
    def is_approximate(self) -> bool:
        """Whether answers come from an approximate index, unless they are asked to be exact."""
        return self.search is not None

    @cached_property
    def exact(self) -> "ExactIndex":
        """All rows, each of them checked when a search first needs this."""
        self.store.check(np.arange(self.rows))
        return self.unchecked

    @cached_property
    def unchecked(self) -> "ExactIndex":
        """All rows, to rank some of them that are checked afterwards."""
        # Imported here: `seer status` must not wait for FAISS.
        from indexer.index import ExactIndex

        return ExactIndex(self.store.rows)

    @cached_property
    def approximate(self) -> "ApproximateIndex":
        """The index, opened when a search first needs it."""
        from indexer.index import open_approximate

        # Its stamp says nothing of a byte that rotted, and FAISS believes what it reads.
        path = self.generation.verify(INDEX)
        has_lists = LISTS in self.generation.manifest["files"]
        index = open_approximate(path, self.generation.verify(LISTS)) if has_lists else open_approximate(path)
        if index.shape != (self.rows, self.dimension):
            raise CollectionDamaged(
                f"{path} has {index.shape} rows and numbers where its manifest has {(self.rows, self.dimension)}. "
                "Run seer check --repair: it makes the index anew."
            )
        return index

    def warm_up(self) -> None:
        """Load what the first search would have to."""
        _ = self.approximate if self.is_approximate else self.exact

    def is_answered_exactly(self, allowed: np.ndarray | None) -> bool:
        """Whether a search among these rows misses none, without being asked to."""
        return not self.is_approximate or self._is_small(allowed)

    def _is_small(self, allowed: np.ndarray | None) -> bool:
        return allowed is not None and len(allowed) * self.store.rows.strides[0] <= SMALL_BYTES

    def read_recall(self, allowed: np.ndarray | None) -> float:
        """Recall as it was measured; with a filter, that of one as strict, which let through rows drawn at random."""
        if allowed is None:
            return self.recall
        # A stricter one than was measured looks through all lists, which misses no more.
        measured = self._find_filtered(len(allowed) / max(1, self.rows)) or self.search["filtered"][-1]
        return measured["recall"]

    def rank(
        self,
        query: np.ndarray,
        own_row: int | None,
        wanted: int,
        list_living: ListLiving,
        *,
        allowed: np.ndarray | None = None,
        where: Filter | None = None,
        is_exact: bool = False,
        list_living_rows: Callable[[], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank at least `wanted` rows whose images live, as far as there are so many.

        The query's own row comes first, and equal similarities stand in the order of their rows. In an exact answer
        more rows are proposed until the last one is clearly below the place where it is cut, so that pages fit
        together; in an approximate one a page is cut from as many candidates as the pages around it.

        Args:
            query: (D,) float32 of length 1.
            own_row: the row that the query was read from, if it was.
            allowed: ascending rows that alone may be answered; None: all.
            where: the filter that these rows come from.
            is_exact: miss none, whatever the index is.
            list_living_rows: tells all rows whose images still have a file, (n,) int64; asked where those that are gone
                stand in the way.
        Returns: (k,) int64 rows and (k,) float32 cosines, best first.
        """
        mask = None if allowed is None else _mark(allowed, self.rows)
        if self._is_small(allowed):
            self.store.check(allowed)
            propose = partial(self._propose_exactly, self.unchecked)
        elif is_exact or not self.is_approximate:
            propose = partial(self._propose_exactly, self.exact)
        else:
            propose = partial(self._propose, where)
        available, effort = self.rows if allowed is None else len(allowed), 1
        while True:
            rows, floor, is_all = propose(query, own_row, wanted, mask, effort)
            similarities = self.store.compare(query, rows)
            living = self._find_living(rows, list_living)
            rows, similarities = sort_rows(rows[living], similarities[living], own_row)
            is_clear = len(rows) >= wanted and similarities[wanted - 1] > floor
            if is_clear or is_all or len(living) >= available:
                return rows, similarities
            if effort > 1 and not living.all():
                # Those that are gone stand in the way: FAISS passes over them from here on.
                alive = list_living_rows() if list_living_rows else self._list_living(list_living)
                mask = _mark(alive, self.rows) & (True if mask is None else mask)
                available = int(mask.sum())
            effort *= 4

    def compare_all(self, query: np.ndarray) -> np.ndarray:
        """(N,) float32 cosines of a (D,) query with every row."""
        from indexer.index import EVERYTHING

        _, products = self.exact.find_above(query, EVERYTHING)
        return np.clip(products / self.store.norms, -1.0, 1.0)

    def _propose_exactly(
        self,
        index: "ExactIndex",
        query: np.ndarray,
        own_row: int | None,
        wanted: int,
        mask: np.ndarray | None,
        effort: int,
    ) -> tuple[np.ndarray, float, bool]:
        """Rows, the largest cosine that another one may have, and whether there is no other."""
        count = (wanted + MARGIN) * effort
        rows = index.search(query, count, mask)
        if not len(rows):
            return rows, -math.inf, True
        product = float(self.store.rows[rows[-1]].astype(np.float32) @ query)
        highest = product / (self.store.shortest if product > 0 else self.store.longest)
        return include(rows, own_row, mask), highest + ROUNDING, len(rows) < count

    def _propose(
        self,
        where: Filter | None,
        query: np.ndarray,
        own_row: int | None,
        wanted: int,
        mask: np.ndarray | None,
        effort: int,
    ) -> tuple[np.ndarray, float, bool]:
        count, probes = self.search["candidates"], self._choose_probes(mask)
        steps = count_steps(wanted, count, effort)
        count, probes = count * steps, math.ceil(probes * math.sqrt(steps))
        products, rows = self.approximate.rank(query[None], count, probes, self.unchecked, mask)
        found = rows[0][rows[0] >= 0]
        is_all = probes >= self.approximate.lists and (len(found) < count or len(found) == self.rows)
        # All candidates in FAISS's products, then those that may be answered in the cosines that are shown.
        order = np.argsort(-products[0][: len(found)] / self.store.norms[found], kind="stable")
        return include(found[order[: (wanted + MARGIN) * effort]], own_row, mask), -math.inf, is_all

    def _choose_probes(self, mask: np.ndarray | None) -> int:
        """Lists to look through: with a filter as many as the next stricter one that was measured needed."""
        if mask is None:
            return self.search["probes"]
        measured = self._find_filtered(mask.mean())
        return measured["probes"] if measured else self.approximate.lists

    def _find_filtered(self, share: float) -> dict | None:
        """What was measured with a filter as strict as this share of the rows, or the next stricter one."""
        return next((one for one in self.search["filtered"] if one["share"] <= share), None)

    def _list_living(self, list_living: ListLiving) -> np.ndarray:
        return np.flatnonzero(self._find_living(np.arange(self.rows), list_living))

    def _find_living(self, rows: np.ndarray, list_living: ListLiving) -> np.ndarray:
        """(k,) bool: which rows' images still have a file."""
        image_ids = self.image_ids[rows].tolist()
        living = list_living(image_ids)
        return np.array([image_id in living for image_id in image_ids], dtype=bool)


class Snapshots:
    """The snapshots of a collection, one after the other. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    def open(self) -> Snapshot:
        """The generation that answers. Raises: CollectionEmpty, CollectionDamaged."""
        with self._lock:
            current = read_current(self._folder)
            if self._snapshot is None or self._snapshot.generation.name != current:
                self._snapshot = Snapshot(self._folder, open_generation(self._folder))
            return self._snapshot

    def read_name(self) -> str | None:
        """The name of the generation that answers; None before the first."""
        return read_current(self._folder)

    def forget(self) -> None:
        """Look again at the next question, which is done in any case."""

    def close(self) -> None:
        """Nothing is held that would have to be given back."""


def count_steps(wanted: int, candidates: int, effort: int) -> int:
    """How many times the candidates that were measured to be needed.

    In steps, so that a page and the next one are cut from the same candidates wherever that is possible.
    """
    return effort * 2 ** max(0, math.ceil(math.log2((wanted + MARGIN) / candidates)))


def _mark(rows: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return mask


def include(rows: np.ndarray, own_row: int | None, mask: np.ndarray | None) -> np.ndarray:
    """With the query's own row, if it may be answered: no approximation, and no crowd of equals, may lose that one."""
    if own_row is None or own_row in rows or (mask is not None and not mask[own_row]):
        return rows
    return np.append(rows, own_row)


def sort_rows(rows: np.ndarray, similarities: np.ndarray, own_row: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Best first, equals in the order of their rows; the query's own row before all."""
    order = np.lexsort((rows, -similarities, rows != (-1 if own_row is None else own_row)))
    return rows[order], similarities[order]
