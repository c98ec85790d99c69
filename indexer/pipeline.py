"""The embedding of a build: waiting files are decoded, embedded, written and recorded, each stage at work on its own
batch.

    decoding processes, ahead by a bounded number -> batches, in order -> lanes, one batch ahead -> this thread:
    thumbnails, rows (synced), catalog

A lane embeds one batch at a time; there is one for each device.

Rule: which files make a batch, and which row each gets, follows from their order alone, never from timing.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from indexer.catalog import Catalog, Entry, Work
from indexer.decode import DecodedFile, DecodePool, DecodeTask
from indexer.fleet import Lane
from indexer.report import NO_EMBEDDING, Progress, Tally, Watchers
from indexer.thumbnails import ThumbnailWriter
from indexer.vectors import StoreWriter
from seer_model.errors import DeviceError

IDLE_ENTRIES = 256
"""Files without an embedding (copies, failures) that are recorded together."""
DECODING, NETWORK, DISK = "decoding", "the network", "the disk"
"""What a build may have to wait for."""
TELLING_SECONDS = 2.0
"""Of waiting, before it is said for what."""

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """Files that are recorded in one transaction."""

    files: list[tuple[DecodedFile, bool]]
    """And whether each is new at its path."""
    fresh: list[DecodedFile] = field(default_factory=list)
    """Those of them that are embedded."""
    embedding: Future | None = None


@dataclass(frozen=True, kw_only=True)
class Sinks:
    """Where a batch goes, in this order."""

    thumbnails: ThumbnailWriter
    rows: StoreWriter
    catalog: Catalog
    store: int


class Pipeline:
    """One run over the files that wait. Everything but decoding and the lanes is done in the calling thread."""

    def __init__(self, sinks: Sinks, lanes: list[Lane], batch_size: int, watchers: Watchers) -> None:
        self._sinks, self._batch_size, self._watchers = sinks, batch_size, watchers
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._count, self._able, self._lock = len(lanes), len(lanes), threading.Lock()
        self._under_way: set[bytes] = set()
        self._waited: Counter[str] = Counter()
        self.tally = Tally()

    def run(self, pool: DecodePool, total: int) -> bool:
        """Bring the first `total` waiting files in. Returns: whether it came to the end, and was not told to stop."""
        with closing(self._embed_ahead(self._form_batches(pool, total))) as embedded:
            while not self._watchers.should_stop():
                batch = next(embedded, None)
                if batch is None:
                    return True
                with self._waiting_for(DISK):
                    self._commit(batch)
                tally = self.tally
                self._watchers.on_progress(Progress("embedding", tally.read, total, tally.failed, self._find_limit()))
        return False

    def _form_batches(self, pool: DecodePool, total: int) -> Iterator[Batch]:
        """Decoded files in order, cut so that each batch has at most `batch_size` to embed."""
        new: dict[str, bool] = {}
        batch, waiting = Batch([]), 0
        decoded_files = pool.decode(_list_tasks(self._sinks.catalog.list_work(self._sinks.store), total, new))
        while decoded := self._take(decoded_files):
            batch.files.append((decoded, new.pop(decoded.path)))
            waiting += decoded.pixels is not None
            if waiting == self._batch_size or len(batch.files) == IDLE_ENTRIES:
                yield batch
                batch, waiting = Batch([]), 0
        if batch.files:
            yield batch

    def _take(self, decoded_files: Iterator[DecodedFile]) -> DecodedFile | None:
        with self._waiting_for(DECODING):
            return next(decoded_files, None)

    def _embed_ahead(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, embedded; each lane has one in hand while another is written."""
        waiting: deque[Batch] = deque()
        with ThreadPoolExecutor(self._count, thread_name_prefix="lane") as threads:
            try:
                for batch in batches:
                    self._begin(batch, threads)
                    waiting.append(batch)
                    if len(waiting) > self._count:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                for batch in waiting:
                    if batch.embedding:
                        batch.embedding.cancel()

    def _begin(self, batch: Batch, threads: ThreadPoolExecutor) -> None:
        batch.fresh = self._choose_fresh([decoded for decoded, _ in batch.files])
        self._under_way.update(decoded.content_hash for decoded in batch.fresh)
        if batch.fresh:
            batch.embedding = threads.submit(self._embed, [decoded.pixels for decoded in batch.fresh])

    def _embed(self, pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        lane = self._lanes.get()
        try:
            embedded = lane(pixels)
        except DeviceError as error:
            if self._do_without(lane):
                log.warning("%s", error)
                return self._embed(pixels)
            raise
        except BaseException:
            self._lanes.put(lane)
            raise
        self._lanes.put(lane)
        return embedded

    def _do_without(self, lane: Lane) -> bool:
        """Leave a lane to itself from now on; the last one stays, so that nobody waits for it in vain."""
        with self._lock:
            self._able -= 1
            if self._able < 1:
                self._lanes.put(lane)
            return self._able > 0

    def _choose_fresh(self, batch: list[DecodedFile]) -> list[DecodedFile]:
        """Those to embed: decoded, one of each content, and without a row (an earlier batch may have given it one)."""
        distinct = {decoded.content_hash: decoded for decoded in reversed(batch) if decoded.pixels is not None}
        return [
            decoded
            for decoded in batch
            if distinct.get(decoded.content_hash) is decoded
            and decoded.content_hash not in self._under_way
            and not self._sinks.catalog.has_row(self._sinks.store, decoded.content_hash)
        ]

    def _commit(self, batch: Batch) -> None:
        """Make a batch last: rows first, the catalog after them."""
        with self._waiting_for(NETWORK):
            rows, usable = batch.embedding.result() if batch.embedding else ([], [])
        self._watchers.on_step("batch embedded")
        self._sinks.thumbnails.write([(decoded.content_hash, decoded.thumbnail) for decoded in batch.fresh])
        self._watchers.on_step("thumbnails written")
        next_row = self._sinks.rows.append(rows) if len(rows) else self._sinks.rows.rows
        self._watchers.on_step("rows appended")
        placed: dict[bytes, int | None] = {}
        for decoded, is_usable in zip(batch.fresh, usable, strict=True):
            placed[decoded.content_hash] = next_row if is_usable else None
            next_row += is_usable
        entries = [_make_entry(decoded, placed) for decoded, _ in batch.files]
        recorded = self._sinks.catalog.record(self._sinks.store, entries)
        self._under_way.difference_update(decoded.content_hash for decoded in batch.fresh)
        self._watchers.on_step("batch recorded")
        self._count_batch(batch, entries, recorded)

    def _count_batch(self, batch: Batch, entries: list[Entry], recorded: list) -> None:
        for (_, is_new), entry, (image_id, reason) in zip(batch.files, entries, recorded, strict=True):
            self.tally.read += 1
            if reason is not None:
                self.tally.failed += 1
                log.warning("%s: %s", entry.path, reason)
            elif entry.row is not None:
                self.tally.embedded += 1
            elif is_new:
                self.tally.moved[image_id] += 1

    @contextmanager
    def _waiting_for(self, stage: str) -> Iterator[None]:
        """Time in here is this stage's; where they are nested, the inner one's."""
        before, started = self._waited.total(), time.perf_counter()
        try:
            yield
        finally:
            self._waited[stage] += time.perf_counter() - started - (self._waited.total() - before)

    def _find_limit(self) -> str | None:
        if self._waited.total() < TELLING_SECONDS:
            return None
        return max(self._waited, key=self._waited.__getitem__)


def _list_tasks(work: Iterator[Work], total: int, new: dict[str, bool]) -> Iterator[DecodeTask]:
    for number, task in enumerate(work):
        if number == total:
            return
        if task.path in new:
            continue  # A damaged catalog lists it twice.
        new[task.path] = task.is_new
        yield DecodeTask(task.path, task.known)


def _make_entry(decoded: DecodedFile, placed: dict[bytes, int | None]) -> Entry:
    # Of two files with one content in a batch, the first carries the row; both belong to the image.
    row, reason = None, decoded.reason
    if decoded.pixels is not None and decoded.content_hash in placed:
        row = placed.pop(decoded.content_hash)
        reason = NO_EMBEDDING if row is None else None
    return Entry(
        path=decoded.path,
        size_bytes=decoded.size_bytes,
        mtime_ns=decoded.mtime_ns,
        content_hash=decoded.content_hash,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        reason=reason,
        row=row,
    )
