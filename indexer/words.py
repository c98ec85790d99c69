"""Words for similarities, calibrated on a collection's own images: what 0.62 means depends on model and pictures.

    same picture   as similar as 95 of 100 mild edits of its images are to their originals
    same scene     more similar than nine of ten of its nearest neighbours that are not the same picture
    same kind      more similar than half of them
    weak           anything less

Half of the edited copies choose the bound, the other half tell what share of copies it finds; random pairs tell how
many others it takes for copies. Where the bound does not keep these apart - the model was not trained, or sees only
grey - there are no words.

Rule: what is told of the words was measured on copies that chose nothing.
"""

from dataclasses import asdict, dataclass

import numpy as np

from indexer.vectors import Store

WORDS = "words"
"""What a manifest calls them."""
MILD = ("crop 80 %", "JPEG 60", "rotate 5 deg", "flip mirrored", "colour mild")
"""Edits after which a person speaks of the same picture."""
ASKED, NEIGHBOURS, PAIRS = 256, 10, 4096
"""Rows whose nearest are looked at, how many of them, and pairs drawn at random."""
COPIES_FOUND, SCENE, KIND = 0.04, 0.9, 0.5
"""Share of the copies that may fall below the bound that they choose; quantiles of neighbours."""
MOST_OTHERS = 0.01
"""Of pairs drawn at random that may be taken for the same picture."""
FEW = 10
"""An image may have so many copies in its collection before it counts as taking others for copies."""
LEAST_COPIES = 16
"""Fewer choose nothing."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """The bounds, lowest cosine of each word, and what they were found worth."""

    same_picture: float
    same_scene: float
    same_kind: float
    copies_found: float
    """Share of edited copies that are told as the same picture."""
    others_found: float
    """Share of random pairs that are, too."""
    rows: int
    """Of the collection when these were measured."""

    def name(self, similarity: float) -> str | None:
        """The word for a similarity; None where words would mislead."""
        if not self.is_telling:
            return None
        for word in ("same_picture", "same_scene", "same_kind"):
            if similarity >= getattr(self, word):
                return word.replace("_", " ")
        return "weak"

    @property
    def is_telling(self) -> bool:
        """Whether the model tells copies from other pictures of this collection."""
        # Of few images, pairs drawn at random are often enough real copies.
        return self.others_found <= max(MOST_OTHERS, FEW / self.rows)

    def describe(self) -> dict:
        """As JSON-able values, for a manifest."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def calibrate(store: Store, copies: np.ndarray, own: np.ndarray, seed: int = 0) -> Words | None:
    """Measure the words of a store.

    Args:
        copies: (E, D) float32 of length 1, embeddings of mildly edited copies (MILD).
        own: (E,) the rows of their originals.
    Returns: None where there are too few copies or rows to measure anything.
    """
    total = len(store.rows)
    if len(copies) < LEAST_COPIES or total <= NEIGHBOURS:
        return None
    random = np.random.default_rng(seed)
    to_own = (copies * store.read_embeddings(own)).sum(axis=1)
    same_picture = float(np.quantile(to_own[::2], COPIES_FOUND))
    same_scene, same_kind = _find_lower_bounds(_list_neighbours(store, random), same_picture)
    return Words(
        same_picture=same_picture,
        same_scene=same_scene,
        same_kind=same_kind,
        copies_found=float((to_own[1::2] >= same_picture).mean()),
        others_found=float((_compare_pairs(store, random) >= same_picture).mean()),
        rows=total,
    )


def _find_lower_bounds(neighbours: np.ndarray, same_picture: float) -> tuple[float, float]:
    """Of neighbours that are the same picture nothing is learnt: a collection may be full of copies."""
    others = neighbours[neighbours < same_picture]
    if not len(others):
        return same_picture, same_picture
    scene, kind = np.quantile(others, (SCENE, KIND))
    return float(scene), float(kind)


def _list_neighbours(store: Store, random: np.random.Generator) -> np.ndarray:
    """Cosines of some rows with those nearest to them, but themselves."""
    from indexer.index import find_nearest

    asked = np.sort(random.permutation(len(store.rows))[:ASKED])
    queries = store.read_embeddings(asked)
    cosines, _ = find_nearest(store.rows, store.norms, queries, NEIGHBOURS + 1)
    return cosines[:, 1:].ravel()


def _compare_pairs(store: Store, random: np.random.Generator) -> np.ndarray:
    one, other = random.integers(len(store.rows), size=(2, PAIRS))
    one, other = one[one != other], other[one != other]
    return (store.read_embeddings(one) * store.read_embeddings(other)).sum(axis=1)
