"""Many rows made of few real ones, to measure search with: python -m benchmarks.search_rows

A source is a real row carried into D numbers: its scores along the real rows' principal directions, each of variance 1,
beyond them numbers drawn for it; all scaled to the power law i^-alpha and turned by a random rotation. A new row is a
source under noise of the same law: a * source + sqrt(1 - a^2) * noise, both of length 1. So the rows have full rank and
that very spectrum, however narrow the real ones are.

    alpha   such that two rows drawn at random are as unlike as real ones: sum(l)^2 / sum(l^2) of the spectrum is theirs
    a^2     a row's real similarity to its tenth neighbour, times one factor for all, by which the tenth neighbours of
            new rows are, in the median, as similar as those of real ones

Rule: what a piece holds follows from the seed and its number; memory is that of a piece and of the sources.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from indexer.errors import CollectionDamaged
from indexer.generations import read_newest_first
from indexer.layout import STORES, name_store
from indexer.vectors import Store, StoreWriter
from seer_model.errors import UserError

SIBLINGS = 40
"""Rows made of one source, or more where there are not as many real rows: then the first and the tenth neighbour are
about as far apart as real ones."""
PIECE_ROWS = 4096
QUERY_PIECES = 1 << 30
"""Number of the first piece that queries are made of: no piece of rows has it."""
NEIGHBOURS = 10
TRIALS, HALVINGS = 128, 24
"""Families that the factor is found on, and steps of its search."""
DESCRIPTION = "stretched.json"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to make."""

    rows: int
    dimension: int
    seed: int = 0

    @property
    def sources(self) -> int:
        """Real rows that it should be made of."""
        return -(-self.rows // SIBLINGS)


@dataclass(frozen=True, kw_only=True)
class Real:
    """What is known of the real rows."""

    scores: np.ndarray
    """(S, R) float32: the sources along the principal directions, each of variance 1, the longest first."""
    nearest: np.ndarray
    """(S, 10) float32: similarities of their nearest."""
    spread: float
    """sum(l)^2 / sum(l^2) of the spectrum l: over how many directions the rows are spread."""


class Stretch:
    """Makes rows, piece by piece.

    Args:
        real: of `Wanted.sources` rows, or of as many as there are.
    """

    def __init__(self, wanted: Wanted, real: Real) -> None:
        self.wanted, dimension = wanted, wanted.dimension
        self.alpha = find_alpha(real.spread, dimension)
        self.scale = np.arange(1, dimension + 1, dtype=np.float32) ** (-self.alpha / 2)
        random = np.random.default_rng([wanted.seed, QUERY_PIECES - 1])
        scores = random.standard_normal((len(real.scores), dimension), dtype=np.float32)
        known = min(dimension, real.scores.shape[1])
        scores[:, :known] = real.scores[:, :known]
        self.sources = bring_to_length_1(scores * self.scale)
        self.rotation, _ = np.linalg.qr(random.standard_normal((dimension, dimension), dtype=np.float32))
        self.factor = self._find_factor(real.nearest[:, -1], random)
        self.kept = np.sqrt(np.clip(self.factor * real.nearest[:, -1], 0, 1)).astype(np.float32)

    def make_piece(self, number: int, count: int) -> np.ndarray:
        """(count, D) float32 of length 1."""
        random = np.random.default_rng([self.wanted.seed, number])
        chosen = random.integers(len(self.sources), size=count)
        return self._mix(self.sources[chosen], self.kept[chosen, None], random) @ self.rotation

    def list_pieces(self) -> Iterator[np.ndarray]:
        """All rows."""
        for number, first in enumerate(range(0, self.wanted.rows, PIECE_ROWS)):
            yield self.make_piece(number, min(PIECE_ROWS, self.wanted.rows - first))

    def make_queries(self, count: int) -> np.ndarray:
        """(count, D) float32 of length 1: rows like the others, that are not among them."""
        return self.make_piece(QUERY_PIECES, count)

    def _mix(self, sources: np.ndarray, kept: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noise = bring_to_length_1(random.standard_normal(sources.shape, dtype=np.float32) * self.scale)
        return bring_to_length_1(kept * sources + np.sqrt(1 - kept**2) * noise)

    def _find_factor(self, tenth: np.ndarray, random: np.random.Generator) -> float:
        """By halving: on families of a source, each a query and its siblings. The rotation changes no similarity."""
        chosen = random.integers(len(self.sources), size=TRIALS)
        siblings = max(NEIGHBOURS, round(self.wanted.rows / len(self.sources)))
        low, high = 0.0, 1 / float(tenth.max())
        for _ in range(HALVINGS):
            factor = (low + high) / 2
            same = np.random.default_rng(self.wanted.seed)  # The same noise each time: only the factor moves.
            found = [self._find_tenth(self.sources[one], factor * tenth[one], siblings, same) for one in chosen]
            low, high = (low, factor) if np.median(found) > np.median(tenth) else (factor, high)
        return factor

    def _find_tenth(self, source: np.ndarray, kept: float, siblings: int, random: np.random.Generator) -> float:
        family = np.broadcast_to(source, (siblings + 1, len(source)))
        rows = self._mix(family, np.sqrt(np.clip(kept, 0, 1)), random)
        return float(np.partition(rows[1:] @ rows[0], -NEIGHBOURS)[-NEIGHBOURS])


def find_alpha(spread: float, dimension: int) -> float:
    """The power law of D directions that is spread over so many of them: from 0, over all, to 3."""
    low, high, places = 0.0, 3.0, np.arange(1, dimension + 1, dtype=np.float64)
    for _ in range(50):
        alpha = (low + high) / 2
        low, high = (alpha, high) if measure_spread(places**-alpha) > spread else (low, alpha)
    return alpha


def measure_spread(spectrum: np.ndarray) -> float:
    """Over how many directions variances are spread: as many as there are where all are equal."""
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


def bring_to_length_1(rows: np.ndarray) -> np.ndarray:
    """(n, D), each divided by its length."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def find_spectrum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances about zero along the principal directions of (N, D) rows, largest first; and these, (D, D)."""
    moments = np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), PIECE_ROWS):
        piece = rows[first : first + PIECE_ROWS].astype(np.float32)
        moments += piece.T @ piece
    variances, directions = np.linalg.eigh(moments / len(rows))
    return np.maximum(variances[::-1], 0), directions[:, ::-1].astype(np.float32)


def study(store: Store, sources: int, seed: int) -> Real:
    """Learn of a store's rows what a `Stretch` needs; that many of them, drawn at random, are its sources."""
    from indexer.recall import answer_exactly

    chosen = np.random.default_rng([seed, QUERY_PIECES - 2]).permutation(len(store.rows))[:sources]
    chosen.sort()
    rows = store.rows[chosen].astype(np.float32) / store.norms[chosen, None]
    variances, directions = find_spectrum(store.rows)
    whole = variances > variances[0] * 1e-6
    scores = (rows @ directions)[:, whole] / np.sqrt(variances[whole]).astype(np.float32)
    held = answer_exactly(rows, chosen, store.rows, store.norms)
    return Real(scores=scores, nearest=held.similarities, spread=measure_spread(variances))


def find_store(collection: Path) -> tuple[Path, int, int]:
    """The store that a collection answers with, and its D and N: what `Store` takes. Raises: CollectionDamaged."""
    for generation in read_newest_first(collection):
        told = generation.manifest
        return collection / STORES / name_store(told["store"]), told["dimension"], told["rows"]
    raise CollectionDamaged(f"Nothing can be searched in {collection}. Name a collection that was built.")


def write_rows(stretch: Stretch, real: Real, folder: Path) -> dict:
    """Write a store, and beside it what it is; as JSON-able values."""
    digest = ""
    with closing(StoreWriter(folder, stretch.wanted.dimension, 0)) as writer:
        for piece in stretch.list_pieces():
            writer.append(piece)
            digest = digest or hashlib.sha256(piece.astype("<f2").tobytes()).hexdigest()
    described = describe(stretch, real) | {"sha256_of_the_first_piece": digest}
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1), encoding="utf-8")
    return described


def describe(stretch: Stretch, real: Real) -> dict:
    """What the rows are, as JSON-able values."""
    return {
        **asdict(stretch.wanted),
        "sources": len(stretch.sources),
        "alpha": round(stretch.alpha, 4),
        "factor": round(stretch.factor, 4),
        "spread_of_the_real": round(real.spread, 1),
        "real_similarities": quote_similarities(real.nearest),
    }


def quote_similarities(nearest: np.ndarray) -> dict:
    """Of (Q, 10) similarities: the median of the first and the tenth, and between what eight of ten tenths lie."""
    low, median, high = np.quantile(nearest[:, -1], (0.1, 0.5, 0.9))
    quoted = {"first": np.median(nearest[:, 0]), "tenth": median, "tenth_low": low, "tenth_high": high}
    return {name: round(float(value), 4) for name, value in quoted.items()}


@click.command()
@click.option("--collection", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", required=True, type=click.IntRange(1000))
@click.option("--dimension", required=True, type=click.IntRange(16))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The store's folder.")
def main(collection: Path, output: Path, **given: int) -> None:
    """Stretch the rows of a collection to so many of so many numbers, and say what they are."""
    try:
        wanted, store = Wanted(**given), Store(*find_store(collection))
        real = study(store, wanted.sources, wanted.seed)
        click.echo(json.dumps(write_rows(Stretch(wanted, real), real, output), indent=1))
    except UserError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
