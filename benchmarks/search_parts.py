"""What an index costs in memory and in parts, of the same rows: python -m benchmarks.search_parts --collection C

Rows are made as in `search_growth`. An index is built in parts of several sizes, each in a process of its own; a part
of all rows is an index in memory, in one file. A reader of each answers in a process of its own, for its memory; then
all answer the same queries in turn, in one process.

Rule: figures go to stdout, progress to stderr. A part is as large as it is told, whatever the product's are.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.search import describe_this_machine, opened_folder, tell
from benchmarks.search_aside import run_aside
from benchmarks.search_race import hold_ours, publish_index
from benchmarks.search_rows import Wanted
from benchmarks.search_stage import Stage, stage_stretched
from benchmarks.search_ways import Ours, Way, ask_in_turn, make_point, measure_recall
from indexer import parts
from indexer.fitting import Demands
from indexer.generations import read_generation
from indexer.index_maker import count_sample
from indexer.recipes import Recipe
from indexer.snapshot import Snapshot
from seer_model.errors import UserError

SIZES = (2_000_000, 1_000_000, 500_000, 125_000)
ASKED = 300
UNENDING = float("inf")


@click.command()
@click.option("--collection", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(2000), default=2_000_000, show_default=True)
@click.option("--dimension", type=click.IntRange(16), default=512, show_default=True)
@click.option("--part", "sizes", multiple=True, type=click.IntRange(1), default=SIZES, show_default=True)
@click.option("--recall", type=click.FloatRange(0.5, 1), default=0.98, show_default=True, help="That is asked for.")
@click.option("--memory", "memory_gb", type=click.FloatRange(0.01), default=6.0, show_default=True, help="GB an index.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the rows are made, and stay.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    collection: Path,
    rows: int,
    dimension: int,
    sizes: Sequence[int],
    recall: float,
    memory_gb: float,
    rounds: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Measure one index of these rows in memory, and in parts of these sizes."""
    demands = Demands(recall=recall, memory_bytes=int(memory_gb * 1e9), exact_ms=0)
    try:
        machine = run_aside(describe_this_machine).result
        with opened_folder(folder) as place:
            stage = stage_stretched(collection, place, Wanted(rows=rows, dimension=dimension))
            built = [measure_build(stage, demands, size) for size in sizes]
            trained = run_aside(train_alone, stage.folder, built[-1]["search"]["recipe"])
            points = race(stage, built, rounds)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    report = {"schema_version": 1, "machine": machine, "rows": rows, "dimension": dimension, "rounds": rounds}
    report["training"] = {"seconds": trained.seconds, "own_bytes": trained.own_bytes}
    report["builds"] = [one | {"answers": point} for one, point in zip(built, points, strict=True)]
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure_build(stage: Stage, demands: Demands, size: int) -> dict:
    """Build and publish with parts of this size, and open what came of it; as JSON-able values."""
    tell(f"an index is being built in parts of {size:,} rows")
    done = run_aside(publish_parts, stage.folder, demands, size)
    held = run_aside(hold_ours, stage.folder, ASKED).result
    return {
        "part_rows": size,
        "seconds": done.seconds,
        "own_bytes": done.own_bytes,
        "mapped_bytes": done.mapped_bytes,
        "reader": held,
        **done.result,
    }


def publish_parts(folder: Path, demands: Demands, size: int) -> dict:
    """In a process of its own: an index in parts of so many rows. Returns: what its manifest says of it."""
    parts.PART_ROWS = size
    published = publish_index(folder, demands)
    parts.remove_parts(Stage(folder).place)
    return {name: published[name] for name in ("name", "size_bytes", "index", "recall", "search")}


def train_alone(folder: Path, recipe: dict) -> None:
    """In a process of its own: what every build does before it has a part."""
    store, found = Stage(folder).open_store(), Recipe(**recipe)
    sample = np.linspace(0, len(store.rows) - 1, min(len(store.rows), count_sample(found)), dtype=np.int64)
    parts.train_once(found, store, sample)
    parts.remove_parts(store.folder)


def race(stage: Stage, built: Sequence[dict], rounds: int) -> list[dict]:
    """All generations answer the same queries in turn; as JSON-able values."""
    truth = stage.answer_exactly().choose(slice(0, ASKED))
    opened = [open_named(stage, one["name"]) for one in built]
    ways = [
        Way(name="ours", width=f"parts of {one['part_rows']:,}", answer=ours.answer)
        for one, ours in zip(built, opened, strict=True)
    ]
    heard, store = ask_in_turn(ways, truth.queries, rounds, UNENDING, tell), stage.open_store()
    found = [
        make_point(way, one, measure_recall(store, truth, one.answers), 0)
        for way, one in zip(ways, heard, strict=True)
    ]
    for ours in opened:
        ours.close()
    return [{name: value for name, value in point.describe().items() if name != "bytes"} for point in found]


def open_named(stage: Stage, name: str) -> Ours:
    """A generation by its name, as a reader has it."""
    ours = Ours(stage)
    ours.snapshot = Snapshot(stage.folder, read_generation(stage.folder, name))
    return ours


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    lines = [
        f"{show_machine(report['machine'])}, faiss {report['machine']['faiss']}",
        f"{report['rows']:,} rows of {report['dimension']:,} numbers",
    ]
    alone = report["training"]
    lines.append(f"  training alone: {alone['seconds']:,.1f} s, own memory {alone['own_bytes'] / 1e6:,.0f} MB")
    return "\n".join([*lines, *map(show_build, report["builds"])])


def show_build(build: dict) -> str:
    """One line."""
    answers, reader, search = build["answers"], build["reader"], build["search"]
    return (
        f"  parts of {build['part_rows']:>10,}: {build['seconds']:>7,.1f} s, own memory "
        f"{build['own_bytes'] / 1e6:>6,.0f} MB; {build['index']}, {search['probes']} lists, "
        f"{search['candidates']} candidates; recall {answers['recall']:.4f}, median {answers['median_ms']:.2f} ms, "
        f"p99 {answers['p99_ms']:.2f} ms; a reader holds {reader['resident_bytes'] / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
