"""The evaluation: how well a model finds a person's pictures, with their labels or without any.

    pictures -> read, edited (worker processes) -> embedded -> figures with intervals

With labels: pictures of one label should find each other. Without: each edited copy should find its original, among
all originals, and among them with distractors, pictures that only serve to be mistaken for it. Beside every figure
stands the reference: the same measured on 16 x 16 pixels instead of embeddings.

Rule: it writes nothing and stops for no picture: what cannot be read is left out, with its reason.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from indexer.decode import AHEAD_PER_WORKER, CHUNK
from indexer.edits import choose_edits
from indexer.errors import SourceError
from indexer.evaluation import (
    BY_MODEL,
    BY_PIXELS,
    LABELS_FROM_FOLDERS,
    Crowd,
    EvaluateSettings,
    Evaluation,
    Figure,
    LeftOut,
    SideRange,
)
from indexer.figures import NO_PROBES, can_probe, measure_chance, measure_copies, measure_labels
from indexer.gallery import EmbeddedPicture, ReadSettings, ReadTask, embed_pictures, lose_picture, read_picture
from indexer.labels import label_by_folder, read_labels
from indexer.pile import list_sources
from indexer.report import NO_EMBEDDING, Progress
from indexer.shards import Place, make_printable
from indexer.workers import Limits, Workers
from seer_model.errors import SettingsError
from seer_model.pictures import bound_memory

ORIGINALS_ONLY = "originals only"


def evaluate(
    pictures: Sequence[Path],
    settings: EvaluateSettings,
    *,
    labels: Path | str | None = None,
    distractors: Sequence[Path] = (),
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Measure a model on pictures.

    Args:
        pictures: folders, tar shards, or lists of files; may be empty where a CSV of labels names the files.
        labels: a CSV with the columns file and label; or "folders": the name of the folder that a picture lies in.
        distractors: as pictures; searched among, never searched with.
    Raises: SourceError, SettingsError, ModelError, CheckpointError, DeviceError.
    """
    if not (labels or settings.copies):
        raise SettingsError("Without labels and with --copies 0 there is nothing to measure. Give --labels, or copies.")
    if distractors and not settings.copies:
        raise SettingsError("Distractors are searched for copies only: with --copies 0, leave --distractors out.")
    if settings.distractor_sides and not distractors:
        raise SettingsError("--distractors-px is about distractors; name them with --distractors, or leave it out.")
    edits = tuple(edit.title for edit in choose_edits(settings.edits)) if settings.copies else ()
    places, labels_of = _list_pictures(pictures, labels)
    places = _draw(places, settings.limit, settings.seed)
    labels_of = [labels_of.get(place) for place in places] if labels else []
    if labels:
        _require_labels(labels_of, str(labels))
    others = list_sources(distractors).places if distractors and edits else []
    return _Evaluating(settings, edits, on_progress).run(places, labels_of, others)


def _list_pictures(pictures: Sequence[Path], labels: Path | str | None) -> tuple[list[Place], dict[Place, str]]:
    """The pictures to evaluate, and the labels of those that have one."""
    table = read_labels(Path(labels)) if labels and labels != LABELS_FROM_FOLDERS else {}
    if pictures:
        places = list_sources(pictures).places
    elif table:
        places = [_place_file(path) for path in table]
    else:
        raise SourceError("There is nothing to evaluate. Name folders of pictures, or a CSV of labels with --labels.")
    if labels == LABELS_FROM_FOLDERS:
        found = {place: label_by_folder(place) for place in places}
    else:
        found = {place: table.get(Path(os.path.realpath(place.path))) for place in places if place.offset == 0}
    return places, {place: label for place, label in found.items() if label}


def _place_file(path: Path) -> Place:
    return Place(str(path), 0, path.stat().st_size, make_printable(str(path)))


def _require_labels(labels: list[str | None], source: str) -> None:
    found = {label for label in labels if label}
    if not found:
        raise SourceError(f"None of the {len(labels):,} pictures has a label in {source}; paths are compared as files.")
    if len(found) == 1:
        raise SourceError(
            f"All labelled pictures have the label {found.pop()!r}; to tell labels apart there must be two or more. "
            "Leave --labels out to measure copies alone."
        )
    if len(found) == sum(label is not None for label in labels):
        raise SourceError(
            f"No label of {source} is on two pictures: none can be found by its label. "
            "Leave --labels out to measure copies alone."
        )


def _draw(places: list[Place], count: int | None, seed: int) -> list[Place]:
    """At most `count` of them by a seeded draw, in their order."""
    if count is None or count >= len(places):
        return places
    chosen = np.random.default_rng(seed).permutation(len(places))[:count]
    return [places[number] for number in sorted(chosen.tolist())]


class _Evaluating:
    """One evaluation while it runs; its methods stand in the order in which they run."""

    def __init__(
        self, settings: EvaluateSettings, edits: tuple[str, ...], on_progress: Callable[[Progress], None]
    ) -> None:
        self.settings, self.edits, self.on_progress = settings, edits, on_progress
        self.started = time.monotonic()
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []
        self.hashes: set[bytes] = set()
        self.same = self.passed_over = 0

    def run(self, places: list[Place], labels: list[str | None], others: list[Place]) -> Evaluation:
        """Embed the pictures, their copies and the distractors; measure."""
        self._open_backbone()
        self._embed_originals(places, labels)
        self._embed_distractors(others)
        self.on_progress(Progress("measuring"))
        crowds = [crowd for crowd, _ in self._form_crowds()]
        labelled = [label for label in self.labels if label]
        figures = [*self._measure_labels(), *self._measure_copies()]
        if not figures:
            raise SourceError(f"Nothing could be measured. {' '.join(self.notes)} {_tell_first(self.left_out)}")
        return Evaluation(
            model=self.backbone.describe(),
            pictures=len(self.hashes),
            edited=len(np.unique(self.right)),
            same=self.same,
            labelled=len(labelled),
            labels=len(set(labelled)),
            chance=measure_chance(labelled) if any(figure.crowd is None for figure in figures) else None,
            crowds=tuple(crowds if len(self.right) else ()),
            passed_over=self.passed_over,
            figures=tuple(figures),
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
            seconds=round(time.monotonic() - self.started, 3),
            settings=self.settings,
        )

    def _open_backbone(self) -> None:
        # Imported here: `seer --help` loads this module, and must not wait for torch.
        from indexer.embed import open_backbone

        self.on_progress(Progress("loading the model"))
        settings = self.settings
        self.backbone = open_backbone(settings.model, device=settings.device, batch_size=settings.batch_size)

    def _embed_originals(self, places: list[Place], labels: list[str | None]) -> None:
        edited = set(_draw(places, self.settings.copies, self.settings.seed)) if self.edits else set()
        tasks = [ReadTask(place, self.edits if place in edited else ()) for place in places]
        wanted = dict(zip(places, labels, strict=True)) if labels else {}
        originals, copies, self.labels = _Rows(), _Rows(), []
        right, titles = [], []
        for embedded in self._embed("embedding pictures", tasks):
            if not self._take_original(embedded):
                continue
            originals.append(embedded, np.array([True]))
            self.labels.append(wanted.get(embedded.picture.task.place))
            is_usable = self._find_usable_copies(embedded)
            copies.append(embedded, np.array([False, *is_usable]))
            right += [len(self.labels) - 1] * sum(is_usable)
            titles += [title for title, usable in zip(embedded.picture.task.edits, is_usable, strict=True) if usable]
        if not self.labels:
            raise SourceError(f"None of the {len(places):,} pictures could be embedded. {_tell_first(self.left_out)}")
        self.originals, self.copies = originals.stack(), copies.stack()
        self.right, self.titles = np.array(right, dtype=np.int64), np.array(titles, dtype=str)

    def _take_original(self, embedded: EmbeddedPicture) -> bool:
        picture = embedded.picture
        if picture.reason is None and not np.isfinite(embedded.by_model[0]).all():
            self._leave_out(picture.task.place.name, NO_EMBEDDING)
        elif picture.reason is not None:
            self._leave_out(picture.task.place.name, picture.reason)
        elif picture.content_hash in self.hashes:
            # Both would be as near to every copy: neither could be found.
            self.same += 1
        else:
            self.hashes.add(picture.content_hash)
            return True
        return False

    def _find_usable_copies(self, embedded: EmbeddedPicture) -> list[bool]:
        task = embedded.picture.task
        is_usable = np.isfinite(embedded.by_model[1:]).all(axis=1).tolist()
        for title, usable in zip(task.edits, is_usable, strict=True):
            if not usable:
                self._leave_out(f"{task.place.name} ({title})", NO_EMBEDDING)
        return is_usable

    def _embed_distractors(self, places: list[Place]) -> None:
        sides, rows, self.short_sides = self.settings.distractor_sides, _Rows(), []
        for embedded in self._embed("embedding distractors", [ReadTask(place) for place in places], sides):
            picture = embedded.picture
            if picture.reason is not None:
                self._leave_out(picture.task.place.name, picture.reason)
            elif not picture.views or picture.content_hash in self.hashes:
                self.passed_over += 1
            elif not np.isfinite(embedded.by_model).all():
                self._leave_out(picture.task.place.name, NO_EMBEDDING)
            else:
                rows.append(embedded, np.array([True]))
                self.short_sides.append(picture.short_side_px)
        self.distractors = rows.stack()

    def _embed(self, stage: str, tasks: list[ReadTask], sides: tuple[SideRange, ...] = ()) -> Iterator[EmbeddedPicture]:
        reading = ReadSettings(
            preprocessing=self.backbone.preprocessing,
            max_megapixels=self.settings.max_megapixels,
            seed=self.settings.seed,
            sides=sides,
        )
        failed_before = len(self.left_out)
        if tasks:
            self.on_progress(Progress(stage, 0, len(tasks)))
        work = partial(read_picture, settings=reading)
        pool = Workers(
            work,
            lose_picture,
            preload="indexer.gallery",
            count=self.settings.workers,
            chunk=CHUNK,
            ahead=AHEAD_PER_WORKER,
            limits=Limits(memory_bytes=bound_memory(self.settings.max_megapixels)),
        )
        with closing(pool) as workers:
            embedded = embed_pictures(self.backbone, workers.map(tasks), batch_size=self.settings.batch_size)
            for done, picture in enumerate(embedded, start=1):
                yield picture
                self.on_progress(Progress(stage, done, len(tasks), len(self.left_out) - failed_before))

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out.append(LeftOut(name, reason))

    def _form_crowds(self) -> Iterator[tuple[Crowd, np.ndarray]]:
        """What copies are searched in, each with which of the distractors belong to it, (M,) bool."""
        sides = np.array(self.short_sides, dtype=np.int64)
        yield Crowd(ORIGINALS_ONLY), np.zeros(len(sides), dtype=bool)
        wanted = self.settings.distractor_sides or ((SideRange(),) if len(sides) else ())
        for one in wanted:
            belongs = np.array([side in one for side in self.short_sides], dtype=bool)
            yield Crowd(f"with distractors of {one}", int(belongs.sum())), belongs

    def _measure_labels(self) -> Iterable[Figure]:
        chosen = [number for number, label in enumerate(self.labels) if label]
        labels = [self.labels[number] for number in chosen]
        if not 1 < len(set(labels)) < len(labels):
            if labels:
                self.notes.append("There are no figures with labels: too few of the labelled pictures could be read.")
            return
        if not can_probe():
            self.notes.append(NO_PROBES)
        for name, rows in self.originals.items():
            yield from measure_labels(name, rows[chosen], labels, seed=self.settings.seed)

    def _measure_copies(self) -> Iterable[Figure]:
        if not len(self.right):
            return
        for name, originals in self.originals.items():
            crowds = ((crowd, self.distractors[name][belongs]) for crowd, belongs in self._form_crowds())
            yield from measure_copies(
                name, self.copies[name], self.right, self.titles, originals, crowds, seed=self.settings.seed
            )


class _Rows:
    """Rows of both kinds while they are gathered."""

    def __init__(self) -> None:
        self._by_model: list[np.ndarray] = []
        self._by_pixels: list[np.ndarray] = []

    def append(self, embedded: EmbeddedPicture, chosen: np.ndarray) -> None:
        """Keep the views that are marked; a shorter mark is about the first views."""
        places = np.flatnonzero(chosen)
        self._by_model.append(embedded.by_model[places])
        self._by_pixels.append(embedded.by_pixels[places])

    def stack(self) -> dict[str, np.ndarray]:
        """(N, D) and (N, 768), by the name of the kind; (0, 0) each when there is none."""
        kinds = {BY_MODEL: self._by_model, BY_PIXELS: self._by_pixels}
        return {name: np.concatenate(rows) if rows else np.empty((0, 0), np.float32) for name, rows in kinds.items()}


def _tell_first(left_out: list[LeftOut]) -> str:
    return f"The first one is {left_out[0].name}: {left_out[0].reason}" if left_out else ""
