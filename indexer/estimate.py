"""Before the wait: how long a build will take and what it will need, from a try of some of its pictures.

The try is a build itself, of links to files drawn at random, into a collection that is deleted again; so every stage
takes part in it, at its speed on this machine.

Rule: the collection in question is only read, and need not be there.
"""

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from indexer.catalog_reader import CatalogReader
from indexer.catalog_upkeep import UpkeepCatalog
from indexer.errors import CollectionEmpty, CollectionMissing, SourceError
from indexer.job import build_collection
from indexer.layout import CATALOG, THUMBNAILS
from indexer.recipes import MOST_ROW_BYTES
from indexer.report import Progress, Watchers
from indexer.settings import LOCAL, BuildSettings
from indexer.sources import Walk, resolve_folders
from indexer.vectors import measure_row
from seer_model.errors import SettingsError
from seer_model.zoo import DEFAULT_MODEL, complete_reference

TRIED = 256
TRYING_SECONDS = 20.0
"""After which the try ends with the batch in hand."""
CATALOG_BYTES = 600
"""Of a file and its image, with their indexes: 540 were measured."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a build would have to do, and what it would take."""

    found: int
    """Files; so are the next three."""
    waiting: int
    """To be read: new, changed, or known to another model only."""
    tried: int
    failed: int
    """Of those tried."""
    images_per_second: float
    seconds: float
    disk_bytes: int
    free_bytes: int
    memory_bytes: int | None
    """Of all processes together, as far as the system tells; pages that they share count for each."""
    limit: str | None
    """What it will mostly wait for."""

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer build --estimate --json` prints."""
        return {"schema_version": 1, **asdict(self)}


class _Course:
    """How a try goes: when it was how far."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self.moments: list[tuple[float, Progress]] = []
        self.memory_bytes = 0

    def note(self, progress: Progress) -> None:
        """As a build's `on_progress`."""
        if progress.stage == "embedding":
            self.moments.append((time.perf_counter(), progress))
            self.memory_bytes = max(self.memory_bytes, read_memory())
            self._on_progress(replace(progress, stage="trying"))

    def should_stop(self) -> bool:
        """As a build asks."""
        return bool(self.moments) and time.perf_counter() - self.moments[0][0] > TRYING_SECONDS

    @property
    def last(self) -> Progress:
        """How far it came."""
        return self.moments[-1][1] if self.moments else Progress("embedding")

    def compute_rate(self) -> float:
        """Files/s, without the first batch where there are several: that one pays for what is done once."""
        if len(self.moments) < 2:
            return 0.0
        (began, first), (ended, last) = self.moments[min(1, len(self.moments) - 2)], self.moments[-1]
        return (last.done - first.done) / (ended - began)


def estimate_build(
    place: Path, pictures: list[Path], settings: BuildSettings, on_progress: Callable[[Progress], None]
) -> Estimate:
    """Say what `build_collection` with the same arguments would take. Raises: as that does, before it embeds."""
    if settings.engine != LOCAL:
        raise SettingsError("--estimate tries a build on this computer and tells nothing of a cluster; give one alone.")
    settings = replace(settings, model=_choose_model(place, settings.model))
    found, waiting, drawn = _draw(place, pictures, settings)
    if settings.limit is not None:
        waiting = min(waiting, settings.limit)
    course = _Course(on_progress)
    with tempfile.TemporaryDirectory(prefix="seer-estimate-") as folder:
        image_bytes = _try(Path(folder), drawn, settings, course) if drawn else 0.0
    rate = course.compute_rate()
    return Estimate(
        found=found,
        waiting=waiting,
        tried=course.last.done,
        failed=course.last.failed,
        images_per_second=round(rate, 2),
        seconds=round(waiting / rate if rate else 0.0, 1),
        disk_bytes=round(waiting * image_bytes),
        free_bytes=_measure_free(place),
        memory_bytes=course.memory_bytes or None,
        limit=course.last.limit,
    )


def _choose_model(place: Path, asked: str | None) -> str:
    """As the build would: what is asked for, else the collection's own."""
    own = None
    with suppress(CollectionMissing, CollectionEmpty), closing(CatalogReader(place / CATALOG)) as catalog:
        own = catalog.read_model()
    return complete_reference(asked or own or DEFAULT_MODEL)


def _measure_free(place: Path) -> int:
    """On the disk where the collection is, or is to be."""
    absolute = place.absolute()
    return shutil.disk_usage(next(above for above in (absolute, *absolute.parents) if above.exists())).free


def _draw(place: Path, pictures: list[Path], settings: BuildSettings) -> tuple[int, int, list[str]]:
    """How many files there are, how many of them wait, and some of these, drawn at random."""
    folders, exclude, known = resolve_folders(pictures), tuple(filter(None, settings.exclude)), {}
    with suppress(CollectionMissing, CollectionEmpty), closing(CatalogReader(place / CATALOG)) as catalog:
        folders = resolve_folders([*folders, *catalog.list_folders()])
        exclude = exclude if settings.exclude else tuple(catalog.list_excluded())
        known = catalog.read_stamps(settings.model, is_failed_known=not settings.retry_failed)
    if not folders:
        raise SourceError(f"{place} has no picture folders yet. Name them: seer build PICTURES")
    found = waiting = 0
    drawn, dice = [], random.Random(0)
    for file in Walk(folders, exclude, own=os.path.realpath(place)):
        found += 1
        if known.get(os.fsencode(file.path)) == (file.size_bytes, file.mtime_ns):
            continue
        waiting += 1
        if len(drawn) < TRIED:
            drawn.append(file.path)
        elif (at := dice.randrange(waiting)) < TRIED:
            drawn[at] = file.path
    return found, waiting, drawn


def _try(folder: Path, drawn: list[str], settings: BuildSettings, course: _Course) -> float:
    """Build a collection of these files and forget it. Returns: bytes on the disk for each image."""
    listed, trial = folder / "pictures.txt", folder / "collection"
    # Those that a list can name: a line for each.
    named = [path for path in drawn if path == path.strip() and path.isprintable()]
    listed.write_text("".join(f"{path}\n" for path in named), encoding="utf-8")
    watchers = Watchers(on_progress=course.note, should_stop=course.should_stop)
    alone = replace(settings, exclude=(), limit=None, retry_failed=False, accept_removals=False)
    build_collection(trial, [listed], alone, watchers)
    with closing(UpkeepCatalog(trial / CATALOG)) as catalog:
        ((store, dimension),) = catalog.list_stores()
        images = max(1, catalog.count_rows(store))
    thumbnails = (trial / THUMBNAILS).stat().st_size / images
    return measure_row(dimension) + MOST_ROW_BYTES + thumbnails + CATALOG_BYTES


def read_memory() -> int:
    """Bytes of memory that this process and its children have now; 0 where the system does not tell."""
    return sum(map(_read_resident, [os.getpid(), *(child.pid for child in multiprocessing.active_children())]))


def _read_resident(process: int) -> int:
    return next((size for name, size in _list_sizes(process) if name == "VmRSS"), 0)


def _list_sizes(process: int) -> Iterator[tuple[str, int]]:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            yield name, int(value.split()[0]) << 10
