"""A generation whose candidates another search engine proposes: the version that Milvus holds, with the rows here.

    Milvus: the rows that seem nearest, narrowed by an expression -> stored rows: true cosines -> catalog: who is there

What an engine cannot do is done here: small sets, upper bounds, counts and exact answers are compared with the rows at
hand, and so is what lies beyond the most rows that an engine may answer with.

Rule: a version is asked by its own name, never by the alias: its row numbers mean something for it alone.
"""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np

from indexer.catalog_reader import CatalogReader
from indexer.engine_rows import ROW, VECTOR, write_expression
from indexer.errors import EngineMismatch, EngineUnreachable
from indexer.filters import Filter
from indexer.generations import Generation, read_newest_first
from indexer.layout import GENERATIONS, STORES, name_store
from indexer.milvus import MOST_ROWS, Milvus, Version, read_address
from indexer.snapshot import Snapshot, count_steps, include
from indexer.vectors import Store

LOOKED_FOR_SECONDS = 1.0
"""How long a version is taken for the one that answers before the alias is asked again."""
LEFT_ALONE_SECONDS = 5.0
"""How long an alias that did not answer is not asked again by those who know a version already."""
ENGINE = "Milvus"


class EngineSnapshot(Snapshot):
    """A version as a reader holds it; later ones do not concern it.

    Args:
        generation: the one that the version was made of, or what stands for it (`find_generation`).
    """

    engine = ENGINE

    def __init__(
        self, folder: Path, generation: Generation, image_ids: np.ndarray, version: Version, milvus: Milvus,
        catalog: CatalogReader,
    ) -> None:  # fmt: skip
        super().__init__(folder, generation, image_ids)
        self.version, self._milvus, self._catalog = version, milvus, catalog
        self.index = f"{version.facts['index']} in {milvus.address}"
        self.recall, self.search = version.measured["recall"], version.measured

    @property
    def is_approximate(self) -> bool:
        """As that of any engine whose answers are measured, not known."""
        return True

    def warm_up(self) -> None:
        """Load what the first search would have to."""
        self._milvus.load(self.version.name)

    def _propose(
        self,
        where: Filter | None,
        query: np.ndarray,
        own_row: int | None,
        wanted: int,
        mask: np.ndarray | None,
        effort: int,
    ) -> tuple[np.ndarray, float, bool]:
        candidates = self._choose_candidates(mask)
        count = candidates * count_steps(wanted, candidates, effort)
        if count > MOST_ROWS:
            return self._propose_exactly(self.exact, query, own_row, wanted, mask, effort)
        found = self._ask(query, count, where)
        return include(found if mask is None else found[mask[found]], own_row, mask), -np.inf, False

    def _choose_candidates(self, mask: np.ndarray | None) -> int:
        """With a filter as many as the next stricter one that was measured needed."""
        if mask is None:
            return self.search["candidates"]
        measured = self._find_filtered(mask.mean()) or self.search["filtered"][-1]
        return max(self.search["candidates"], measured["candidates"])

    def _ask(self, query: np.ndarray, count: int, where: Filter | None) -> np.ndarray:
        expression = "" if where is None else write_expression(where, knows_files=self._knows_files(where))
        index = self.version.facts["index"]
        found = self._milvus.search(self.version.name, VECTOR, ROW, query[None], count, index, expression)[0]
        found = found[found >= 0]
        if len(found) and found.max() >= self.rows:
            raise EngineMismatch(
                f"{self._milvus.address} answers with row {found.max()} where there are {self.rows}: somebody else has "
                "written to it. Publish it anew under another name."
            )
        return found

    def _knows_files(self, where: Filter) -> bool:
        """Whether an expression may be about files; nothing is counted where none would be."""
        is_about_files = any((where.under, where.since, where.until))
        return is_about_files and self._catalog.stamp_files(self.number, self.rows) == self.version.facts["files"]


class EngineSnapshots:
    """The snapshots of a collection that an engine answers for, one after the other. Threads may share it.

    Args:
        address: as a person types it. Raises: EngineError where that is none.
    """

    def __init__(self, folder: Path, address: str, catalog: CatalogReader) -> None:
        self._folder, self._catalog = folder, catalog
        self._address = read_address(address, folder.resolve().name)
        self._lock = threading.Lock()
        self._milvus: Milvus | None = None
        self._snapshot: EngineSnapshot | None = None
        self._look_at = 0.0

    def open(self) -> EngineSnapshot:
        """The version that answers. Raises: CollectionDamaged, EngineError.

        An engine that is out of reach for a moment keeps nobody from what is known already.
        """
        with self._lock:
            if self._snapshot is None or time.monotonic() > self._look_at:
                wait = LOOKED_FOR_SECONDS
                try:
                    self._look()
                except EngineUnreachable:
                    if self._snapshot is None:
                        raise
                    wait = LEFT_ALONE_SECONDS
                self._look_at = time.monotonic() + wait
            return self._snapshot

    def forget(self) -> None:
        """Ask the alias again at the next question."""
        self._look_at = 0.0

    def read_name(self) -> str | None:
        """The name of the generation that answers."""
        return self.open().generation.name

    def close(self) -> None:
        """Give the connection back."""
        if self._milvus:
            self._milvus.close()

    def _look(self) -> None:
        self._milvus = self._milvus or Milvus(self._address)
        target = self._milvus.find_target()
        # A version is not written to again once the alias has named it, unless rows of it are lost.
        if self._snapshot is None or target != self._snapshot.version.name:
            self._take(target and self._milvus.find(target))

    def _take(self, version: Version | None) -> None:
        if version is None or version.measured is None:
            raise EngineMismatch(
                f"{self._address} holds no collection of seer's. Run seer publish --to {self._address} --collection "
                f"{self._folder}"
            )
        found = find_generation(self._folder, version.facts)
        if found is None:
            facts = version.facts
            raise EngineMismatch(
                f"{self._address} holds generation {facts['generation']} with {facts['rows']:,} images. It is not of "
                f"{self._folder}, or its rows have been replaced there since. Run seer publish --to {self._address} "
                f"--collection {self._folder}, or name another engine."
            )
        self._milvus.load(version.name)
        self._snapshot = EngineSnapshot(self._folder, *found, version, self._milvus, self._catalog)


def find_generation(folder: Path, facts: dict) -> tuple[Generation, np.ndarray] | None:
    """The generation that a version was made of, with its images; None where no row number would mean the same here.

    Two are kept. Of an older one the rows are still the first of a later one's, unless a prune or another model came
    between: such a later one stands for it, cut to its rows, and without what was derived from more of them.
    """
    known = list(read_newest_first(folder))
    for one in known:
        if one.manifest["checksum"] == facts["checksum"]:
            return one, one.read_image_ids()
    for one in known:
        is_same = all(one.manifest[name] == facts[name] for name in ("store", "fingerprint", "dimension"))
        if is_same and one.manifest["rows"] >= facts["rows"]:
            image_ids = one.read_image_ids()[: facts["rows"]]
            store = Store(folder / STORES / name_store(facts["store"]), facts["dimension"], facts["rows"])
            if (hash_images(image_ids), store.digest()) == (facts["images"], facts["embeddings"]):
                name = facts["generation"]
                manifest = {**one.manifest, "rows": facts["rows"], "created_at": facts["created_at"]}
                return Generation(name, folder / GENERATIONS / name, manifest), image_ids
    return None


def hash_images(image_ids: np.ndarray) -> str:
    """Equal for equal images in equal rows."""
    return hashlib.sha256(np.ascontiguousarray(image_ids, dtype="<i8").tobytes()).hexdigest()
