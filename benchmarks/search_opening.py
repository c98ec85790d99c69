"""How long it takes from nothing to the first answer: python -m benchmarks.search_opening

Each round is a process of its own: Python starts, our modules are imported, the collection is opened, an image of it is
searched with. No model is needed for that. Rounds are warm, its files in memory, and cold, its files put out of it.

Rule: figures go to stdout, progress to stderr. The answer is the product's: `Collection.find_similar_to`.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.search import describe_this_machine, opened_folder, tell
from benchmarks.search_aside import run_aside
from benchmarks.search_race import publish_index
from benchmarks.search_rows import Wanted
from benchmarks.search_stage import stage_stretched
from benchmarks.seer_command import run_to_end
from indexer.fitting import Demands
from indexer.generations import open_generation, read_current
from seer_model.errors import UserError

SCRIPT = """
import json, sys, time
times = [time.perf_counter()]
from indexer.collection import Collection
times.append(time.perf_counter())
with Collection(sys.argv[1]) as collection:
    times.append(time.perf_counter())
    found = collection.find_similar_to(int(sys.argv[2]), 10)
    times.append(time.perf_counter())
    again = collection.find_similar_to(int(sys.argv[2]) + 1, 10)
    times.append(time.perf_counter())
print(json.dumps({
    "seconds": [later - earlier for earlier, later in zip(times, times[1:])],
    "answers": [len(found), len(again)],
    "is_first": found[0].image_id == int(sys.argv[2]),
    "has_torch": "torch" in sys.modules,
}))
"""
STEPS = ("importing", "opening", "first answer", "second answer")
STARTING = "starting Python"
GOAL = 1.0
"""Seconds, from `Collection(folder)` to its answer."""


@click.command()
@click.option("--collection", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--dimension", type=click.IntRange(16), default=3712, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the rows there, and use those that are there.")
@click.option("--recall", type=click.FloatRange(0.5, 1), default=0.98, show_default=True, help="That is asked for.")
@click.option("--memory", "memory_gb", type=click.FloatRange(0.01), default=6.0, show_default=True, help="GB an index.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all rounds.")
def main(
    collection: Path,
    rows: int,
    dimension: int,
    folder: Path | None,
    recall: float,
    memory_gb: float,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure the first answer of a process."""
    demands = Demands(recall=recall, memory_bytes=int(memory_gb * 1e9))
    try:
        with opened_folder(folder) as place:
            report = measure(collection, place, Wanted(rows=rows, dimension=dimension), demands, rounds)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(collection: Path, folder: Path, wanted: Wanted, demands: Demands, rounds: int) -> dict:
    """Make a collection, unless it is there; then open it, again and again. As JSON-able values."""
    machine = run_aside(describe_this_machine).result
    stage = stage_stretched(collection, folder, wanted)
    if not read_current(folder):
        tell(f"an index of {wanted.rows:,} rows is being built")
        run_aside(publish_index, folder, demands)
    found: dict[str, list[dict]] = {"warm": [], "cold": []}
    take_round(folder, 1, is_cold=False)
    for number in range(rounds):
        for name, taken in found.items():
            # Another image each time: none of its neighbours' rows has been read before.
            taken.append(take_round(folder, 2 + (number * 7919) % (wanted.rows - 2), is_cold=name == "cold"))
            tell(f"round {number + 1} of {rounds}: {name} {taken[-1]['seconds']}")
    return {
        "schema_version": 1,
        "machine": machine,
        "rows": stage.described,
        "index": open_generation(folder).manifest["chosen"],
        "rounds": found,
        **describe(found),
    }


def take_round(folder: Path, image_id: int, *, is_cold: bool) -> dict:
    """One process; its steps in seconds."""
    if is_cold:
        forget_files(folder)
    run = run_to_end([sys.executable, "-c", SCRIPT, str(folder), str(image_id)])
    told = json.loads(run.output)
    steps = dict(zip(STEPS, told["seconds"], strict=True))
    return {**told, "seconds": {STARTING: run.seconds - sum(steps.values()), **steps}, "peak_bytes": run.peak_bytes}


def forget_files(folder: Path) -> None:
    """Put a folder's files out of the system's memory, as far as nobody has them mapped."""
    for path in filter(Path.is_file, folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # What is not on the disk yet stays.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def describe(found: dict[str, Sequence[dict]]) -> dict:
    """Medians of the steps and of what the goal is about; as JSON-able values."""
    from benchmarks.race import spread

    steps = (STARTING, *STEPS)
    medians = {
        name: {step: asdict(spread(one["seconds"][step] for one in taken)) for step in steps}
        for name, taken in found.items()
    }
    answers = {
        name: asdict(spread(one["seconds"]["opening"] + one["seconds"]["first answer"] for one in taken))
        for name, taken in found.items()
    }
    return {"seconds": medians, "opened_and_answered": answers, "goal": GOAL}


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    rows = report["rows"]
    lines = [
        f"A collection of {rows['rows']:,} images, {rows['dimension']:,} numbers each; {report['index']}",
        show_machine(report["machine"]),
        f"Median of {len(report['rounds']['warm'])} rounds (least to most), in seconds:",
    ]
    for name, steps in report["seconds"].items():
        for step, one in steps.items():
            lines.append(f"  {name}: {step:<18} {one['median']:.3f}  ({one['least']:.3f} to {one['most']:.3f})")
        whole = report["opened_and_answered"][name]
        verdict = "reached" if whole["median"] <= report["goal"] else "missed"
        lines.append(f"  {name}: from Collection(folder) to its answer {whole['median']:.3f}; goal {GOAL:g}: {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
