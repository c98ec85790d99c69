"""The door for browsing without a query: groups, what differs, what is odd, near-duplicates, the map.

    overview = Overview(collection)
    for group in overview.list_groups():
        group.size, group.images[0].path

What it shows was found by `seer survey`; a part that is not made yet is None or empty, and `read_state` says so. Images
that are gone or hidden are left out, also of the counts, as soon as they are.

Rule: read-only, may be shared by threads; what was read of a generation is kept until another one answers.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.catalog_reader import ImageDetails
from indexer.collection import Collection
from indexer.duplicates import RowGroup, find_groups, list_pairs
from indexer.filters import Filter
from indexer.graph_folder import Links, read_graph
from indexer.snapshot import Snapshot
from indexer.survey_folder import GROUPS, MAP, OUTLIERS, list_parts, read_part
from indexer.words import WORDS, Words

EVERYTHING = Filter()
PREVIEWS, MOST_POINTS = 4, 200_000
"""Images of a group that stand for it; of a map that are drawn, evenly chosen where there are more."""
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


@dataclass(frozen=True)
class _Grouping:
    """Images with their groups, (n,) each, and the rows of exemplars."""

    rows: np.ndarray
    small: np.ndarray
    large: np.ndarray
    cosines: np.ndarray
    exemplars: np.ndarray

    def choose(self, mask: np.ndarray) -> "_Grouping":
        """Some of the images."""
        return _Grouping(self.rows[mask], self.small[mask], self.large[mask], self.cosines[mask], self.exemplars)


class Overview:
    """Browses one open collection. Raises where anything is asked: CollectionEmpty, CollectionDamaged."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[object, object]] = {}

    def read_state(self) -> SurveyState:
        """What is there, its bytes compared."""
        parts = {name: self._read_part(name) for name in (GROUPS, OUTLIERS, MAP)}
        told = list_parts(self._collection.open_snapshot().generation)
        return SurveyState(
            has_groups=parts[GROUPS] is not None,
            has_graph=self._read_links() is not None,
            has_outliers=parts[OUTLIERS] is not None,
            map_by=told[MAP]["how"] if parts[MAP] is not None else None,
        )

    def read_words(self) -> Words | None:
        """The words for similarities; None if none were measured for this generation."""
        told = self._collection.open_snapshot().generation.manifest.get(WORDS)
        return Words(**told) if told else None

    def list_groups(self, within: int | None = None) -> list[Group]:
        """All large groups, or the small ones within one of them, largest first; empty ones are left out."""
        found = self._read_grouping()
        if found is None:
            return []
        if within is None:
            return self._describe_groups(found, found.large, found.small)
        part = found.choose(found.large == within)
        numbers = _renumber(part.small)
        return self._describe_groups(part, numbers, numbers)

    def list_group(self, number: int, part: int | None = None, first: int = 0, count: int = 60) -> list[ImageDetails]:
        """The images of a large group, or of one of its parts, the most typical first."""
        return self._read_images(self._list_group(number, part)[first : first + count])

    def count_group(self, number: int, part: int | None = None) -> int:
        """How many there are."""
        return len(self._list_group(number, part))

    def list_exemplars(self, count: int = 24, first: int = 0) -> list[ImageDetails]:
        """Images that differ from each other most."""
        found = self._read_grouping()
        return [] if found is None else self._read_images(self._keep_living(found.exemplars)[first : first + count])

    def surprise(self, seed: int, count: int = 24) -> list[ImageDetails]:
        """Images drawn at random; equal seeds give equal images while nothing changes."""
        living = self._list_living()
        drawn = np.random.default_rng(seed).choice(living, min(count, len(living)), replace=False)
        return self._read_images(drawn)

    def list_outliers(self, count: int = 24, first: int = 0) -> list[Outlier]:
        """Images that little is like, the oddest first."""
        found = self._read_part(OUTLIERS)
        if found is None:
            return []
        is_living = np.isin(found["rows"], self._list_living())
        rows, likeness = (found[name][is_living][first : first + count] for name in ("rows", "likeness"))
        images = self._read_by_row(rows)
        return [
            Outlier(image=images[row], likeness=float(value))
            for row, value in zip(rows.tolist(), likeness, strict=True)
            if row in images
        ]

    def read_map(self) -> Map | None:
        """The map; None if none was made."""
        snapshot, found = self._collection.open_snapshot(), self._read_part(MAP)
        if found is None:
            return None
        chosen = np.flatnonzero(np.isin(found["rows"], self._list_living(), assume_unique=True))
        chosen = chosen[:: max(1, -(-len(chosen) // MOST_POINTS))]
        rows = found["rows"][chosen]
        groups, grouping = np.full(snapshot.rows, -1, np.int32), self._read_grouping()
        if grouping is not None:
            groups[grouping.rows] = grouping.large
        how = list_parts(snapshot.generation)[MAP]["how"]
        return Map(
            places=found["places"][chosen],
            image_ids=snapshot.image_ids[rows],
            hashes=self._collection.open_catalog().read_hashes(snapshot.number, snapshot.rows)[rows],
            groups=groups[rows],
            how=how,
        )

    def find_duplicates(
        self, mode: Mode = "same picture", at_least: float | None = None, first: int = 0, count: int | None = None
    ) -> list[DuplicateGroup]:
        """Near-duplicates, the largest groups first; without pairs that a person told apart.

        Args:
            at_least: how similar to its medoid each is, in the place of what the mode means here.
            first, count: of groups; None: all from there on.
        """
        groups = self._find_row_groups(self.find_bound(mode) if at_least is None else at_least)
        groups = groups[first : None if count is None else first + count]
        images = self._read_by_row(np.array([row for one in groups for row in (one.medoid, *one.rows)], dtype=np.int64))
        found = (self._describe_duplicates(one, images) for one in groups)
        return [one for one in found if len(one.images) > 1]

    def count_duplicates(self, mode: Mode = "same picture", at_least: float | None = None) -> tuple[int, int]:
        """How many groups there are, and images in them."""
        groups = self._find_row_groups(self.find_bound(mode) if at_least is None else at_least)
        return len(groups), sum(1 + len(one.rows) for one in groups)

    def find_bound(self, mode: Mode) -> float:
        """How similar near-duplicates of a mode are to their medoid."""
        words = self.read_words()
        if words is None or not words.is_telling:
            return WITHOUT_WORDS[mode]
        return words.same_picture if mode == "same picture" else words.same_scene

    def _find_row_groups(self, at_least: float) -> list[RowGroup]:
        links, living = self._read_links(), self._list_living()
        if links is None:
            return []
        apart, generation = self._collection.decisions.list_apart(), self._collection.open_snapshot().generation.name
        key = generation, at_least, apart, living.tobytes()
        return self._keep("duplicates", key, lambda: self._group_rows(links, living, at_least, apart))

    def _group_rows(
        self, links: Links, living: np.ndarray, at_least: float, pairs: set[frozenset[str]]
    ) -> list[RowGroup]:
        mask = np.zeros(len(links.neighbours), dtype=bool)
        mask[living] = True
        rows = [tuple(map(self._find_row, pair)) for pair in pairs]
        apart = [(one, other) for one, other in rows if one is not None and other is not None]
        return find_groups(list_pairs(links.neighbours, links.similarities, at_least, mask, apart), apart)

    def _describe_duplicates(self, group: RowGroup, images: dict[int, ImageDetails]) -> DuplicateGroup:
        ranked = [(group.medoid, 1.0), *zip(group.rows.tolist(), group.similarities.tolist(), strict=True)]
        known = [(images[row], similarity) for row, similarity in ranked if row in images]
        return DuplicateGroup(images=[image for image, _ in known], similarities=[value for _, value in known])

    def _find_row(self, content_hash: str) -> int | None:
        image_id = self._collection.find_image(content_hash)
        found = None if image_id is None else np.flatnonzero(self._collection.open_snapshot().image_ids == image_id)
        return int(found[0]) if found is not None and len(found) else None

    def _describe_groups(self, found: _Grouping, numbers: np.ndarray, parts: np.ndarray) -> list[Group]:
        """One for each number that there is."""
        sizes = np.bincount(numbers)
        chosen = {number: _pick_typical(found, numbers == number, parts) for number in np.flatnonzero(sizes).tolist()}
        return [
            Group(number=number, size=int(sizes[number]), images=self._read_images(rows))
            for number, rows in sorted(chosen.items(), key=lambda one: -sizes[one[0]])
        ]

    def _list_group(self, number: int, part: int | None) -> np.ndarray:
        found = self._read_grouping()
        if found is None:
            return np.empty(0, np.int64)
        mask = found.large == number
        if part is not None:
            mask[mask] = _renumber(found.small[mask]) == part
        return found.rows[mask][np.argsort(-found.cosines[mask], kind="stable")]

    def _read_grouping(self) -> _Grouping | None:
        """Of the images that are there."""
        found = self._read_part(GROUPS)
        if found is None:
            return None
        is_living = np.isin(found["rows"], self._list_living(), assume_unique=True)
        small = found["labels"][is_living]
        return _Grouping(
            found["rows"][is_living], small, found["above"][small], found["cosines"][is_living], found["exemplars"]
        )

    def _read_part(self, name: str) -> dict[str, np.ndarray] | None:
        generation = self._collection.open_snapshot().generation
        key = [generation.name, list_parts(generation).get(name)]
        part = self._keep(name, key, lambda: read_part(generation, name))
        return part and part.arrays

    def _read_links(self) -> Links | None:
        generation = self._collection.open_snapshot().generation
        graph = generation.folder / "graph" / "graph.json"
        stamp = graph.stat().st_mtime_ns if graph.exists() else None
        found = self._keep("graph", [generation.name, stamp], lambda: read_graph(generation))
        return found and found.links

    def _keep(self, name: str, key: object, read: Callable[[], object]) -> object:
        with self._lock:
            if name not in self._kept or self._kept[name][0] != key:
                self._kept[name] = key, read()
            return self._kept[name][1]

    def _list_living(self) -> np.ndarray:
        snapshot = self._collection.open_snapshot()
        return self._collection.open_catalog().list_rows(snapshot.number, snapshot.rows, EVERYTHING)

    def _keep_living(self, rows: np.ndarray) -> np.ndarray:
        return rows[np.isin(rows, self._list_living())]

    def _read_images(self, rows: np.ndarray) -> list[ImageDetails]:
        images = self._read_by_row(rows)
        return [images[row] for row in rows.tolist() if row in images]

    def _read_by_row(self, rows: np.ndarray) -> dict[int, ImageDetails]:
        snapshot: Snapshot = self._collection.open_snapshot()
        image_ids = snapshot.image_ids[rows].tolist()
        details = self._collection.open_catalog().read_images(image_ids)
        pairs = zip(rows.tolist(), image_ids, strict=True)
        return {row: details[image_id] for row, image_id in pairs if image_id in details}


def _renumber(small: np.ndarray) -> np.ndarray:
    """Numbers from 0 in their order: small groups are numbered by size over the whole collection."""
    return np.unique(small, return_inverse=True)[1]


def _pick_typical(found: _Grouping, mask: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The most typical row of a group, and those of its largest parts."""
    rows, cosines, parts = found.rows[mask], found.cosines[mask], parts[mask]
    order = np.argsort(-cosines, kind="stable")
    first_of_part = np.unique(parts[order], return_index=True)[1]
    ranked = np.concatenate([np.sort(first_of_part), np.arange(len(order))])
    _, kept = np.unique(ranked, return_index=True)
    return rows[order][ranked[np.sort(kept)]][:PREVIEWS]


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
