"""What files gave, made to last: thumbnails, then rows (synced), then one transaction of the catalog.

Rule: which row each file's image gets follows from the order of the files alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.catalog import Catalog, Entry
from indexer.decode import DecodedFile
from indexer.report import NO_EMBEDDING, Tally, Watchers
from indexer.thumbnails import ThumbnailWriter
from indexer.urls import spell
from indexer.vectors import StoreWriter

log = logging.getLogger(__name__)

Files = Sequence[tuple[DecodedFile, bool]]
"""Files in order, and whether each is new at its path."""


@dataclass(frozen=True, kw_only=True)
class Sinks:
    """Where files go, in this order."""

    thumbnails: ThumbnailWriter
    rows: StoreWriter
    catalog: Catalog
    store: int


class Recorder:
    """Takes in what files gave, some at a time, and counts them."""

    def __init__(self, sinks: Sinks, watchers: Watchers) -> None:
        self._sinks, self._watchers = sinks, watchers
        self.tally = Tally()

    def choose_fresh(self, files: Files) -> list[DecodedFile]:
        """Those that need a row: decoded, one of each content, and without one (others may have given it one)."""
        distinct = {decoded.content_hash: decoded for decoded, _ in reversed(files) if decoded.is_decoded}
        return [
            decoded
            for decoded, _ in files
            if distinct.get(decoded.content_hash) is decoded
            and not self._sinks.catalog.has_row(self._sinks.store, decoded.content_hash)
        ]

    def record(self, files: Files, fresh: list[DecodedFile], rows: np.ndarray, usable: Sequence[bool]) -> None:
        """Make them last, in one transaction.

        Args:
            fresh: those of the files that were embedded.
            rows: (b, D) floats, the embeddings of those b of them that have one; and `usable`, which these are.
        """
        self._sinks.thumbnails.write([(decoded.content_hash, decoded.thumbnail) for decoded in fresh])
        self._watchers.on_step("thumbnails written")
        next_row = self._sinks.rows.append(rows) if len(rows) else self._sinks.rows.rows
        self._watchers.on_step("rows appended")
        placed: dict[bytes, int | None] = {}
        for decoded, is_usable in zip(fresh, usable, strict=True):
            placed[decoded.content_hash] = next_row if is_usable else None
            next_row += is_usable
        entries = [_make_entry(decoded, placed) for decoded, _ in files]
        recorded = self._sinks.catalog.record(self._sinks.store, entries)
        self._watchers.on_step("batch recorded")
        self._count(files, entries, recorded)

    def _count(self, files: Files, entries: list[Entry], recorded: list) -> None:
        for (_, is_new), entry, (image_id, reason) in zip(files, entries, recorded, strict=True):
            self.tally.read += 1
            if reason is not None:
                self.tally.failed += 1
                log.warning("%s: %s", spell(entry.path), reason)
            elif entry.row is not None:
                self.tally.embedded += 1
            elif is_new:
                self.tally.moved[image_id] += 1


def _make_entry(decoded: DecodedFile, placed: dict[bytes, int | None]) -> Entry:
    # Of two files with one content, the first carries the row; both belong to the image.
    row, reason = None, decoded.reason
    if decoded.is_decoded and decoded.content_hash in placed:
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
