"""Answers: the part of a ranking that was asked for, and the images that stand there.

Two ways lead to one. Without an upper bound the generation ranks as many rows as are wanted, and a lower bound cuts
them. With an upper bound, and to count, every row is compared with the query: thousands may lie above the first one
that is wanted.

Rule: a bound is compared with the same cosine that is shown; near a bound the stored row decides, by its checksum.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.catalog_reader import CatalogReader, ImageDetails
from indexer.errors import QueryError
from indexer.filters import Filter
from indexer.snapshot import ROUNDING, Snapshot, sort_rows

EVERYTHING = Filter()


class Aim(NamedTuple):
    """What is searched with: (D,) float32 of length 1, and the row that it was read from, if it was."""

    embedding: np.ndarray
    own_row: int | None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which part of a ranking. Raises: QueryError if there is no such part."""

    count: int = 10
    first: int = 0
    """How many of the nearest to pass over."""
    at_least: float | None = None
    """Leave out what is less similar than this cosine."""
    at_most: float | None = None
    where: Filter | None = None
    is_exact: bool = False
    """Compare with every row, however long that takes."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.first < 0:
            raise QueryError(f"count is {self.count} and first is {self.first}; allowed are 1 or more, and 0 or more.")
        for bound in (self.at_least, self.at_most):
            if bound is not None and not -1 <= bound <= 1:
                raise QueryError(f"A bound of the similarity is {bound}; allowed are -1 to 1.")
        if self.low > self.high:
            raise QueryError(f"The similarity is to be at least {self.low} and at most {self.high}. Swap the bounds.")

    @property
    def low(self) -> float:
        """The lower bound."""
        return -math.inf if self.at_least is None else self.at_least

    @property
    def high(self) -> float:
        """The upper bound."""
        return math.inf if self.at_most is None else self.at_most


@dataclass(frozen=True)
class Neighbour:
    """One answer. `rank` counts from 1; `similarity` is a cosine in [-1, 1]; `width`, `height` in pixels, upright."""

    rank: int
    image_id: int
    similarity: float
    paths: list[Path]
    content_hash: str
    width: int
    height: int
    is_same: bool
    """Its content is identical with the query's."""
    format: str
    size_bytes: int
    modified: datetime
    """When the first of its files was last changed, in local time."""

    @property
    def path(self) -> Path:
        """The first of its files."""
        return self.paths[0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Neighbours, best first, and how they were found."""

    neighbours: list[Neighbour]
    is_exact: bool
    """Whether the query was compared with every row that may be answered."""
    recall: float
    """The part of the nearest ten that this way of searching finds, as measured when the generation was made."""
    generation: str
    engine: str | None = None
    """What proposed the candidates where that was no index of ours, by name."""

    @property
    def way(self) -> str:
        """How they were found, for people: `searched approximately, recall 0.987`."""
        by = f" by {self.engine}" if self.engine else ""
        return "searched exactly" if self.is_exact else f"searched approximately{by}, recall {self.recall:.3f}"


def show_similarity(neighbour: Neighbour) -> str:
    """A similarity for people: 1.000 only for identical content, however near another one is."""
    return "1.000" if neighbour.is_same else f"{min(neighbour.similarity, 0.999):.3f}"


def find_answer(snapshot: Snapshot, catalog: CatalogReader, aim: Aim, wish: Wish) -> Answer:
    """Answer a query from one generation. Raises: QueryError if no image passes the filter; CollectionDamaged."""
    allowed = None if wish.where is None else list_allowed(snapshot, catalog, wish.where)
    if wish.at_most is None:
        ranked = _find_ranked(snapshot, catalog, aim, wish, allowed)
    else:
        ranked = _find_between(snapshot, catalog, aim, wish)
    ranked = ranked[wish.first : wish.first + wish.count]
    details = catalog.read_images([int(snapshot.image_ids[row]) for row, _ in ranked])
    is_exact = wish.is_exact or wish.at_most is not None or snapshot.is_answered_exactly(allowed)
    return Answer(
        neighbours=[
            _make_neighbour(rank, similarity, image, row == aim.own_row)
            for rank, (row, similarity) in enumerate(ranked, start=wish.first + 1)
            if (image := details.get(int(snapshot.image_ids[row]))) is not None
        ],
        is_exact=is_exact,
        recall=1.0 if is_exact else snapshot.read_recall(allowed),
        generation=snapshot.generation.name,
        engine=None if is_exact else snapshot.engine,
    )


def count_between(snapshot: Snapshot, catalog: CatalogReader, aim: Aim, wish: Wish) -> int:
    """How many images lie between the bounds, exactly. Raises: as `find_answer`."""
    return len(_list_between(snapshot, catalog, aim, wish)[0])


def list_allowed(snapshot: Snapshot, catalog: CatalogReader, where: Filter) -> np.ndarray:
    """(n,) int64, ascending: the rows that may be answered. Raises: QueryError if the filter leaves none."""
    allowed = catalog.list_rows(snapshot.number, snapshot.rows, where)
    if not len(allowed) and len(catalog.list_rows(snapshot.number, snapshot.rows, EVERYTHING)):
        alone = ((part, len(catalog.list_rows(snapshot.number, snapshot.rows, part))) for part in where.split())
        told = "; ".join(f"{part}: {count:,}" for part, count in alone)
        raise QueryError(f"No image passes the filter. By itself each part lets through: {told}. Widen or drop one.")
    return allowed


def _find_ranked(
    snapshot: Snapshot, catalog: CatalogReader, aim: Aim, wish: Wish, allowed: np.ndarray | None
) -> list[tuple[int, float]]:
    rows, similarities = snapshot.rank(
        *aim,
        wish.first + wish.count,
        catalog.list_living,
        allowed=allowed,
        where=wish.where,
        is_exact=wish.is_exact,
        list_living_rows=lambda: catalog.list_rows(snapshot.number, snapshot.rows, EVERYTHING),
    )
    # The image itself is never cut by a bound of 1 for rounding's sake.
    return [one for one in _pair(rows, similarities) if one[1] >= wish.low or one[0] == aim.own_row]


def _find_between(snapshot: Snapshot, catalog: CatalogReader, aim: Aim, wish: Wish) -> list[tuple[int, float]]:
    rows, cosines = _list_between(snapshot, catalog, aim, wish)
    wanted = wish.first + wish.count
    if len(rows) > wanted:
        # What is left out is clearly below all that is wanted, so that pages fit together.
        rows = rows[cosines >= -np.partition(-cosines, wanted - 1)[wanted - 1] - 2 * ROUNDING]
    return _pair(*sort_rows(rows, snapshot.store.compare(aim.embedding, rows), aim.own_row))


def _list_between(snapshot: Snapshot, catalog: CatalogReader, aim: Aim, wish: Wish) -> tuple[np.ndarray, np.ndarray]:
    """All rows between the bounds, ascending, and their cosines but for rounding; the query's own counts as 1."""
    rows = list_allowed(snapshot, catalog, wish.where or EVERYTHING)
    cosines = snapshot.compare_all(aim.embedding)[rows].astype(np.float64)
    unsure = np.minimum(abs(cosines - wish.low), abs(cosines - wish.high)) <= ROUNDING
    cosines[unsure] = snapshot.store.compare(aim.embedding, rows[unsure])
    cosines[rows == (-1 if aim.own_row is None else aim.own_row)] = 1.0
    inside = (cosines >= wish.low) & (cosines <= wish.high)
    return rows[inside], cosines[inside]


def _pair(rows: np.ndarray, similarities: np.ndarray) -> list[tuple[int, float]]:
    return list(zip(rows.tolist(), similarities.tolist(), strict=True))


def _make_neighbour(rank: int, similarity: float, image: ImageDetails, is_same: bool) -> Neighbour:
    return Neighbour(
        rank=rank,
        image_id=image.image_id,
        similarity=similarity,
        paths=image.paths,
        content_hash=image.content_hash,
        width=image.width,
        height=image.height,
        is_same=is_same,
        format=image.format,
        size_bytes=image.size_bytes,
        modified=image.modified,
    )
