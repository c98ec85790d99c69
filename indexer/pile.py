"""A pile of pictures to learn from, by number: sources are listed once, pictures decoded ahead by worker processes.

A source is known by what it is:
    a folder     its pictures, in the sorted order of `indexer.sources`. If it holds none at all: its .tar files
    a tar shard  its members that could be pictures, in the shard's order, whatever the file's suffix
    a text file  a list: one path per line, relative to the list's folder. Blank lines and lines that begin with "#" are
                 skipped ("./#1.jpg" names a file that begins so). A missing file is listed, and is a bad picture
Anything else - a compressed tar, a single picture - is refused. Sources come in the order given, so that a pile is the
same on every machine; what was met before is not counted again.

Rule: of a picture that is not asked for only its place is kept; of the pixels, no more than the workers are ahead.
"""

import fnmatch
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from indexer.decode import DecodeTask
from indexer.errors import SourceError
from indexer.fetching import fetch_ahead
from indexer.kinds import FOLDER, HOW_TO_GIVE, LIST, SHARD, read_list, recognise
from indexer.members import stat_file
from indexer.shards import Place, list_pictures, make_printable, read_place
from indexer.sources import Walk, list_named, require_listing
from indexer.urls import is_remote, make_absolute, resolve, spell
from indexer.workers import Limits, Workers
from seer_model.errors import PictureError, SettingsError
from seer_model.pictures import bound_memory, open_picture
from seer_model.squares import Square, squeeze

MAX_MEGAPIXELS = 200.0
CHUNK = 64
CHUNK_BYTES = 4 << 20
"""Of pixels: larger squares travel in smaller chunks."""
AHEAD_PER_WORKER = 3
MEASURED_AT_ONCE = 16
"""Files of a list: behind URLs each is a question."""

@dataclass(frozen=True, kw_only=True)
class SqueezeSettings:
    """What every worker needs to know.

    Raises: SettingsError if a value is out of range.
    """

    side_px: int
    """Side of the squares, in pixels."""
    max_megapixels: float = MAX_MEGAPIXELS
    """A larger picture is a bad one."""

    def __post_init__(self) -> None:
        if self.side_px < 1:
            raise SettingsError(f"side_px is {self.side_px}; it must be 1 or more.")
        if not self.max_megapixels > 0:
            raise SettingsError(f"max_megapixels is {self.max_megapixels}; it must be above 0.")

    @property
    def chunk(self) -> int:
        """How many pictures travel together between the processes."""
        return max(1, min(CHUNK, CHUNK_BYTES // (3 * self.side_px**2)))


@dataclass
class Listing:
    """What looking at the sources gave."""

    places: list[Place] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Sources of each kind (`folders`) and what they brought (`folder_pictures`)."""
    unreadable: list[str] = field(default_factory=list)
    """Files and folders below the sources that may not be looked at: nothing is known of what they hold."""
    fingerprint: str = ""


class Pile:
    """Pictures to learn from, by number."""

    fingerprint: str
    """BLAKE3 of names and sizes in order; names below their source, so that a pile moved as a whole keeps it."""
    reasons: dict[str, str]
    """Name -> reason, of the pictures that were bad so far."""
    unreadable: tuple[str, ...]
    """Files and folders below the sources that may not be looked at: nothing is known of what they hold."""

    def __init__(self, listing: Listing, how: SqueezeSettings, workers: int | None = None) -> None:
        self.fingerprint = listing.fingerprint
        self.reasons = {}
        self.unreadable = tuple(listing.unreadable)
        self._places, self._counts = listing.places, listing.counts
        self._bad: set[int] = set()
        self._pool = Workers(
            partial(squeeze_place, how=how),
            _give_up,
            preload=__name__,
            count=workers,
            chunk=how.chunk,
            ahead=AHEAD_PER_WORKER,
            limits=Limits(memory_bytes=bound_memory(how.max_megapixels)),
        )

    def __len__(self) -> int:
        return len(self._places)

    @property
    def starts(self) -> list[int]:
        """The number of the first picture of each file that holds some: of each shard, or each picture by itself."""
        paths = [place.path for place in self._places]
        return [number for number, path in enumerate(paths) if not number or path != paths[number - 1]]

    @property
    def is_remote(self) -> bool:
        """Whether some picture has no path on this computer: it is streamed, and best read shard by shard."""
        return any(is_remote(place.path) for place in self._places)

    def __enter__(self) -> "Pile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, numbers: Iterable[int]) -> Iterator[Square | None]:
        """The pictures with these numbers, in this order; None for one that cannot be read or decoded.

        `numbers` may be endless; it is read ahead of the squares by a bounded number.

        Raises: IndexError for a number outside 0..len-1; SourceError once every picture of the pile has been bad.
        """
        ahead: deque[int] = deque()
        places = self._place_each(numbers, ahead)
        for outcome in self._pool.map(_fetch_each(places) if self.is_remote else places):
            number = ahead.popleft()
            if isinstance(outcome, str):
                self._note_bad(number, outcome)
            yield outcome if isinstance(outcome, Square) else None

    def describe(self) -> dict[str, int]:
        """Counts for the log: pictures and their bytes, sources of each kind and what they brought, the bad so far."""
        by_kind = {key: self._counts[key] for kind in (FOLDER, SHARD, LIST) for key in (f"{kind}s", f"{kind}_pictures")}
        size_bytes = sum(place.size_bytes for place in self._places)
        failed = {"unreadable": len(self.unreadable), "bad": len(self._bad)}
        return {"pictures": len(self), "bytes": size_bytes, **by_kind, **failed}

    def close(self) -> None:
        """End the worker processes; a later read starts them again."""
        self._pool.close()

    def _place_each(self, numbers: Iterable[int], ahead: deque[int]) -> Iterator[Place]:
        for number in numbers:
            if not 0 <= number < len(self._places):
                raise IndexError(f"there is no picture {number} in a pile of {len(self._places)}")
            ahead.append(number)
            yield self._places[number]

    def _note_bad(self, number: int, reason: str) -> None:
        name = self._places[number].name
        self._bad.add(number)
        self.reasons[name] = reason
        if len(self._bad) == len(self._places):
            raise SourceError(f"None of the {len(self):,} pictures can be read. The last one is {name}: {reason}")


def open_pile(
    sources: Sequence[Path],
    *,
    side_px: int,
    workers: int | None = None,
    exclude: tuple[str, ...] = (),
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Pile:
    """List the pictures of folders, tar shards and file lists; nothing is decoded yet, and no process is started.

    Args:
        sources: what each may be is said at the top of this module.
        side_px: side of the squares, in pixels.
        workers: decoding processes; None: one for each core that this process may use.
        exclude: patterns (`*.gif`, `old/*`) of names, or of paths below a folder, in a shard or on a list.
    Raises: SourceError if a source is missing, cannot be read, is none of the kinds, or brings no picture.
    """
    how = SqueezeSettings(side_px=side_px, max_megapixels=max_megapixels)
    return Pile(list_sources(sources, exclude), how, workers)


def _fetch_each(places: Iterable[Place]) -> Iterator[DecodeTask]:
    """The same, those elsewhere with their bytes: many are fetched at once, where a worker would wait for each."""
    tasks = (
        DecodeTask(place.path, size_bytes=place.size_bytes, member=(None, place) if place.offset else None)
        for place in places
    )
    return fetch_ahead(tasks)


def squeeze_place(place: Place | DecodeTask, how: SqueezeSettings) -> Square | str:
    """In a worker: read, decode and squeeze one picture; of a bad one, what is wrong with it."""
    try:
        data = read_place(place) if isinstance(place, Place) else _take(place)
        picture = open_picture(data, max_megapixels=how.max_megapixels, short_side_px=2 * how.side_px)
        # The decoder may have shrunk the picture and rounded its sides: the aspect is the original's.
        return replace(squeeze(picture.pixels, how.side_px), aspect=picture.width / picture.height)
    except PictureError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one picture must not stop the run, whatever the decoder did.
        return f"The decoder failed with {type(error).__name__}: {error}."


def _take(task: DecodeTask) -> bytes:
    if task.reason is not None:
        raise PictureError(task.reason)
    if task.data is not None:
        return task.data
    return read_place(task.member[1] if task.member else Place(task.path, 0, task.size_bytes, task.path))


def _give_up(_: object, reason: str) -> str:
    return reason


# --- from sources to places --------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """A picture that a source brings."""

    kind: str
    key: tuple[str, int]
    """The same for the same bytes on the disk: the file with links resolved, and the offset."""
    below: str
    """The name below its source, the same wherever the source lies."""
    place: Place


def list_sources(sources: Sequence[Path], exclude: tuple[str, ...] = ()) -> Listing:
    """The places of all pictures, in order, each once.

    Raises: SourceError, see `open_pile`.
    """
    if not sources:
        raise SourceError(f"There is nothing to learn from. {HOW_TO_GIVE}")
    listing, seen, digest = Listing(), set(), blake3()
    for source in sources:
        is_empty = True
        for found in _look_into(Path(source), exclude, listing):
            is_empty = False
            if found.key not in seen:
                seen.add(found.key)
                listing.places.append(found.place)
                listing.counts[f"{found.kind}_pictures"] += 1
                digest.update(f"{found.below}\0{found.place.size_bytes}\n".encode("utf-8", "surrogatepass"))
        if is_empty:
            raise SourceError(_tell_nothing_was_found(source, exclude, listing))
    listing.fingerprint = digest.hexdigest()
    return listing


def _look_into(source: Path, exclude: tuple[str, ...], listing: Listing) -> Iterator[_Found]:
    kind = recognise(source)
    if is_remote(source):
        require_listing(source)
    listing.counts[f"{kind}s"] += 1
    if kind == FOLDER:
        return _look_into_folder(source, exclude, listing)
    return _leave_out(exclude, _look_into_shard(source) if kind == SHARD else _look_into_list(source))


def _look_into_folder(folder: Path, exclude: tuple[str, ...], listing: Listing) -> Iterator[_Found]:
    walk = Walk([resolve(folder)], exclude)
    holds_pictures = False
    for file in walk:
        holds_pictures = True
        below = _name_below(walk.folders[0], file.path)
        yield _Found(FOLDER, (file.path, 0), below, Place(file.path, 0, file.size_bytes, make_printable(file.path)))
    listing.unreadable += walk.unreadable
    for shard in [] if holds_pictures else walk.shards:
        listing.counts[f"{SHARD}s"] += 1
        yield from _leave_out(exclude, _look_into_shard(Path(shard)))


def _name_below(root: Path, path: str) -> str:
    return path[len(str(root)) + 1 :] if is_remote(root) else os.path.relpath(path, root).replace(os.sep, "/")


def _look_into_shard(path: Path) -> Iterator[_Found]:
    real, skipped = str(resolve(path)), len(make_printable(path.name)) + 1
    for place in list_pictures(make_absolute(path)):
        yield _Found(SHARD, (real, place.offset), place.name[skipped:], place)


def _look_into_list(path: Path) -> Iterator[_Found]:
    lines = list(read_list(path))
    files = list(list_named([path]))
    with ThreadPoolExecutor(MEASURED_AT_ONCE, thread_name_prefix="measuring") as threads:
        for line, file, size_bytes in zip(lines, files, threads.map(_measure, files), strict=True):
            yield _Found(LIST, (file, 0), line, Place(file, 0, size_bytes, make_printable(spell(file))))


def _measure(file: str) -> int:
    # 0 for what is not there: it is found bad when it is read, and its return makes another fingerprint.
    try:
        return stat_file(file).st_size
    except (OSError, PictureError):
        return 0


def _leave_out(exclude: tuple[str, ...], found: Iterable[_Found]) -> Iterator[_Found]:
    for one in found:
        names = one.below, one.below.rpartition("/")[2]
        if not any(fnmatch.fnmatch(name, pattern) for pattern in exclude for name in names):
            yield one


def _tell_nothing_was_found(source: Path, exclude: tuple[str, ...], listing: Listing) -> str:
    left_out = f" (leaving out {', '.join(exclude)})" if exclude else ""
    unreadable = f"; {len(listing.unreadable)} files and folders may not be read" if listing.unreadable else ""
    return f"There is no picture in {source}{left_out}{unreadable}. {HOW_TO_GIVE}"
