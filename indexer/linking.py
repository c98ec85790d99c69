"""The rows nearest to each row of a generation: an index proposes them, the stored rows decide.

    exact        a batch of rows against all rows: a matrix product, piece by piece
    approximate  candidates of the index, as wide as was measured to be needed, ordered by their stored rows
    grown        a row that was linked before keeps its list, but for rows that came since and are nearer

Whatever the way, a pair's similarity is the one that a search shows, to the bit, from either side. Memory is that of a
batch and of a piece, however many rows there are.

Rule: a list depends on the rows alone, or on those and the index; never on what was linked in the same run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from indexer.fitting import HELD_OUT, read_held_out
from indexer.graph_folder import Links
from indexer.recall import NEAREST
from indexer.snapshot import ROUNDING, Snapshot

BATCH = 1024
"""Rows that are linked at a time: enough to be worth a pass over all others, few enough to wait for at Ctrl-C."""
SPARE = 4
"""Rows compared beyond those that are kept: a matrix product rounds a little otherwise."""


@dataclass(frozen=True)
class Linker:
    """Finds lists.

    Args:
        snapshot: the generation.
        count: k, neighbours of each row.
        before: the lists of the first rows, of a graph of the same store, to be gone on with; (0, k) if there is none.
    """

    snapshot: Snapshot
    count: int
    before: Links

    def describe(self) -> dict:
        """How lists are found, as JSON-able values: two runs that say the same find the same."""
        search, grown_from = self.snapshot.search or {}, len(self.before.neighbours)
        index = self.snapshot.generation.manifest["index"]
        return {
            "index": index,
            "probes": search.get("probes"),
            "candidates": self.candidates,
            "grown_from": grown_from,
            "batch": BATCH,
        }

    @property
    def candidates(self) -> int | None:
        """Rows that an approximate index is asked for: as many for each of the k as were needed for each of ten."""
        search = self.snapshot.search
        return search and max(-(-search["candidates"] * self.count // NEAREST), self._wanted)

    @property
    def _wanted(self) -> int:
        """With the row itself, which is always its own nearest, and some to spare."""
        return self.count + 1 + SPARE

    def link(self, first: int) -> Iterator[Links]:
        """The lists of all rows from `first` on, batch by batch."""
        old = len(self.before.neighbours)
        for start in range(first, self.snapshot.rows, BATCH):
            rows = np.arange(start, min(start + BATCH, self.snapshot.rows))
            renewed, found = self._renew(rows[rows < old]), self._find(rows[rows >= old])
            yield Links(*map(np.concatenate, zip(renewed, found, strict=True)))

    def measure(self, similarities: np.ndarray) -> float:
        """Recall of the whole graph, from its (N, k) similarities: the share of a sample's exact neighbours in it."""
        if not self.snapshot.is_approximate:
            return 1.0
        exact = self._rank(self._sample, self._propose_exactly(self._sample))
        # What is as near as the last of them is as good: there may be more equals than places.
        return round(float((similarities[self._sample] >= exact.similarities[:, -1:]).mean()), 4)

    @cached_property
    def _sample(self) -> np.ndarray:
        """Rows that had no part in training the index, nor in choosing how wide it is searched."""
        generation = self.snapshot.generation
        own = read_held_out(generation.verify(HELD_OUT).parent).halve()[1].own
        return own[own >= 0]

    def _find(self, rows: np.ndarray) -> Links:
        if not len(rows):
            return Links(*(values[:0] for values in self.before))
        return self._rank(rows, self._propose(rows) if self.snapshot.is_approximate else self._propose_exactly(rows))

    def _renew(self, rows: np.ndarray) -> Links:
        """The lists of rows that were linked before, with the rows that came since."""
        from indexer.index import find_nearest

        links, old = Links(*(values[rows] for values in self.before)), len(self.before.neighbours)
        store = self.snapshot.store
        if not len(rows) or old == self.snapshot.rows:
            return links
        queries = store.read_embeddings(rows)
        cosines, found = find_nearest(store.rows[old:], store.norms[old:], queries, self.count)
        found = np.where(cosines > links.similarities[:, -1:] - ROUNDING, found + old, -1)
        changed = (found >= 0).any(axis=1)
        anew = self._rank(rows[changed], np.concatenate([links.neighbours[changed], found[changed]], axis=1))
        for values, others in zip(links, anew, strict=True):
            values[changed] = others
        return links

    def _propose_exactly(self, rows: np.ndarray) -> np.ndarray:
        from indexer.index import find_nearest

        store = self.snapshot.store
        return find_nearest(store.rows, store.norms, store.read_embeddings(rows), self._wanted)[1]

    def _propose(self, rows: np.ndarray) -> np.ndarray:
        snapshot = self.snapshot
        queries, probes = snapshot.store.read_embeddings(rows), snapshot.search["probes"]
        while True:
            products, found = snapshot.approximate.rank(queries, self.candidates, probes, snapshot.exact)
            order = np.argsort(-products / snapshot.store.norms[found], axis=1)[:, : self._wanted]
            proposed = np.take_along_axis(found, order, axis=1)
            if probes >= snapshot.approximate.lists or (proposed >= 0).all():
                return proposed
            probes *= 2  # Lists that are short of rows must not make short lists of neighbours.

    def _rank(self, rows: np.ndarray, proposed: np.ndarray) -> Links:
        """The nearest of some proposed rows, (n, m) with -1 for none."""
        proposed = np.where(proposed == rows[:, None], -1, proposed)
        missing = max(0, self.count - proposed.shape[1])
        proposed = np.pad(proposed, ((0, 0), (0, missing)), constant_values=-1)
        similarities = self.snapshot.store.compare_many(rows, proposed)
        order = np.lexsort((proposed, -similarities), axis=1)[:, : self.count]
        neighbours = np.take_along_axis(proposed, order, axis=1).astype(np.int32)
        return Links(neighbours, np.take_along_axis(similarities, order, axis=1))
