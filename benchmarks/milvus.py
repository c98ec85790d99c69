"""Search in Milvus beside the index here, of the same generation, by the same door: python -m benchmarks.milvus

Both are asked by `Collection.find`, in turn, with the same queries: rows turned away from where they point, about as
far as an edited copy is, so that no query is a row. What is nearest is what comparing with every row says.

Rule: figures go to stdout, progress to stderr; every single time is kept.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import numpy as np

from indexer.collection import Collection, Filter, Query, Term
from indexer.engine_publish import DEFAULT_INDEX, TURNED, publish_collection
from indexer.layout import find_collection
from indexer.milvus import INDEXES
from seer_model.errors import UserError

COUNT = 10
HERE, THERE, EXACT = "the index here", "Milvus", "every row compared"
FILTERED = ", half of the images"
PUBLISHED = ("rows", "written", "seconds", "index", "candidates", "recall")


@click.command()
@click.option("--collection", required=True, type=click.Path(path_type=Path))
@click.option("--to", "address", required=True, metavar="URL", help="Published there first, unless it is.")
@click.option("--index", type=click.Choice(tuple(INDEXES)), default=DEFAULT_INDEX, show_default=True)
@click.option("--queries", "count", type=click.IntRange(1), default=100, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all times.")
def main(collection: Path, address: str, index: str, count: int, rounds: int, as_json: bool) -> None:
    """Measure recall and latency of both."""
    try:
        report = measure(find_collection(collection), address, index, count, rounds)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(place: Path, address: str, index: str, count: int, rounds: int) -> dict:
    """Publish, ask both in turn, and describe it as JSON-able values."""
    published = publish_collection(place, address, index=index, on_progress=lambda at: click.echo(f"{at}", err=True))
    with Collection(place) as here, Collection(place, search_engine=address) as there:
        queries = make_queries(here, count)
        half = Filter(least_bytes=find_median_size(here))
        ways = {
            HERE: here.find,
            THERE: there.find,
            EXACT: partial(here.find, is_exact=True),
            HERE + FILTERED: partial(here.find, where=half),
            THERE + FILTERED: partial(there.find, where=half),
            EXACT + FILTERED: partial(here.find, where=half, is_exact=True),
        }
        found = {name: [ask(query, COUNT) for query in queries] for name, ask in ways.items()}
        times = race_queries(ways, queries, rounds)
        status, passing = here.read_status(), here.count_images(half)
    about = {"index_here": status.index, "dimension": status.dimension, "passing": passing}
    return describe(published.describe(), found, times) | about


def make_queries(collection: Collection, count: int, seed: int = 1) -> list[Query]:
    """Turned rows, drawn at random."""
    chance, rows = np.random.default_rng(seed), collection.read_embeddings()[1]
    queries = []
    for row in chance.choice(len(rows), min(count, len(rows)), replace=False):
        one = rows[row].astype(np.float32)
        one /= np.linalg.norm(one)
        aside = chance.standard_normal(len(one), dtype=np.float32)
        aside -= (aside @ one) * one
        queries.append(Query(Term(TURNED * one + np.sqrt(1 - TURNED**2) * aside / np.linalg.norm(aside))))
    return queries


def find_median_size(collection: Collection) -> int:
    """Bytes that about half of the images have at least."""
    return int(np.median([image.size_bytes for image in collection.list_images(count=-1)]))


def race_queries(ways: dict, queries: list[Query], rounds: int) -> dict[str, list[list[float]]]:
    """Milliseconds of every query in every round; every second round in reverse order."""
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            times[name].append([time_one(ways[name], query) for query in queries])
            click.echo(f"round {number + 1} of {rounds}: {name} {np.median(times[name][-1]):.1f} ms", err=True)
    return times


def time_one(ask, query: Query) -> float:
    """Milliseconds of one question."""
    started = time.perf_counter()
    ask(query, COUNT)
    return (time.perf_counter() - started) * 1000


def describe(published: dict, found: dict, times: dict) -> dict:
    """What was found as JSON-able values."""
    # Not at the top: torch would be in memory, and its threads with it, while others are timed.
    import torch

    from benchmarks.machine import describe_machine
    from benchmarks.race import spread

    middles = {name: [float(np.median(one)) for one in taken] for name, taken in times.items()}
    return {
        "schema_version": 1,
        "machine": describe_machine(torch.device("cpu")),
        "published": {name: published[name] for name in PUBLISHED},
        "recall": {name: compare(answers, found[exact_of(name)]) for name, answers in found.items()},
        "median_ms": {name: asdict(spread(taken)) for name, taken in middles.items()},
        "p95_ms": {name: float(np.percentile(np.concatenate(taken), 95)) for name, taken in times.items()},
        "ratio": {
            name: asdict(spread(a / b for a, b in zip(middles[THERE + name], middles[HERE + name], strict=True)))
            for name in ("", FILTERED)
        },
        "times_ms": times,
    }


def exact_of(name: str) -> str:
    """The exact way with the same filter."""
    return EXACT + (FILTERED if name.endswith(FILTERED) else "")


def compare(answers: Iterable, exact: Iterable) -> float:
    """Recall: the share of the nearest ten that was found."""
    shares = [
        len({one.image_id for one in answer.neighbours} & {one.image_id for one in right.neighbours})
        / len(right.neighbours)
        for answer, right in zip(answers, exact, strict=True)
    ]
    return float(np.mean(shares))


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    published = report["published"]
    rows = (
        f"  {name:<40} recall {report['recall'][name]:.3f}  {middle['median']:7.1f} ms  "
        f"({middle['least']:.1f} to {middle['most']:.1f}), 95 % within {report['p95_ms'][name]:.1f} ms"
        for name, middle in report["median_ms"].items()
    )
    return "\n".join(
        [
            f"{published['rows']:,} rows of {report['dimension']} numbers; here: {report['index_here']}; in Milvus: "
            f"{published['index']}, {published['candidates']} candidates",
            f"the filter (bytes) lets {report['passing']:,} images through",
            f"{published['written']:,} rows were published in {published['seconds']} s",
            show_machine(report["machine"]),
            f"Median of {len(next(iter(report['times_ms'].values())))} rounds (least to most):",
            *rows,
        ]
    )


if __name__ == "__main__":
    main()
