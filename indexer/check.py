"""The check: whether a collection is what it says it is, and what of that can be put right without the person.

    catalog      pages, indexes and references of SQLite            told: all else follows from it
    files        stamps, against the catalog                        seer build takes up what changed
    stores       every row, against its checksum                    repaired: those rows are embedded again
    generations  every byte, against the manifest's hashes          repaired: the index is made anew
    graphs       every byte, against their own checksums            repaired: removed; seer graph makes them anew
    thumbnails   there and a picture, for every living image        repaired: made anew from the originals
    sample       some originals, read and embedded again            told
    marks        every page and every mark                          repaired: what can be read goes into a new file

Rule: pictures are only read, and without `repair` nothing that was committed or published is changed.
"""

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from indexer import generations
from indexer.catalog_upkeep import UpkeepCatalog
from indexer.decode import DecodeSettings, DecodeTask, decode_file, hash_content, read_whole
from indexer.errors import CollectionDamaged, CollectionError, FingerprintMismatch, SourceError, explain_missing_folder
from indexer.graph_folder import find_graph_fault, remove_graph
from indexer.kinds import LIST, is_source, recognise
from indexer.layout import CATALOG, MARKS, STORES, THUMBNAILS, clamp_time, name_store
from indexer.marks_upkeep import examine_marks, name_aside, save_readable
from indexer.members import find_cause, stat_file
from indexer.originals import Absence, explain_absence
from indexer.publish import OnStep, publish_store
from indexer.remote import StoreSilent, give_up_sooner
from indexer.schema import tell_damage
from indexer.settings import BuildSettings
from indexer.sources import ASKED_AT_ONCE, Walk
from indexer.thumbnails import ThumbnailReader, ThumbnailWriter
from indexer.upkeep import open_for_upkeep, write_living
from indexer.urls import is_remote, spell
from indexer.vectors import Store, count_rows
from seer_model.errors import PictureError, UserError
from seer_model.pictures import DECODER_ERRORS, encode_thumbnail, open_picture

SAMPLE = 16
"""Images that are embedded again."""
CLOSE = 0.999
"""Cosine that an image's embedding must have with its stored row; another device or precision may round otherwise."""
THUMBNAIL_PX = BuildSettings().thumbnail_px
Stamp = tuple[int, int]
"""Of a file: size in bytes, mtime in nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as it should be."""

    part: str
    """marks, catalog, files, stores, generations, graphs, thumbnails or sample."""
    text: str
    is_repaired: bool = False


@dataclass(kw_only=True)
class CheckReport:
    """What was looked at, in numbers, and what was found."""

    files: int = 0
    rows: int = 0
    generations: int = 0
    thumbnails: int = 0
    sample: int = 0
    marks: int = 0
    waiting: int = 0
    """Files that the next build has to read: nothing is wrong with that."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is left to be put right."""
        return all(problem.is_repaired for problem in self.problems)

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer check --json` prints."""
        return {"schema_version": 1, "is_sound": self.is_sound, **asdict(self)}


def check_collection(
    collection: Path,
    *,
    repair: bool = False,
    sample: int = SAMPLE,
    device: str = "auto",
    on_step: OnStep = lambda name: None,
) -> CheckReport:
    """Look at everything; with `repair` put right what follows from the catalog and the pictures.

    Args:
        sample: how many images to embed again; 0: the model is not loaded.
        on_step: is told each step by name once it is done.
    Raises: CollectionBusy, CollectionUnwritable; CollectionDamaged where the catalog itself cannot be read.
    """
    with open_for_upkeep(collection, "seer check") as catalog:
        return _Check(collection, catalog, repair, device, on_step).run(sample)


class _Check:
    def __init__(self, collection: Path, catalog: UpkeepCatalog, repair: bool, device: str, on_step: OnStep) -> None:
        self.collection, self.catalog, self.repair = collection, catalog, repair
        self.device, self.on_step, self.found = device, on_step, CheckReport()

    def run(self, sample: int) -> CheckReport:
        self.found.problems.extend(self._check_marks())
        if faults := self.catalog.find_faults():
            text = str(tell_damage(self.collection / CATALOG, faults[0]))
            self.found.problems.append(Problem(part="catalog", text=text))
            return self.found  # Nothing that it says can be relied on.
        parts = self._check_files, self._check_stores, self._check_generations, self._check_graphs
        for part in (*parts, self._check_thumbnails):
            self.found.problems.extend(part())
            self.on_step(part.__name__.removeprefix("_check_"))
        if sample:
            self.found.problems.extend(self._check_sample(sample))
        # After the repairs: the rows that one gave up are embedded again by a build.
        self.found.waiting = self.catalog.count_work(self.catalog.find_latest_store() or 0)
        return self.found

    def _check_marks(self) -> Iterator[Problem]:
        path = self.collection / MARKS
        found = examine_marks(path)
        self.found.marks = found.readable
        if found.fault:
            rest = f"What could be read is in a new file; the damaged one is kept as {name_aside(path).name}."
            yield self._settle("marks", found.fault, partial(save_readable, path), rest)

    def _check_files(self) -> Iterator[Problem]:
        missing = changed = unread = 0
        away = [folder for folder in self.catalog.list_folders() if not is_source(folder)]
        for folder in away:
            yield Problem(part="files", text=explain_missing_folder(folder))
        far = [folder for folder in self.catalog.list_folders() if is_remote(folder) and recognise(folder) != LIST]
        walk = Walk(far)
        listed = {file.path: (file.size_bytes, file.mtime_ns) for file in walk}
        for folder in walk.unreadable:
            away.append(Path(folder))
            yield Problem(part="files", text=f"{spell(folder)} cannot be looked through at present.")
        for path, known, found in self._look_at_files(away, listed):
            store = Path(*Path(path).parts[:2])
            is_unread = isinstance(found, Exception)
            cause, absence = (find_cause(found), explain_absence(found)) if is_unread else (None, None)
            if isinstance(cause, StoreSilent) and store not in away:
                # Of the others there it would say the same, after as long a wait.
                away.append(store)
                yield Problem(part="files", text=f"{spell(store)} cannot be asked at present: {cause.strerror}.")
            missing += absence == Absence.GONE
            changed += absence == Absence.CHANGED or (absence is None and found != known)
            unread += absence == Absence.AWAY and store not in away
        told = (missing, "are not there any more. Run seer build."), (changed, "have changed. Run seer build.")
        for count, what in (*told, (unread, "cannot be read at present. See who may read them, and check again.")):
            if count:
                yield Problem(part="files", text=f"{count} of {self.found.files} files {what}")

    def _look_at_files(
        self, away: list[Path], listed: dict[str, Stamp]
    ) -> Iterator[tuple[str, Stamp, Stamp | Exception]]:
        """(path, stamp when it was read, stamp now or why there is none) of files that are not below what is away."""
        stamps = self.catalog.list_stamps()
        with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="checking") as threads:
            while page := list(islice(stamps, ASKED_AT_ONCE)):
                self.found.files += len(page)
                page = [one for one in page if not any(folder in Path(one[0]).parents for folder in away)]
                asked = [listed.get(path) or path for path, _, _ in page]
                # On a disk threads would cost more than they save.
                ask = threads.map if any(isinstance(one, str) and is_remote(one) for one in asked) else map
                for (path, *known), found in zip(page, ask(_read_stamp, asked), strict=True):
                    yield path, tuple(known), found

    def _check_stores(self) -> Iterator[Problem]:
        for store, dimension in self.catalog.list_stores():
            known = self.catalog.count_rows(store)
            place = self.collection / STORES / name_store(store)
            there = min(count_rows(place, dimension), known)
            self.found.rows += there
            bad = {*Store(place, dimension, there).list_damaged(np.arange(there)), *range(there, known)}
            if bad:
                text = f"{len(bad)} of {known} rows of {place} are lost or not what was written."
                mend = partial(self._drop_rows, store, dimension, bad)
                yield self._settle("stores", text, mend, "Run seer build: it embeds them again.")

    def _drop_rows(self, store: int, dimension: int, bad: set[int]) -> None:
        living = [(row, image) for row, image in self.catalog.list_living_rows(store) if row not in bad]
        write_living(self.collection, self.catalog, store, dimension, living, self.on_step)

    def _check_generations(self) -> Iterator[Problem]:
        names = generations.list_generations(self.collection)
        self.found.generations = len(names)
        damaged = [name for name in names if not self._is_whole(name)]
        try:
            current = generations.open_generation(self.collection)
            if current.name in damaged:  # with the stamps that it had when it was whole
                raise CollectionDamaged(f"generation {current.name} is not what was published.")
            self._open_store(current.manifest)
        except (CollectionError, OSError) as error:
            if self.catalog.count_files():
                wrong, _, _ = str(error).partition(" Run")  # What a build would do, this does.
                yield self._settle("generations", f"Nothing answers: {wrong}", self._publish_anew, "")
        else:
            store = self.catalog.find_store(current.manifest["fingerprint"])
            if store not in (None, current.manifest["store"]):
                text = f"Generation {current.name} stands on a store that another has taken the place of."
                mend = partial(publish_store, self.collection, self.catalog, store, current.manifest, self.on_step)
                yield self._settle("generations", text, mend, "")
        # Last: what the new one says of its model was read from them.
        for name in damaged:
            mend = partial(generations.remove_generation, self.collection, name)
            yield self._settle("generations", f"Generation {name} is not what was published.", mend, "")

    def _check_graphs(self) -> Iterator[Problem]:
        for generation in generations.read_newest_first(self.collection):
            if fault := find_graph_fault(generation):
                mend = partial(remove_graph, generation)
                yield self._settle("graphs", fault, mend, "Run seer graph: it is made anew.")

    def _is_whole(self, name: str) -> bool:
        try:
            generations.verify_whole(generations.read_generation(self.collection, name))
        except CollectionDamaged:
            return False
        return True

    def _open_store(self, manifest: dict) -> Store:
        place = self.collection / STORES / name_store(manifest["store"])
        return Store(place, manifest["dimension"], manifest["rows"])

    def _publish_anew(self) -> None:
        """On the newest manifest that can be read: what it says of the model holds for its store."""
        for generation in generations.read_newest_first(self.collection):
            store = self.catalog.find_store(generation.manifest["fingerprint"])
            if store is not None:
                publish_store(self.collection, self.catalog, store, generation.manifest, self.on_step)
                return
        raise CollectionDamaged("no manifest is left to go on from")

    def _check_thumbnails(self) -> Iterator[Problem]:
        living = self.catalog.list_living_sources()
        self.found.thumbnails = len(living)
        # Opened to write first: what a killed build has begun is rolled back, or nothing could be read.
        ThumbnailWriter(self.collection / THUMBNAILS).close()
        with closing(ThumbnailReader(self.collection / THUMBNAILS)) as reader:
            missing = {key: path for key, path in living.items() if not _is_picture(reader.read(key))}
        if missing:
            text = f"{len(missing)} of {len(living)} thumbnails are missing or damaged."
            yield self._settle("thumbnails", text, lambda: self._make_thumbnails(missing), "")

    def _make_thumbnails(self, missing: dict[bytes, str]) -> None:
        """From the originals, as far as they are there and what they were."""
        with closing(ThumbnailWriter(self.collection / THUMBNAILS)) as writer:
            for content_hash, path in missing.items():
                with suppress(OSError, PictureError):
                    data, _ = read_whole(path)
                    if hash_content(data) == content_hash:
                        picture = open_picture(data, short_side_px=THUMBNAIL_PX)
                        writer.write([(content_hash, encode_thumbnail(picture, side_px=THUMBNAIL_PX))])

    def _check_sample(self, count: int) -> Iterator[Problem]:
        try:
            manifest = generations.open_generation(self.collection).manifest
            store = self._open_store(manifest)
        except CollectionError:
            return  # told above
        try:
            self._open_backbone(manifest)
        except UserError as error:
            yield Problem(part="sample", text=f"Nothing was embedded again: {error}")
            return
        known = self.catalog.list_sources(manifest["store"], manifest["rows"])
        chosen = random.Random(0).sample(known, min(count, len(known)))
        self.found.sample = len(chosen)
        for path, content_hash, row in chosen:
            if reason := self._compare_anew(manifest, store, path, content_hash, row):
                yield Problem(part="sample", text=f"{spell(path)} {reason}")

    def _compare_anew(self, manifest: dict, store: Store, path: str, content_hash: bytes, row: int) -> str | None:
        from indexer.embed import embed_batch

        told = manifest["settings"]
        how = DecodeSettings(
            preprocessing=self.backbone.preprocessing,
            max_megapixels=told["max_megapixels"],
            thumbnail_px=told["thumbnail_px"],
        )
        with give_up_sooner():
            decoded = decode_file(DecodeTask(path), how)
        if decoded.pixels is None:
            return f"cannot be read any more: {decoded.reason}"
        if decoded.content_hash != content_hash:
            return "has other bytes than the catalog knows. Run seer build (and touch it, if its time is the old one)."
        rows, usable = embed_batch(self.backbone, [decoded.pixels])
        if not usable[0]:
            return "has no finite embedding any more."
        with suppress(CollectionDamaged):  # Told above, of all rows.
            cosine = float(rows[0] @ store.read_embedding(row))
            if cosine < CLOSE:
                return f"is embedded otherwise now: its cosine with the stored row is {cosine:.4f}."
        return None

    def _open_backbone(self, manifest: dict) -> None:
        from indexer.embed import open_backbone

        self.backbone = open_backbone(manifest["settings"]["model"], device=self.device, batch_size=1)
        if self.backbone.fingerprint != manifest["fingerprint"]:
            raise FingerprintMismatch(
                f"{self.backbone.model} is not the model that this generation was made with. Run seer build."
            )

    def _settle(self, part: str, text: str, mend: Callable[[], None], rest: str) -> Problem:
        """A problem that can be put right: it is, or the person is told how."""
        if not self.repair:
            return Problem(part=part, text=f"{text} Run seer check --repair.")
        try:
            mend()
        except UserError as error:  # also without FAISS
            return Problem(part=part, text=f"{text} It could not be repaired: {error}")
        return Problem(part=part, text=f"{text} Repaired. {rest}".rstrip(), is_repaired=True)


def _read_stamp(file: Stamp | str) -> Stamp | Exception:
    if isinstance(file, tuple):
        return file
    try:
        status = stat_file(file)
    except (OSError, PictureError, SourceError) as error:
        return error
    return status.st_size, clamp_time(status.st_mtime_ns)


def _is_picture(webp: bytes | None) -> bool:
    if webp is None:
        return False
    try:
        with Image.open(io.BytesIO(webp), formats=("WEBP",)) as picture:
            picture.load()
        return True
    except DECODER_ERRORS:
        return False
