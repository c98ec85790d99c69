"""Queries: one picture, a part of one, several with weights, or an image of the collection; and the vector they make.

    Query.of(picture_bytes)
    Query(Term(first), Term(second, weight=0.5), Term(7, weight=-1.0))      # image 7 of the collection, taken away

The vector is the weighted sum of the terms' embeddings, each of length 1, brought to length 1: similarities to it are
cosines like any other.

Rule: a query that has no direction is refused; nothing is searched with a vector that is not finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from indexer.errors import QueryError
from seer_model.pictures import Region

MOST_WEIGHT = 1e6
LEAST_LENGTH = 1e-3
"""Of a weighted sum, as a part of all weights together: below it the rounding of stored numbers would decide."""


@dataclass(frozen=True, eq=False)
class Term:
    """One part of a query.

    Raises: QueryError if the weight is 0 or no number to multiply with.
    """

    picture: bytes | int | np.ndarray
    """The bytes of a picture file; the number of an image of the collection; or an embedding, (D,) of any length."""
    weight: float = 1.0
    """How much it counts; below 0: answers shall be unlike it."""
    region: Region | None = None
    """The part of the picture that is meant; None: all of it."""
    name: str = ""
    """What it is called when it is refused."""

    def __post_init__(self) -> None:
        if not 0 < abs(self.weight) <= MOST_WEIGHT:
            raise QueryError(f"A weight is {self.weight}; allowed are numbers up to {MOST_WEIGHT:g} other than 0.")
        if self.region is not None and isinstance(self.picture, np.ndarray):
            raise QueryError("An embedding has no part that could be cut out; give the picture.")


class Query:
    """What to search with: one term or several. Raises: QueryError if there is none."""

    def __init__(self, *terms: Term) -> None:
        if not terms:
            raise QueryError("There is nothing to search with. Give a picture.")
        self.terms = terms

    @classmethod
    def of(cls, picture: bytes | int) -> Self:
        """One whole picture, or one image of the collection."""
        return cls(Term(picture))

    @property
    def is_plain(self) -> bool:
        """Whether it is one whole picture, so that identical content is the same and comes first."""
        (first, *more) = self.terms
        return not more and first.weight > 0 and first.region is None and not isinstance(first.picture, np.ndarray)

    @property
    def is_unlike_alone(self) -> bool:
        """Whether it only says what answers must not be like: it lies where no image is, and no index was measured."""
        return all(term.weight < 0 for term in self.terms)


def combine(embeddings: Sequence[np.ndarray], weights: Sequence[float], dimension: int) -> np.ndarray:
    """The weighted sum of embeddings of any length, each brought to length 1 first.

    Args:
        embeddings: each (D,).
        dimension: D.
    Returns: (D,) float32 of length 1.
    Raises: QueryError if one of them, or the sum, has another number of numbers, is not finite, or has no direction.
    """
    total = sum(weight * _normalise(one, dimension) for one, weight in zip(embeddings, weights, strict=True))
    length, possible = float(np.linalg.norm(total)), sum(map(abs, weights))
    if not length > LEAST_LENGTH * possible:
        raise QueryError(
            f"The pictures of this query cancel each other out: together they have length {length:.2g}, of "
            f"{possible:g} at most. Leave one of them out, or give them other weights."
        )
    return (total / length).astype(np.float32)


def _normalise(embedding: np.ndarray, dimension: int) -> np.ndarray:
    wide = np.asarray(embedding, dtype=np.float64)
    if wide.shape != (dimension,):
        raise QueryError(f"An embedding has the shape {wide.shape}; the collection's have {dimension} numbers each.")
    largest = abs(wide).max()
    if not 0 < largest < np.inf:
        raise QueryError("An embedding is zero or not finite, so nothing can be compared with it. Try another picture.")
    # By the largest first: the squares of numbers near the end of what a float holds would not be finite.
    wide = wide / largest
    return wide / np.linalg.norm(wide)
