"""What an index costs as a collection grows: python -m benchmarks.search_growth

For each size rows are made (`search_rows`), an index is built for them in a process of its own, and published. Told
are the seconds, the memory and the index's bytes, and with which power of the rows they grow. Then one size grows by a
hundredth: what joining the new rows takes beside a whole build, and what it does to recall.

Rule: figures go to stdout, progress to stderr. What a process holds of mapped files is told apart from what is its own.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from benchmarks.search import describe_this_machine, opened_folder, tell
from benchmarks.search_aside import Outcome, run_aside
from benchmarks.search_race import publish_index
from benchmarks.search_rows import Wanted
from benchmarks.search_stage import Stage, stage_stretched
from benchmarks.search_ways import Ours, Way, ask_in_turn, measure_recall
from indexer.fitting import INDEX, Demands
from indexer.generations import open_generation
from indexer.parts import LISTS
from seer_model.durable import write_durably
from seer_model.errors import UserError

SIZES = (100_000, 1_000_000, 10_000_000)
GROWN_BY = 100
"""One row in so many is new."""
MOST_SHARE, MOST_LOST, MOST_BYTES = 0.05, 0.005, 8e9
KINDS = {"seconds": "Time to build", "own_bytes": "Memory of the build", "index_bytes": "Index"}
UNITS = {"seconds": (1, "s"), "own_bytes": (1e6, "MB"), "index_bytes": (1e6, "MB")}
WIDTH, HEIGHT, DOTS_PER_INCH = 10.0, 3.4, 130
COLOUR = "#2f6f9f"


@click.command()
@click.option("--collection", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", "sizes", multiple=True, type=click.IntRange(2000), default=SIZES, show_default=True)
@click.option("--dimension", type=click.IntRange(16), default=512, show_default=True)
@click.option("--grown", type=click.IntRange(2000), default=1_000_000, show_default=True, help="Which size grows.")
@click.option("--recall", type=click.FloatRange(0.5, 1), default=0.98, show_default=True, help="That is asked for.")
@click.option("--memory", "memory_gb", type=click.FloatRange(0.01), default=6.0, show_default=True, help="GB an index.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the rows are made; they are removed again.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curves: a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    collection: Path,
    sizes: Sequence[int],
    dimension: int,
    grown: int,
    recall: float,
    memory_gb: float,
    folder: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure builds of several sizes, and one that grows."""
    demands = Demands(recall=recall, memory_bytes=int(memory_gb * 1e9))
    try:
        machine = run_aside(describe_this_machine).result
        with opened_folder(folder) as place:
            wanted = [Wanted(rows=rows, dimension=dimension) for rows in (*sizes, add_part(grown))]
            built = [measure_build(collection, place, one, demands) for one in wanted[:-1]]
            growth = measure_growth(collection, place, wanted[-1], demands)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    exponents = {kind: fit_exponent(sizes, [one[kind] for one in built]) for kind in KINDS}
    report = {"schema_version": 1, "machine": machine, "demands": asdict(demands), "builds": built}
    report |= {"exponents": exponents, "growth": growth, "goals": judge(built, growth)}
    if plot:
        draw(report, plot)
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def add_part(rows: int) -> int:
    """So many rows and a hundredth."""
    return rows + rows // GROWN_BY


def measure_build(collection: Path, folder: Path, wanted: Wanted, demands: Demands) -> dict:
    """Make rows and their index; as JSON-able values. What was made is removed."""
    place = folder / str(wanted.rows)
    stage = stage_stretched(collection, place, wanted)
    tell(f"an index of {wanted.rows:,} rows is being built")
    found = describe_build(stage, run_aside(publish_index, place, demands))
    shutil.rmtree(place)
    return {"rows": wanted.rows, "dimension": wanted.dimension, **found}


def describe_build(stage: Stage, built: Outcome) -> dict:
    """What a build took and what it is worth, as JSON-able values."""
    generation = open_generation(stage.folder)
    files = generation.manifest["files"]
    return {
        "seconds": built.seconds,
        "own_bytes": built.own_bytes,
        "mapped_bytes": built.mapped_bytes,
        "index_bytes": sum(files[name]["size_bytes"] for name in (INDEX, LISTS) if name in files),
        "index": generation.manifest["index"],
        "chosen": generation.manifest["chosen"],
        "recall": find_recall(stage, generation.manifest["rows"]),
    }


def find_recall(stage: Stage, rows: int) -> float:
    """Of the generation that answers, on queries that its making has not seen."""
    truth, ours = stage.answer_exactly(rows), Ours(stage)
    way = Way(name="", width="", answer=ours.answer)
    (heard,) = ask_in_turn([way], truth.queries, 1, float("inf"), lambda text: None)
    ours.close()
    return measure_recall(stage.open_store(rows), truth, heard.answers)


def measure_growth(collection: Path, folder: Path, wanted: Wanted, demands: Demands) -> dict:
    """An index of all but the last hundredth, these joined to it, and one of all; as JSON-able values."""
    place, first = folder / str(wanted.rows), wanted.rows * GROWN_BY // (GROWN_BY + 1)
    stage, found = stage_stretched(collection, place, wanted), {}
    tell(f"{wanted.rows - first:,} rows join {first:,}")
    for name, function, given in (
        ("before", publish_index, (demands, first)),
        ("grown", grow_index, (demands,)),
        ("whole", publish_index, (demands,)),
    ):
        found[name] = describe_build(stage, run_aside(function, place, *given))
    shutil.rmtree(place)
    return {"rows": first, "new_rows": wanted.rows - first, **found}


def grow_index(folder: Path, demands: Demands) -> None:
    """Let the index that answers take up the rows that came since."""
    stage = Stage(folder)
    forced = Demands(recall=demands.recall, memory_bytes=demands.memory_bytes, exact_ms=0)
    stage.publish(stage.fit(forced, before=open_generation(folder)))


def fit_exponent(rows: Sequence[int], values: Sequence[float]) -> float | None:
    """With which power of the rows values grow; None where there is nothing to fit."""
    if len(rows) < 2 or min(values) <= 0:
        return None
    return float(np.polyfit(np.log(rows), np.log(values), 1)[0])


def judge(built: Sequence[dict], growth: dict) -> list[dict]:
    """What is to be reached, and what is."""
    largest, whole, grown = max(built, key=lambda one: one["rows"]), growth["whole"], growth["grown"]
    lost = abs(whole["recall"] - grown["recall"])
    found = (
        (f"bytes of the build of {largest['rows']:,} rows", largest["own_bytes"], MOST_BYTES),
        ("seconds of joining a hundredth / of the whole build", grown["seconds"] / whole["seconds"], MOST_SHARE),
        ("recall of the grown index apart from a whole build's", lost, MOST_LOST),
    )
    return [{"what": what, "found": one, "goal": goal, "reached": bool(one <= goal)} for what, one, goal in found]


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    growth = report["growth"]
    lines = [
        f"{show_machine(report['machine'])}, faiss {report['machine']['faiss']}",
        f"Recall asked for: {report['demands']['recall']:g}",
        *(show_build(f"{one['rows']:,} x {one['dimension']:,}", one) for one in report["builds"]),
        *(
            f"{KINDS[kind]}: grows with the power {power:.2f} of the rows"
            for kind, power in report["exponents"].items()
            if power is not None
        ),
        f"{growth['new_rows']:,} rows join {growth['rows']:,}:",
        *(show_build(name, growth[name]) for name in ("before", "grown", "whole")),
        *(
            f"Goal: {one['what']}: {one['found']:,.4g}; goal {one['goal']:,.4g}: "
            f"{'reached' if one['reached'] else 'missed'}"
            for one in report["goals"]
        ),
    ]
    return "\n".join(lines)


def show_build(name: str, build: dict) -> str:
    """One line."""
    return (
        f"  {name:<18} {build['seconds']:>9,.1f} s, own memory at most {build['own_bytes'] / 1e6:>7,.0f} MB, mapped "
        f"{build['mapped_bytes'] / 1e6:>7,.0f} MB; {build['index']}, {build['index_bytes'] / 1e6:,.1f} MB; "
        f"recall {build['recall']:.4f}"
    )


def draw(report: dict, path: Path) -> None:
    """A panel for each curve, both axes logarithmic; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    paper = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(paper)
    rows = [one["rows"] for one in report["builds"]]
    for axes, (kind, title) in zip(paper.subplots(1, len(KINDS)), KINDS.items(), strict=True):
        power, (size, unit) = report["exponents"][kind], UNITS[kind]
        axes.loglog(rows, [one[kind] / size for one in report["builds"]], "o-", color=COLOUR)
        axes.set_xticks(rows, [f"{count:,}" for count in rows])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _, unit=unit: f"{value:,g} {unit}")
        axes.set_title(title if power is None else f"{title}\nrows to the power {power:.2f}", fontsize=9)
        axes.set_xlabel(f"rows of {report['builds'][0]['dimension']:,} numbers", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(True, which="major", alpha=0.3)
    write_durably(path, lambda aside: paper.savefig(aside, format="png"))


if __name__ == "__main__":
    main()
