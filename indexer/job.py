"""The build: from folders to a published generation.

    walk -> catalog -> decode (worker processes) -> backbone -> thumbnails, rows (synced) -> catalog -> index -> CURRENT

It may be stopped or killed at any point: what one batch has committed stays, and running it again goes on from there.

Rule: only the conductor knows more than one step, and only one build at a time holds the collection.
"""

import logging
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from indexer import generations
from indexer.catalog import Catalog
from indexer.cluster_pipeline import Spread, open_spread
from indexer.decode import DecodePool, DecodeSettings
from indexer.edited import COPIES, edit_thumbnails, embed_copies
from indexer.errors import (
    CollectionError,
    DiskTooSmall,
    SourceError,
    explain_missing_folder,
    explain_refusal,
)
from indexer.hold import hold
from indexer.kinds import LIST, is_missing, recognise
from indexer.layout import CATALOG, PRIVATE, STORES, THUMBNAILS, name_store, require_own_place
from indexer.pipeline import Pipeline, Sinks
from indexer.publish import DEMANDS, publish_store
from indexer.recipes import MOST_ROW_BYTES
from indexer.report import BuildReport, Progress, Tally, Watchers
from indexer.schema import explain_damage
from indexer.settings import RAY, BuildSettings
from indexer.sources import Walk, require_listing, resolve_folders
from indexer.thumbnails import ThumbnailReader, ThumbnailWriter
from indexer.urls import is_remote
from indexer.vectors import StoreWriter, copy_rows, count_rows, measure_row
from seer_model.durable import make_folder
from seer_model.errors import UserError
from seer_model.formats import list_met_needs
from seer_model.preprocess import PREPROCESSINGS
from seer_model.zoo import DEFAULT_MODEL, complete_reference, find_model

THUMBNAIL_BYTES = 16_000
SPARE_BYTES = 64 << 20
LEAST_TOGETHER = 32
"""Pictures that are recorded together, several batches where these are small: each commit waits for the disk."""

log = logging.getLogger(__name__)


def build_collection(
    folder: Path, pictures: list[Path], settings: BuildSettings, watchers: Watchers | None = None
) -> BuildReport:
    """Bring a collection up to date with its picture folders, and publish.

    Args:
        folder: the collection; made if it is not there.
        pictures: folders to add to those it has; may be empty if it has some.
    Raises: SourceError, DiskTooSmall, FaissMissing, SettingsError, ModelError, DeviceError, and what stands under
        CollectionError. What was committed before stays.
    """
    added = resolve_folders(pictures)
    require_own_place(folder)
    with explain_refusal(folder), explain_damage(folder / CATALOG), ExitStack() as stack:
        if not folder.is_dir():
            make_folder(folder, PRIVATE)
        stack.enter_context(hold(folder, "build"))
        catalog = stack.enter_context(closing(Catalog(folder / CATALOG)))
        return _Build(folder, catalog, settings, watchers or Watchers(), stack).run(added)


class _Build:
    """One run of the job over an open catalog; its methods stand in the order in which they run."""

    def __init__(
        self, folder: Path, catalog: Catalog, settings: BuildSettings, watchers: Watchers, stack: ExitStack
    ) -> None:
        self.folder, self.catalog, self.watchers, self.stack = folder, catalog, watchers, stack
        self.model_before = catalog.read_model()
        model = complete_reference(settings.model or self.model_before or DEFAULT_MODEL)
        self.settings = replace(settings, model=model)
        self.tally = Tally()
        self.spread: Spread | None = None
        self.is_stopped = False
        self.started = time.monotonic()

    def run(self, added: list[Path]) -> BuildReport:
        """Walk, embed, publish, report."""
        given = self.settings.exclude
        self._keep_demands()
        walk, gone = self._walk(added)
        generation = self._find_untouched()
        if generation is None:
            self._open_fleet()
            self._embed_waiting()
            generation = self._publish()
        seconds = time.monotonic() - self.started
        return BuildReport(
            found=self.catalog.count_files(),
            ignored=walk.ignored,
            unreadable=len(walk.unreadable),
            unreadable_because=walk.because,
            absent=walk.absent,
            shards=len({*walk.shards}.difference(map(str, walk.folders))),
            embedded=self.tally.embedded,
            unchanged=self.catalog.count_unchanged(self.store) - self.tally.embedded - self.tally.moved.total(),
            moved=self.tally.moved.total(),
            removed=(Counter(gone) - self.tally.moved).total(),
            failed=self.catalog.count_failed_files(),
            pending=self.catalog.count_work(self.store),
            images=self._count_searchable(generation),
            generation=generation.name if generation else None,
            chosen=generation.manifest.get("chosen") if generation else None,
            unmatched=tuple(glob for glob in filter(None, given) if glob not in walk.matched),
            is_stopped=self.is_stopped,
            seconds=round(seconds, 3),
            images_per_second=round(self.tally.embedded / seconds, 2) if seconds else 0.0,
        )

    def _keep_demands(self) -> None:
        """What is asked of the index stays as it was asked for before."""
        current = self._read_current()
        kept = current.manifest["settings"] if current else {}
        kept = {name: kept.get(name) for name in DEMANDS if getattr(self.settings, name) is None}
        self.settings = replace(self.settings, **kept)

    def _walk(self, added: list[Path]) -> tuple[Walk, list[int | None]]:
        folders = self._choose_folders(added)
        given = self.settings.exclude
        exclude = tuple(filter(None, given)) if given else self.catalog.list_excluded()
        self.settings = replace(self.settings, exclude=exclude)
        # Other globs would let other pictures of a shard through.
        known = self.catalog.list_known if exclude == self.catalog.list_excluded() else lambda shard: []
        walk = Walk(folders, exclude, own=os.path.realpath(self.folder), list_known=known)
        found = ((file.path, file.size_bytes, file.mtime_ns, file.inode) for file in self._watch_walk(walk))
        self.catalog.add_folders(added)
        full = () if self.settings.accept_removals else {*self.catalog.list_folders(), *self.catalog.list_mounts()}
        has_lists = any(recognise(folder) == LIST for folder in folders)
        gone = self.catalog.record_walk(found, walk.unreadable, full, exclude, walk.mounts, has_lists)
        if self.settings.retry_failed:
            self.catalog.retry_failed()
        # A library that has been installed since is reason enough.
        for reason in list_met_needs():
            self.catalog.retry_failed(reason)
        self.watchers.on_step("walk recorded")
        return walk, gone

    def _choose_folders(self, added: list[Path]) -> list[Path]:
        """The folders to walk: the new ones and those of the collection that are still there."""
        for source in added:
            require_listing(source)
        known = self.catalog.list_folders()
        missing = [folder for folder in known if is_missing(folder)]
        if missing and not self.settings.accept_removals:
            raise SourceError(explain_missing_folder(missing[0]))
        for folder in missing:
            self.catalog.forget_folder(folder)
        if not (added or known):
            raise SourceError(f"{self.folder} has no picture folders yet. Name them: seer build PICTURES")
        return resolve_folders([*added, *(folder for folder in known if folder not in missing)])

    def _watch_walk(self, walk: Walk) -> Iterator:
        for done, file in enumerate(walk, start=1):
            if self.watchers.should_stop():
                raise KeyboardInterrupt  # Nothing is in hand yet.
            if done % 500 == 0:
                self.watchers.on_progress(Progress("walking", done))
            yield file

    def _find_untouched(self) -> generations.Generation | None:
        """The generation that answers, if this build has nothing to add to it: then the model need not be opened."""
        current = self._read_current()
        if current is None or current.manifest.get("weights") != self._read_stamps():
            return None
        store, told = self.catalog.find_latest_store(), current.manifest
        rows = count_rows(self.folder / STORES / name_store(told["store"]), told["dimension"])
        is_whole = rows >= told["rows"] == self.catalog.count_rows(told["store"])
        is_same = told["store"] == store and self._has_settings(told)
        if not (is_whole and is_same) or self.catalog.count_work(store):
            return None
        self.store = store
        return current

    def _read_stamps(self) -> list[list]:
        """What the model was read from, and how pictures are made ready for it: the fingerprint follows from these."""
        try:
            found = find_model(self.settings.model)
        except UserError:
            return []  # Opening it says what is wrong.
        return [*map(list, found.stamps), PREPROCESSINGS[found.preprocessing].describe()]

    def _open_fleet(self) -> None:
        # Imported here: `seer status` and the walk must not wait for torch.
        from indexer.embed import open_fleet

        self.watchers.on_progress(Progress("loading the model"))
        settings = self.settings
        how = {name: getattr(settings, name) for name in ("batch_size", "precision", "is_compiled")}
        if settings.engine == RAY:
            self.spread = open_spread(self.folder, settings, how, self.stack)
            self.fleet = self.spread.fleet
        else:
            self.fleet = self.stack.enter_context(closing(open_fleet(settings.model, settings.devices, **how)))
        if self.settings.model != self.model_before:
            # What one model could not embed, another may.
            self.catalog.retry_failed()
        about = self.fleet.about
        self.store = self.catalog.open_store(about.fingerprint, about.dimension, self.settings.model)
        rows = self._replace_if_short(self.catalog.count_rows(self.store))
        self.writer = self.stack.enter_context(closing(StoreWriter(self._find_store(), about.dimension, rows)))
        self.watchers.on_step("store opened")

    def _find_store(self) -> Path:
        return self.folder / STORES / name_store(self.store)

    def _replace_if_short(self, known: int) -> int:
        """Rows that the store has; if it lost some (power cut, damage), what is left goes on in a new store."""
        old, there = self._find_store(), count_rows(self._find_store(), self.fleet.about.dimension)
        if there >= known:
            return known
        log.warning("%s is %d rows short; they are embedded again", old, known - there)
        new = self.catalog.find_next_store()
        # Rows first: whatever a change that was cut off has left under this number must not be taken for them.
        copy_rows(old, self.folder / STORES / name_store(new), self.fleet.about.dimension, there)
        self.catalog.replace_store(self.store, new, there)
        self.store = new
        return there

    def _embed_waiting(self) -> None:
        waiting = self.catalog.count_work(self.store)
        total = waiting if self.settings.limit is None else min(waiting, self.settings.limit)
        if total:
            self._require_disk(total)
            self._embed(total)

    def _require_disk(self, files: int) -> None:
        needed = SPARE_BYTES + files * (measure_row(self.fleet.about.dimension) + THUMBNAIL_BYTES)
        needed += (self.writer.rows + files) * MOST_ROW_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise DiskTooSmall(
                f"Embedding {files} files needs about {needed >> 20} MB in {self.folder}; {free >> 20} MB are free. "
                "Free some space, or put the collection elsewhere with --collection."
            )

    def _embed(self, total: int) -> None:
        decoding = DecodeSettings(
            preprocessing=self.fleet.about.preprocessing,
            max_megapixels=self.settings.max_megapixels,
            max_seconds=self.settings.max_seconds,
            thumbnail_px=self.settings.thumbnail_px,
        )
        thumbnails = self.stack.enter_context(closing(ThumbnailWriter(self.folder / THUMBNAILS)))
        self.watchers.on_progress(Progress("embedding", 0, total))
        sinks = Sinks(thumbnails=thumbnails, rows=self.writer, catalog=self.catalog, store=self.store)
        together = self.settings.batch_size or max(LEAST_TOGETHER, self.fleet.about.batch_size)
        if self.spread:
            pipeline = self.spread.make_pipeline(sinks, decoding, together, self.watchers)
        else:
            # Files from elsewhere travel with their bytes, so that few of them may at a time.
            is_near = not any(is_remote(one) or recognise(one) == LIST for one in self.catalog.list_folders())
            pool = DecodePool(decoding, self.settings.workers, total if is_near else 0)
            self.stack.enter_context(closing(pool))
            pipeline = Pipeline(sinks, self.fleet.lanes, together, pool, self.watchers)
        self.tally = pipeline.tally
        self.is_stopped = not pipeline.run(total)

    def _publish(self) -> generations.Generation | None:
        """Publish if there is something that the current generation does not have. Returns: the one that answers."""
        current = self._read_current()
        if self.is_stopped or (current and (self._is_up_to_date(current) or self._is_half_way_from(current))):
            return current
        self.watchers.on_progress(Progress("building the index"))
        store, described = (self.store, self._describe()) if current else self._choose_whole_store()
        make_copies = partial(self._make_copies, store) if store == self.store else None
        fill = self.spread.fill_parts if self.spread else None
        return publish_store(self.folder, self.catalog, store, described, self.watchers.on_step, make_copies, fill)

    def _make_copies(self, store: int, titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of edited copies of some images, (E, D) float32, and (E,) the rows of these."""
        about, count = self.fleet.about, self.catalog.count_rows(store)
        chosen = self.catalog.list_hashes(store, random.Random(0).sample(range(count), min(COPIES, count)))
        with closing(ThumbnailReader(self.folder / THUMBNAILS)) as thumbnails:
            copies = edit_thumbnails({row: thumbnails.read(one) for row, one in chosen.items()}, titles)
            found = list(embed_copies(copies, about.preprocessing, self.fleet.embed, about.batch_size))
        nothing = np.empty((0, about.dimension), np.float32), np.empty(0, np.int64)
        return tuple(map(np.concatenate, zip(nothing, *found, strict=True)))

    def _choose_whole_store(self) -> tuple[int, dict]:
        """What to publish where nothing that answers can be opened: another model's rows, if ours are not all there."""
        for last in generations.read_newest_first(self.folder):
            store = self.catalog.find_store(last.manifest["fingerprint"])
            if store is not None:
                return (store, last.manifest) if self._is_half_way_from(last) else (self.store, self._describe())
        return self.store, self._describe()

    def _read_current(self) -> generations.Generation | None:
        try:
            return generations.open_generation(self.folder)
        except CollectionError as error:
            log.debug("there is no generation to go on from: %s", error)
            return None

    def _is_up_to_date(self, current: generations.Generation) -> bool:
        told = current.manifest
        return (told["store"], told["rows"]) == (self.store, self.writer.rows) and self._has_settings(told)

    def _has_settings(self, told: dict) -> bool:
        """Whether a manifest was made with the settings that readers see."""
        names = ("model", "max_megapixels", *DEMANDS)
        return all(told["settings"].get(name) == getattr(self.settings, name) for name in names)

    def _is_half_way_from(self, current: generations.Generation) -> bool:
        """Another model's generation answers until the new store has everything."""
        is_other = current.manifest["fingerprint"] != self.fleet.about.fingerprint
        return is_other and self.catalog.count_work(self.store) > 0

    def _count_searchable(self, generation: generations.Generation | None) -> int:
        return self.catalog.count_images(generation.manifest["store"], generation.manifest["rows"]) if generation else 0

    def _describe(self) -> dict:
        return {
            "dimension": self.fleet.about.dimension,
            "fingerprint": self.fleet.about.fingerprint,
            "model": self.fleet.about.described,
            "settings": self.settings.describe(),
            "weights": [*self.fleet.about.stamps, self.fleet.about.preprocessing.describe()],
        }
