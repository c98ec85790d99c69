"""The door for browsing without a query: groups, what differs, what is odd, near-duplicates, the map.

    overview = Overview(collection)
    for group in overview.list_groups():
        group.size, group.images[0].path

What it shows was found by `seer survey`; a part that is not made yet is None or empty, and `read_state` says so. Images
that are gone or hidden are left out, also of the counts, as soon as they are.

Rule: read-only, may be shared by threads; each question is answered from one generation, looked up once, and what was
found is kept while nothing changes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from indexer.catalog_reader import ImageDetails
from indexer.collection import Collection
from indexer.duplicates import RowGroup, find_groups, list_pairs
from indexer.filters import Filter
from indexer.generations import Generation
from indexer.graph_folder import Links, read_sound
from indexer.graph_folder import read_stamp as read_graph_stamp
from indexer.sights import Grouping, arrange
from indexer.snapshot import Snapshot
from indexer.survey_folder import GROUPS, MAP, OUTLIERS, Part, read_part, read_stamp
from indexer.visible import VisibleCatalog
from indexer.words import WORDS, Words

Found = TypeVar("Found")
EVERYTHING = Filter()
MOST_POINTS = 200_000
"""Images of a map that are drawn, evenly chosen where there are more."""
KEPT_DUPLICATES, KEPT_GROUPS = 8, 50
"""Bounds whose near-duplicates are kept; groups whose parts are."""
Mode = Literal["same picture", "same subject"]
WITHOUT_WORDS = {"same picture": 0.9, "same subject": 0.75}
"""How similar near-duplicates are where no words were measured."""


@dataclass(frozen=True, kw_only=True)
class SurveyState:
    """What of a survey is there for the generation that answers."""

    has_groups: bool
    has_graph: bool
    has_outliers: bool
    map_by: str | None
    """How the map was made."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing but a better map is missing."""
        return self.has_groups and self.has_graph and self.has_outliers and self.map_by is not None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Look-alikes."""

    number: int
    """Large groups are numbered from 0, by size; so are the small ones in each."""
    size: int
    images: list[ImageDetails]
    """Some of them: the most typical one first, then those of its parts."""


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """An image that little is like."""

    image: ImageDetails
    likeness: float
    """Mean similarity to its own neighbours."""


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Near-duplicates about a medoid: every other one is as similar to it as was asked."""

    images: list[ImageDetails]
    """The medoid first, then the others, the most similar first."""
    similarities: list[float]
    """To the medoid; 1.0 for itself."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """A flat picture of the collection."""

    places: np.ndarray
    """(n, 2) float32 in [-1, 1]."""
    image_ids: np.ndarray
    """(n,) int64."""
    hashes: np.ndarray
    """(n, 32) uint8, their content hashes."""
    groups: np.ndarray
    """(n,) int32, the large group of each; -1 where there are no groups."""
    how: str


@dataclass(frozen=True, eq=False)
class _Here:
    """What one question is answered from, whatever is published or hidden while that lasts."""

    number: int
    """Another one, once anything here is another."""
    snapshot: Snapshot
    catalog: VisibleCatalog
    living: np.ndarray
    """(n,) ascending rows of images that are there."""
    is_living: np.ndarray
    """(N,) bool, the same."""

    @property
    def generation(self) -> Generation:
        return self.snapshot.generation

    def read_by_row(self, rows: np.ndarray) -> dict[int, ImageDetails]:
        """Images of these rows that still have a file."""
        image_ids = self.snapshot.image_ids[rows].tolist()
        details = self.catalog.read_images(image_ids)
        pairs = zip(rows.tolist(), image_ids, strict=True)
        return {row: details[image_id] for row, image_id in pairs if image_id in details}

    def read_images(self, rows: np.ndarray) -> list[ImageDetails]:
        images = self.read_by_row(rows)
        return [images[row] for row in rows.tolist() if row in images]


class _Kept:
    """The last few results of one kind. Each is found once, however many ask; who asks for another does not wait."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._slots: OrderedDict[Hashable, tuple[threading.Lock, list]] = OrderedDict()

    def find(self, key: Hashable, find: Callable[[], Found]) -> Found:
        with self._lock:
            lock, found = self._slots.setdefault(key, (threading.Lock(), []))
            self._slots.move_to_end(key)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with lock:
            if not found:
                found.append(find())
            return found[0]


class Overview:
    """Browses one open collection. Raises where anything is asked: CollectionEmpty, CollectionDamaged."""

    def __init__(self, collection: Collection) -> None:
        self._collection, self._lock = collection, threading.Lock()
        self._here: _Here | None = None
        self._parts, self._links = _Kept(3), _Kept(1)
        self._groupings, self._typical, self._maps = _Kept(1), _Kept(KEPT_GROUPS), _Kept(1)
        self._duplicates = _Kept(KEPT_DUPLICATES)

    def read_state(self) -> SurveyState:
        """What is there, its bytes compared."""
        here = self._look()
        parts = {name: self._read_part(here, name) for name in (GROUPS, OUTLIERS, MAP)}
        return SurveyState(
            has_groups=parts[GROUPS] is not None,
            has_graph=self._read_links(here) is not None,
            has_outliers=parts[OUTLIERS] is not None,
            map_by=parts[MAP] and parts[MAP].told["how"],
        )

    def read_words(self) -> Words | None:
        """The words for similarities; None if none were measured for this generation."""
        return _read_words(self._collection.open_snapshot())

    def list_groups(self, within: int | None = None) -> list[Group]:
        """All large groups, or the small ones within one of them, largest first; empty ones are left out."""
        here = self._look()
        found = self._list_typical(here, within)
        images = here.read_by_row(np.concatenate([np.empty(0, np.int64), *(rows for _, _, rows in found)]))
        return [
            Group(number=number, size=size, images=[images[row] for row in rows.tolist() if row in images])
            for number, size, rows in found
        ]

    def list_group(self, number: int, part: int | None = None, first: int = 0, count: int = 60) -> list[ImageDetails]:
        """The images of a large group, or of one of its parts, the most typical first."""
        here = self._look()
        return here.read_images(self._list_group(here, number, part)[first : first + count])

    def count_group(self, number: int, part: int | None = None) -> int:
        """How many there are."""
        return len(self._list_group(self._look(), number, part))

    def list_exemplars(self, count: int = 24, first: int = 0) -> list[ImageDetails]:
        """Images that differ from each other most."""
        here = self._look()
        found = self._read_part(here, GROUPS)
        if found is None:
            return []
        rows = found.arrays["exemplars"]
        return here.read_images(rows[here.is_living[rows]][first : first + count])

    def surprise(self, seed: int, count: int = 24) -> list[ImageDetails]:
        """Images drawn at random; equal seeds give equal images while nothing changes."""
        here = self._look()
        drawn = np.random.default_rng(seed).choice(here.living, min(count, len(here.living)), replace=False)
        return here.read_images(drawn)

    def list_outliers(self, count: int = 24, first: int = 0) -> list[Outlier]:
        """Images that little is like, the oddest first."""
        here = self._look()
        found = self._read_part(here, OUTLIERS)
        if found is None:
            return []
        chosen = np.flatnonzero(here.is_living[found.arrays["rows"]])[first : first + count]
        rows, likeness = found.arrays["rows"][chosen], found.arrays["likeness"][chosen].tolist()
        images = here.read_by_row(rows)
        pairs = zip(rows.tolist(), likeness, strict=True)
        return [Outlier(image=images[row], likeness=value) for row, value in pairs if row in images]

    def read_map(self) -> Map | None:
        """The map; None if none was made. The same object while nothing changes."""
        here = self._look()
        key = here.number, *(read_stamp(here.generation, name) for name in (MAP, GROUPS))
        return self._maps.find(key, lambda: self._read_map(here))

    def _read_map(self, here: _Here) -> Map | None:
        found, grouping = self._read_part(here, MAP), self._read_grouping(here)
        if found is None:
            return None
        chosen = np.flatnonzero(here.is_living[found.arrays["rows"]])
        chosen = chosen[:: max(1, -(-len(chosen) // MOST_POINTS))]
        rows, groups = found.arrays["rows"][chosen], np.full(here.snapshot.rows, -1, np.int32)
        if grouping is not None:
            groups[grouping.rows] = grouping.large
        return Map(
            places=found.arrays["places"][chosen],
            image_ids=here.snapshot.image_ids[rows],
            hashes=here.catalog.read_hashes(here.snapshot.number, rows),
            groups=groups[rows],
            how=found.told["how"],
        )

    def find_duplicates(
        self, mode: Mode = "same picture", at_least: float | None = None, first: int = 0, count: int | None = None
    ) -> list[DuplicateGroup]:
        """Near-duplicates, the largest groups first; without pairs that a person told apart.

        Args:
            at_least: how similar to its medoid each is, in the place of what the mode means here.
            first, count: of groups; None: all from there on.
        """
        here = self._look()
        groups = self._find_row_groups(here, mode, at_least)[first : None if count is None else first + count]
        rows = [row for one in groups for row in (one.medoid, *one.rows.tolist())]
        images = here.read_by_row(np.array(rows, dtype=np.int64))
        found = (_describe_duplicates(one, images) for one in groups)
        return [one for one in found if len(one.images) > 1]

    def count_duplicates(self, mode: Mode = "same picture", at_least: float | None = None) -> tuple[int, int]:
        """How many groups there are, and images in them."""
        groups = self._find_row_groups(self._look(), mode, at_least)
        return len(groups), sum(1 + len(one.rows) for one in groups)

    def find_bound(self, mode: Mode) -> float:
        """How similar near-duplicates of a mode are to their medoid."""
        return _choose_bound(mode, self.read_words())

    def _find_row_groups(self, here: _Here, mode: Mode, at_least: float | None) -> list[RowGroup]:
        links, apart = self._read_links(here), frozenset(self._collection.decisions.list_apart())
        if links is None:
            return []
        bound = _choose_bound(mode, _read_words(here.snapshot)) if at_least is None else at_least
        key = here.number, read_graph_stamp(here.generation), bound, apart
        return self._duplicates.find(key, lambda: self._group_rows(here, links, bound, apart))

    def _group_rows(self, here: _Here, links: Links, bound: float, apart: frozenset[frozenset[str]]) -> list[RowGroup]:
        pairs = list_pairs(*links, bound, here.is_living, self._find_rows(here, apart))
        return find_groups(pairs, here.snapshot.store.read_embeddings)

    def _find_rows(self, here: _Here, pairs: frozenset[frozenset[str]]) -> list[tuple[int, int]]:
        """The rows of pairs of content hashes, where both have one."""
        image_ids = {one: self._collection.find_image(one) for pair in pairs for one in pair}
        known = [image_id for image_id in image_ids.values() if image_id is not None]
        rows = np.flatnonzero(np.isin(here.snapshot.image_ids, known)).tolist()
        found = dict(zip(here.snapshot.image_ids[rows].tolist(), rows, strict=True))
        told = ([found.get(image_ids[one]) for one in pair] for pair in pairs)
        return [(one, other) for one, other in told if one is not None and other is not None]

    def _list_typical(self, here: _Here, within: int | None) -> list[tuple[int, int, np.ndarray]]:
        grouping = self._read_grouping(here)
        if grouping is None:
            return []
        key = here.number, read_stamp(here.generation, GROUPS), within
        return self._typical.find(key, lambda: grouping.list_typical(within))

    def _list_group(self, here: _Here, number: int, part: int | None) -> np.ndarray:
        grouping = self._read_grouping(here)
        return np.empty(0, np.int64) if grouping is None else grouping.list_group(number, part)

    def _read_grouping(self, here: _Here) -> Grouping | None:
        """Of the images that are there."""
        key = here.number, read_stamp(here.generation, GROUPS)
        return self._groupings.find(key, lambda: self._arrange(here))

    def _arrange(self, here: _Here) -> Grouping | None:
        found = self._read_part(here, GROUPS)
        if found is None:
            return None
        is_living = here.is_living[found.arrays["rows"]]
        rows, labels, cosines = (found.arrays[name][is_living] for name in ("rows", "labels", "cosines"))
        return arrange(rows, labels, found.arrays["above"], cosines)

    def _read_part(self, here: _Here, name: str) -> Part | None:
        key = here.generation.name, name, read_stamp(here.generation, name)
        return self._parts.find(key, lambda: read_part(here.generation, name))

    def _read_links(self, here: _Here) -> Links | None:
        key = here.generation.name, read_graph_stamp(here.generation)
        found = self._links.find(key, lambda: read_sound(here.generation))
        return found and found.links

    def _look(self) -> _Here:
        """The generation that answers, and what of it is there; once for each question."""
        snapshot, catalog = self._collection.open_snapshot(), self._collection.open_catalog()
        living = catalog.list_rows(snapshot.number, snapshot.rows, EVERYTHING)
        with self._lock:
            here = self._here
            if here is None or here.snapshot is not snapshot or not np.array_equal(here.living, living):
                is_living = np.zeros(snapshot.rows, dtype=bool)
                is_living[living] = True
                number = 0 if here is None else here.number + 1
                here = self._here = _Here(number, snapshot, catalog, living, is_living)
            return here


def _read_words(snapshot: Snapshot) -> Words | None:
    told = snapshot.generation.manifest.get(WORDS)
    return Words(**told) if told else None


def _choose_bound(mode: Mode, words: Words | None) -> float:
    if words is None or not words.is_telling:
        return WITHOUT_WORDS[mode]
    return words.same_picture if mode == "same picture" else words.same_scene


def _describe_duplicates(group: RowGroup, images: dict[int, ImageDetails]) -> DuplicateGroup:
    ranked = [(group.medoid, 1.0), *zip(group.rows.tolist(), group.similarities.tolist(), strict=True)]
    known = [(images[row], similarity) for row, similarity in ranked if row in images]
    return DuplicateGroup(images=[image for image, _ in known], similarities=[value for _, value in known])


def find_inside(found: Map, polygon: Sequence[tuple[float, float]]) -> np.ndarray:
    """(m,) int64: the images whose points lie in a polygon, given by its corners; even-odd where it crosses itself."""
    x, y = found.places[:, 0].astype(np.float64), found.places[:, 1].astype(np.float64)
    inside = np.zeros(len(x), dtype=bool)
    for (left, top), (right, bottom) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if top == bottom:
            continue  # A level side is crossed by no level ray.
        crosses = (top > y) != (bottom > y)
        inside ^= crosses & (x < left + (y - top) * (right - left) / (bottom - top))
    return found.image_ids[inside]


def choose_reference(images: Sequence[ImageDetails], rule: Literal["largest", "oldest"]) -> ImageDetails:
    """Which of near-duplicates to keep: the one with most pixels, then bytes; or the one that was changed first."""
    if rule == "oldest":
        return min(images, key=lambda one: (one.modified, -one.width * one.height))
    return max(images, key=lambda one: (one.width * one.height, one.size_bytes, -one.image_id))


def list_paths(images: Sequence[ImageDetails]) -> list[Path]:
    """All files of these images."""
    return [path for one in images for path in one.paths]
