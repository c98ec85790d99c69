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
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from indexer.decode import DecodedFile, DecodePool
from indexer.fetching import fetch_ahead, list_tasks
from indexer.fleet import Lane
from indexer.recording import Recorder, Sinks
from indexer.report import Progress, Watchers
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


class Pipeline:
    """One run over the files that wait. Everything but decoding and the lanes is done in the calling thread."""

    def __init__(
        self, sinks: Sinks, lanes: list[Lane], batch_size: int, pool: DecodePool, watchers: Watchers
    ) -> None:
        self._sinks, self._batch_size, self._pool, self._watchers = sinks, batch_size, pool, watchers
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._count, self._able, self._lock = len(lanes), len(lanes), threading.Lock()
        self._under_way: set[bytes] = set()
        self._waited: Counter[str] = Counter()
        self._at: str | None = None
        self._since = time.perf_counter()
        self._recorder = Recorder(sinks, watchers)
        self.tally = self._recorder.tally

    def run(self, total: int) -> bool:
        """Bring the first `total` waiting files in. Returns: whether it came to the end, and was not told to stop."""
        with closing(self._embed_ahead(self._form_batches(total))) as embedded:
            while not self._watchers.should_stop():
                batch = next(embedded, None)
                if batch is None:
                    return True
                before = self._turn_to(DISK)
                self._commit(batch)
                self._turn_to(before)
                tally = self.tally
                self._watchers.on_progress(Progress("embedding", tally.read, total, tally.failed, self._find_limit()))
        return False

    def _form_batches(self, total: int) -> Iterator[Batch]:
        """Decoded files in order, cut so that each batch has at most `batch_size` to embed."""
        new: dict[str, bool] = {}
        batch, waiting = Batch([]), 0
        tasks = list_tasks(self._sinks.catalog.list_work(self._sinks.store), total, new)
        decoded_files = self._pool.decode(fetch_ahead(tasks))
        while decoded := self._take(decoded_files):
            batch.files.append((decoded, new.pop(decoded.path)))
            waiting += decoded.is_decoded
            if waiting == self._batch_size or len(batch.files) == IDLE_ENTRIES:
                yield batch
                batch, waiting = Batch([]), 0
        if batch.files:
            yield batch

    def _take(self, decoded_files: Iterator[DecodedFile]) -> DecodedFile | None:
        before = self._turn_to(DECODING)
        decoded = next(decoded_files, None)
        self._turn_to(before)
        return decoded

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
        fresh = self._recorder.choose_fresh(batch.files)
        batch.fresh = [decoded for decoded in fresh if decoded.content_hash not in self._under_way]
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

    def _commit(self, batch: Batch) -> None:
        """Make a batch last: rows first, the catalog after them."""
        before = self._turn_to(NETWORK)
        rows, usable = batch.embedding.result() if batch.embedding else ([], [])
        self._turn_to(before)
        self._watchers.on_step("batch embedded")
        self._recorder.record(batch.files, batch.fresh, rows, usable)
        self._under_way.difference_update(decoded.content_hash for decoded in batch.fresh)

    def _turn_to(self, stage: str | None) -> str | None:
        """From now on time is this stage's. Returns: whose it was. Twice for each file, so that it must cost little."""
        now, before = time.perf_counter(), self._at
        if before:
            self._waited[before] += now - self._since
        self._at, self._since = stage, now
        return before

    def _find_limit(self) -> str | None:
        if self._waited.total() < TELLING_SECONDS:
            return None
        return max(self._waited, key=self._waited.__getitem__)
