"""A generation, published in Milvus: written batch by batch into a version of its own, measured, then switched to.

    rows here -> a version (rows, images, fields) -> counted -> settled -> searched with held-out queries -> alias

It may be stopped or killed at any point: the next run counts what is there and goes on. Readers ask the version before,
and go over to the new one when the alias names it, which is one step; they never see half of one. The version before
stays until the next publication, for those who are still asking it.

Rule: the alias names nothing that was not counted and measured.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from indexer.catalog_reader import CatalogReader
from indexer.engine_rows import DRAWS, FIELDS, ROW, VECTOR, draw_rows, list_records
from indexer.engine_snapshot import hash_images
from indexer.errors import EngineError, explain_refusal
from indexer.generations import open_generation
from indexer.hold import hold
from indexer.layout import CATALOG
from indexer.milvus import INDEXES, Milvus, Version, read_address
from indexer.publish import require_faiss
from indexer.recall import CANDIDATES, NO_OWN, SPARE, HeldOut, answer_exactly
from indexer.report import Progress
from indexer.settings import require
from indexer.snapshot import SMALL_BYTES, Snapshot

SCHEMA_VERSION = 1
DEFAULT_INDEX, NOT_OF_LITE = "HNSW", "DISKANN"
BATCH_BYTES, BATCH_ROWS = 16 << 20, 4096
"""Of embeddings that are sent at a time: a cluster takes 64 MB in one message, and paths come along."""
QUERIES, ASKED_AT_ONCE = 400, 25
"""That are held out, and how many of them are asked in one question."""
TURNED = 0.9
"""How similar a held-out query is to the row that it was made of: about as an edited copy is."""
SHARES = (0.1, 0.01, 0.001)
"""Of the rows, that filters let through when recall is measured with them."""
TARGET = 0.98
"""Recall that is aimed at where the generation does not say."""


@dataclass(frozen=True, kw_only=True)
class PublicationReport:
    """What a run did; `written` counts rows of this run. `recall` and `candidates` are None until all are there."""

    engine: str
    version: str
    generation: str
    rows: int
    written: int
    pending: int
    index: str
    recall: float | None
    candidates: int | None
    removed: list[str]
    """Older versions."""
    seconds: float

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer publish --json` prints."""
        return {"schema_version": SCHEMA_VERSION, **vars(self)}


def publish_collection(
    collection: Path,
    address: str,
    *,
    index: str = DEFAULT_INDEX,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PublicationReport:
    """Let Milvus hold the generation that answers, or go on with that; one that is whole there is left alone.

    Args:
        address: as a person types it (`milvus.read_address`).
        index: one of `milvus.INDEXES`.
        should_stop: asked after each batch; True ends the run with that batch in Milvus.
    Raises: SettingsError, FaissMissing, EngineError, and what stands under CollectionError.
    """
    started = time.monotonic()
    require(index in INDEXES, f"--index is {index}; allowed are {', '.join(INDEXES)}.")
    require_faiss("nothing was published: its recall could not be measured")
    where = read_address(address, collection.resolve().name)
    with (
        explain_refusal(collection),
        hold(collection, "seer publish"),
        closing(CatalogReader(collection / CATALOG)) as catalog,
        closing(Milvus(where, makes_file=True)) as milvus,
    ):
        work = _Publication(collection.resolve(), catalog, milvus, index)
        return work.run(on_progress, should_stop, started)


class _Publication:
    """One run."""

    def __init__(self, folder: Path, catalog: CatalogReader, milvus: Milvus, index: str) -> None:
        self._folder, self._catalog, self._milvus = folder, catalog, milvus
        self.snapshot = snapshot = Snapshot(folder, open_generation(folder))
        manifest = snapshot.generation.manifest
        require(
            not (milvus.is_lite and index == NOT_OF_LITE),
            f"--index is {index}, which milvus-lite does not make; allowed are "
            f"{', '.join(name for name in INDEXES if name != NOT_OF_LITE)}.",
        )
        self.facts = {
            "schema_version": SCHEMA_VERSION,
            "collection": str(folder),
            "generation": snapshot.generation.name,
            **{name: manifest[name] for name in ("checksum", "created_at", "fingerprint")},
            "store": snapshot.number,
            "rows": snapshot.rows,
            "dimension": snapshot.dimension,
            "images": hash_images(snapshot.image_ids),
            "embeddings": snapshot.store.digest(),
            "files": catalog.stamp_files(snapshot.number, snapshot.rows),
            "index": index,
        }
        self.name = name_version(milvus.address.name, self.facts)
        self._batch = max(1, min(BATCH_ROWS, BATCH_BYTES // (2 * snapshot.dimension)))
        self._search = partial(milvus.search, self.name, VECTOR, ROW, index=index)

    def run(
        self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool], started: float
    ) -> PublicationReport:
        """Write what is missing, measure, switch."""
        before = self._find_before()
        measured = self._find_measured()
        written, pending = self._write(on_progress, should_stop) if measured is None else (0, 0)
        removed: list[str] = []
        if not pending and not (measured is None and should_stop()):
            if measured is None:
                on_progress(Progress("indexing and measuring"))
                measured = self._complete()
            if before != self.name:
                self._milvus.switch(self.name)
            removed = self._drop_older(keep={self.name, before} if before != self.name else {self.name})
        return PublicationReport(
            engine=str(self._milvus.address),
            version=self.name,
            generation=self.facts["generation"],
            rows=self.facts["rows"],
            written=written,
            pending=pending,
            index=self.facts["index"],
            recall=measured and measured["recall"],
            candidates=measured and measured["candidates"],
            removed=removed,
            seconds=round(time.monotonic() - started, 3),
        )

    def _find_before(self) -> str | None:
        """The version that answers now. Raises: EngineError if the alias is somebody else's."""
        name, target = self._milvus.address.name, self._milvus.find_target()
        before = target and self._milvus.find(target)
        if before is None and (target is not None or name in self._milvus.list_names()):
            raise EngineError(
                f"{name} at {self._milvus.address} names something that seer did not make, or that is damaged. Choose "
                "another NAME, or remove it there."
            )
        other = Path(before.facts.get("collection", self.facts["collection"])) if before else None
        if other and _is_anothers(other, self._folder):
            raise EngineError(
                f"{self._milvus.address} answers for the collection in {other}, which would lose it. Choose another "
                f"NAME, as in {replace(self._milvus.address, name=f'{name}_2')}"
            )
        return target

    def _find_measured(self) -> dict | None:
        """What was measured of the version, if it is whole still; None where it is to be written to."""
        found = self._open()
        if found.measured is None:
            return None
        if self._milvus.count(self.name) != self.facts["rows"]:
            # Else a run that is stopped before it measures would leave one that seems whole.
            self._milvus.tell(self.name, None)
            return None
        if self.facts["rows"]:
            self._search(self.snapshot.store.read_embeddings(np.arange(1)), 1)
        return found.measured

    def _open(self) -> Version:
        """The version to write to; what was begun of another making under its name is removed."""
        found = self._milvus.find(self.name)
        if found is not None and found.facts == self.facts:
            return found
        if self.name in self._milvus.list_names():
            self._milvus.drop(self.name)
        self._milvus.begin(self.name, self.facts, FIELDS, VECTOR, self.facts["index"])
        return Version(name=self.name, facts=self.facts, measured=None)

    def _write(self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> tuple[int, int]:
        """Write the batches that are not there. Returns: rows written, and rows still to be written."""
        missing = self._list_missing()
        left, written = sum(last - first for first, last, _ in missing), 0
        self._milvus.release(self.name)
        on_progress(Progress("publishing", 0, left))
        for first, last, is_new in missing:
            self._write_batch(first, last, is_new=is_new)
            written += last - first
            on_progress(Progress("publishing", written, left))
            if should_stop():
                break
        return written, left - written

    def _list_missing(self) -> list[tuple[int, int, bool]]:
        """The batches that are not there as a whole: first row, the row after the last, and whether nothing is."""
        rows, is_empty = self.snapshot.rows, not self._milvus.count(self.name)
        spans = [(first, min(first + self._batch, rows)) for first in range(0, rows, self._batch)]
        there = (0 if is_empty else self._count(first, last) for first, last in spans)
        return [(*span, not found) for span, found in zip(spans, there, strict=True) if found != span[1] - span[0]]

    def _count(self, first: int, last: int) -> int:
        return self._milvus.count(self.name, f"{ROW} >= {first} and {ROW} < {last}")

    def _write_batch(self, first: int, last: int, *, is_new: bool) -> None:
        self.snapshot.store.check(np.arange(first, last))
        records = list_records(self._catalog, self.snapshot.number, self.snapshot.image_ids[first:last], first)
        self._milvus.write(self.name, records, VECTOR, self.snapshot.store.rows[first:last], is_new=is_new)

    def _complete(self) -> dict:
        """Count, let the index be made, measure. Returns: what was measured."""
        self._milvus.settle(self.name, VECTOR)
        found = self._milvus.count(self.name)
        if found > self.facts["rows"]:
            raise EngineError(
                f"{self.name} at {self._milvus.address} has {found:,} rows where {self.facts['rows']:,} are here: "
                "somebody else has written to it. Remove it there, or choose another NAME."
            )
        if found != self.facts["rows"]:
            raise EngineError(
                f"{self.name} at {self._milvus.address} has {found:,} rows where {self.facts['rows']:,} were written; "
                "what answered before still does. Run seer publish again: it writes those anew that differ."
            )
        measured = self._measure()
        self._milvus.tell(self.name, measured)
        return measured

    def _measure(self) -> dict:
        """How many candidates the recall needs, and what it is with them, on queries that did not choose."""
        held, stored_bytes = self._hold_out(), self.snapshot.store.rows.nbytes
        # What is smaller is compared here and never asked of Milvus.
        shares = [share for share in SHARES if share * stored_bytes > SMALL_BYTES]
        narrowed = ((share, self._narrow(held, share)) for share in shares)
        whole, *filtered = (self._find_width(some, share) for share, some in ((1.0, held), *narrowed))
        return {**whole, "queries": len(held.queries) // 2, "recall_of_edits": None, "filtered": filtered or [whole]}

    def _find_width(self, held: HeldOut, share: float) -> dict:
        """The candidates that reach the recall aimed at, or the most; with a filter that lets through so many rows."""
        target = self.snapshot.generation.manifest["settings"].get("recall") or TARGET
        choosing, telling = held.halve() if len(held.queries) > 1 else (held, held)
        for candidates in CANDIDATES[1:]:
            if self._count_found(choosing, candidates, share) >= min(1.0, target + SPARE):
                break
        return {"share": share, "candidates": candidates, "recall": self._count_found(telling, candidates, share)}

    def _hold_out(self) -> HeldOut:
        """Queries that are no rows of the index: rows turned away from where they point, with their exact answers."""
        chance, store = np.random.default_rng(0), self.snapshot.store
        rows = chance.choice(self.snapshot.rows, min(QUERIES, self.snapshot.rows), replace=False)
        embeddings = store.read_embeddings(np.sort(rows))
        aside = chance.standard_normal(embeddings.shape, dtype=np.float32)
        aside -= (aside * embeddings).sum(axis=1, keepdims=True) * embeddings
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        queries = chance.permutation(TURNED * embeddings + np.sqrt(1 - TURNED**2) * aside).astype(np.float32)
        return answer_exactly(queries, np.full(len(queries), NO_OWN), store.rows, store.norms)

    def _narrow(self, held: HeldOut, share: float) -> HeldOut:
        """The same queries, with their exact answers among a part of the rows."""
        store, own = self.snapshot.store, np.full(len(held.queries), NO_OWN)
        chosen = np.flatnonzero(draw_rows(np.arange(self.snapshot.rows)) < share * DRAWS)
        within = answer_exactly(held.queries, own, store.rows, store.norms, chosen)
        nearest = np.where(within.nearest < 0, -1, np.append(chosen, -1)[within.nearest])
        return HeldOut(queries=held.queries, own=own, nearest=nearest, similarities=within.similarities)

    def _count_found(self, held: HeldOut, candidates: int, share: float) -> float:
        """Recall, with a filter that lets through so many of the rows."""
        exists = held.nearest >= 0
        if not exists.any():
            return 1.0
        expression = "" if share == 1.0 else f"draw < {round(share * DRAWS)}"
        found = np.concatenate([self._search(some, candidates, expression=expression) for some in _cut(held.queries)])
        is_there = (held.nearest[:, :, None] == found[:, None, :]).any(axis=2)
        return float(is_there[exists].mean())

    def _drop_older(self, keep: set[str | None]) -> list[str]:
        """Remove the versions of this alias but some. Returns: their names."""
        ours = re.compile(re.escape(self._milvus.address.name) + r"_\d{6,}_[0-9a-f]{8}")
        older = [name for name in self._milvus.list_names() if ours.fullmatch(name) and name not in keep]
        for name in older:
            self._milvus.drop(name)
        return older


def _is_anothers(place: Path, own: Path) -> bool:
    """Whether another collection lies there. One that has moved is at home in one place only."""
    try:
        os.stat(place / CATALOG)
        return not place.samefile(own)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # It is there, and shut.


def _cut(queries: np.ndarray) -> Iterator[np.ndarray]:
    return (queries[first : first + ASKED_AT_ONCE] for first in range(0, len(queries), ASKED_AT_ONCE))


def name_version(alias: str, facts: dict) -> str:
    """A version's name: another one for everything that it may be made of."""
    told = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{alias}_{facts['generation']}_{told[:8]}"
