"""How fast and how right search is, beside other libraries: python -m benchmarks.search

What is searched is said in `search_stage` and `search_rows`, who takes part in `search_peers`, what is concluded and
what is not in README.md.

Rule: figures go to stdout, progress to stderr. Nothing here loads torch: no search from an image does.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.search_aside import run_aside
from benchmarks.search_peers import FLAT_16, FLAT_32, PEERS
from benchmarks.search_race import Setting, compete
from benchmarks.search_rows import Wanted, quote_similarities
from benchmarks.search_stage import stage_real, stage_stretched
from benchmarks.search_ways import OURS, OURS_EXACT, Point, find_fastest, find_nearest_in_recall, list_unbeaten
from seer_model.errors import SettingsError, UserError

GOALS = {"real": 0.99, "stretched": 0.97}
"""Recall at which ours is compared with the exact answer."""
LEAST_ASKED = 0.98
"""Recall that is asked of a build, as the product does."""
TIMES_FASTER, TIMES_FASTER_STRETCHED, TIMES_MEDIAN, MOST_BYTES = 10, 50, 3, 1.5e9


@contextmanager
def opened_folder(folder: Path | None) -> Iterator[Path]:
    """A folder that stays, or one that is removed."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="seer-search-") as scratch:
            yield Path(scratch)


@click.command()
@click.option("--collection", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(1000), help="Stretch its rows to so many; its own if left out.")
@click.option("--dimension", type=click.IntRange(16), help="Numbers of a stretched row.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of stretched rows.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the rows there, and use those that are there.")
@click.option("--recall", type=click.FloatRange(0.5, 1), help="That is asked of our index.")
@click.option("--memory", "memory_gb", type=click.FloatRange(0.01), default=6.0, show_default=True, help="GB an index.")
@click.option("--queries", type=click.IntRange(20), default=1000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.01), default=20.0, show_default=True, help="Of one in a round.")
@click.option("--peer", "peers", multiple=True, type=click.Choice([peer.name for peer in PEERS]), help="These alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with the time of each query.")
def main(
    collection: Path,
    rows: int | None,
    dimension: int | None,
    seed: int,
    folder: Path | None,
    recall: float | None,
    memory_gb: float,
    as_json: bool,
    **given: object,
) -> None:
    """Measure search in a collection's rows, or in many rows made of them."""
    goal = GOALS["stretched" if rows else "real"]
    try:
        if (rows is None) != (dimension is None):
            raise SettingsError("--rows and --dimension belong together: give both, or neither.")
        chosen = {"recall": recall or max(goal, LEAST_ASKED), "memory_bytes": int(memory_gb * 1e9)}
        wanted = rows and Wanted(rows=rows, dimension=dimension, seed=seed)
        with opened_folder(folder) as place:
            report = measure(collection, place, wanted or None, Setting(**chosen, **given))
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def tell(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def measure(collection: Path, folder: Path, wanted: Wanted | None, setting: Setting) -> dict:
    """Run it all, and describe it as JSON-able values."""
    machine = run_aside(describe_this_machine).result
    tell("the rows are being made")
    stage = stage_stretched(collection, folder, wanted) if wanted else stage_real(collection, folder)
    tell("the true answers are being found")
    truth = stage.answer_exactly()
    found = compete(stage, truth.choose(slice(0, setting.queries)), setting, tell)
    goal = GOALS["stretched" if wanted else "real"]
    return {
        "schema_version": 1,
        "machine": machine,
        # How similar the nearest of queries are says whether made rows are like real ones.
        "rows": stage.described | {"similarities_of_queries": quote_similarities(truth.similarities)},
        "setting": asdict(setting),
        **found,
        "goals": judge(found, goal, is_stretched=wanted is not None),
        "beside_peers": compare([Point(**one) for one in found["points"]]),
    }


def describe_this_machine() -> dict:
    """For a process of its own: it loads torch."""
    import faiss
    import torch

    from benchmarks.machine import describe_machine

    return describe_machine(torch.device("cpu")) | {"faiss": faiss.__version__}


def judge(found: dict, goal: float, *, is_stretched: bool) -> list[dict]:
    """What is to be reached, and what is; `reached` is None where it could not be measured."""
    points = [Point(**one) for one in found["points"]]
    ours = find_fastest(choose(points, OURS), goal)
    best = max((one.recall for one in choose(points, OURS)), default=None)
    goals = [_judge(f"recall@10 of ours, {goal:g} or more", best, goal)]
    beside = (FLAT_16,) if is_stretched else (OURS_EXACT, FLAT_32)
    times = TIMES_FASTER_STRETCHED if is_stretched else TIMES_FASTER
    for name in beside:
        other = next(iter(choose(points, name)), None)
        ratio = other.median_ms / ours.median_ms if ours and other else None
        goals.append(_judge(f"median of {name} / ours at that recall", ratio, times))
    spread = ours and ours.p99_ms / ours.median_ms
    goals.append(_judge("p99 / median of ours, at most", spread, TIMES_MEDIAN, is_most=True))
    held = found["builds"][OURS]["process_bytes"]
    return [*goals, _judge("bytes of a process beyond the mapped rows, at most", held, MOST_BYTES, is_most=True)]


def choose(points: list[Point], name: str) -> list[Point]:
    """One contender's."""
    return [one for one in points if one.name == name]


def _judge(what: str, found: float | None, goal: float, *, is_most: bool = False) -> dict:
    reached = None if found is None else bool(found <= goal if is_most else found >= goal)
    return {"what": what, "found": found, "goal": goal, "reached": reached}


def compare(points: list[Point]) -> dict:
    """Ours as published beside each peer's point of the nearest recall, and who is better in all three anywhere."""
    ours, others = choose(points, OURS), [one for one in points if one.name not in (OURS, OURS_EXACT)]
    if not ours:
        return {"nearest": {}, "unbeaten": [], "beaten_by": []}
    names = dict.fromkeys(one.name for one in others)
    nearest = {name: find_nearest_in_recall(choose(others, name), ours[0].recall) for name in names}
    return {
        "nearest": {
            name: {"point": one.describe(), "is_better_in_all": one.beats(ours[0])} for name, one in nearest.items()
        },
        "unbeaten": [one.describe() for one in list_unbeaten([*ours, *others])],
        "beaten_by": [
            {"ours": one.width, "by": other.name, "width": other.width}
            for one in ours
            for other in others
            if other.beats(one)
        ],
    }


# --- as text -----------------------------------------------------------------------------------------------------


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    rows, queries = report["rows"], report["setting"]["queries"]
    lines = [
        f"{rows['rows']:,} rows of {rows['dimension']:,} numbers: {rows['made_of']}",
        f"{show_machine(report['machine'])}, faiss {report['machine']['faiss']}",
        *show_similarities(rows),
        "Built, each in a process of its own:",
        *(show_build(name, build) for name, build in report["builds"].items()),
        *(f"  {name:<18} absent: {reason}" for name, reason in report["absent"].items()),
        f"Medians of {report['setting']['rounds']} rounds of up to {queries:,} queries, one at a time, in turn:",
        *(show_point(point) for point in report["points"]),
        "With filters, ours as published:",
        *(show_filter(one) for one in report["filters"]),
        *show_comparison(report["beside_peers"]),
        *(show_goal(one) for one in report["goals"]),
    ]
    return "\n".join(lines)


def show_similarities(rows: dict) -> Iterator[str]:
    """Medians of the first and the tenth neighbour."""
    for what, name in (("real rows", "real_similarities"), ("queries", "similarities_of_queries")):
        if name in rows:
            quoted = rows[name]
            yield (
                f"Similarity of the nearest of {what}: {quoted['first']:.3f}; of the tenth {quoted['tenth']:.3f} "
                f"({quoted['tenth_low']:.3f} to {quoted['tenth_high']:.3f} for eight tenths of them)"
            )
    if "alpha" in rows:
        yield f"Spectrum i^-{rows['alpha']:g} of full rank, {rows['sources']:,} sources, seed {rows['seed']}"


def show_build(name: str, build: dict) -> str:
    """One line."""
    return (
        f"  {name:<18} {build['seconds']:>9,.1f} s, at most {build['peak_bytes'] / 1e6:>8,.0f} MB; "
        f"held {build['bytes'] / 1e6:>8,.1f} MB; {build['what']}"
    )


def show_point(point: dict) -> str:
    """One line."""
    named = f"{point['name']} {point['width']}".strip()
    return (
        f"  {named:<58} recall {point['recall']:.4f}  median {point['median_ms']:>8,.2f} ms  "
        f"p99 {point['p99_ms']:>8,.2f} ms  {point['queries_per_second']:>8,.1f}/s"
    )


def show_filter(found: dict) -> str:
    """One line."""
    how = "exact" if found["is_exact"] else f"told {found['told_recall']:.3f}"
    return (
        f"  {found['share']:>6.1%} ({found['rows']:,} rows, found in {found['first_ms']:,.0f} ms the first time): "
        f"recall {found['recall']:.4f} ({how}), median {found['median_ms']:,.2f} ms, p99 {found['p99_ms']:,.2f} ms"
    )


def show_comparison(found: dict) -> Iterator[str]:
    """Who is better than ours in recall, queries/s and memory at once."""
    for name, beside in found["nearest"].items():
        verdict = "better in all three" if beside["is_better_in_all"] else "not better in all three"
        yield f"{name} at its nearest recall ({beside['point']['recall']:.4f}): {verdict}"
    for one in found["beaten_by"]:
        yield f"ours, {one['ours']}, is beaten in all three by {one['by']} {one['width']}"
    if found["nearest"] and not found["beaten_by"]:
        yield "No peer at any width is better than ours at any width in recall, queries/s and memory at once"


def show_goal(one: dict) -> str:
    """One line."""
    verdict = {None: "not measured", True: "reached", False: "missed"}[one["reached"]]
    found = "" if one["found"] is None else f"{one['found']:,.4g}; "
    return f"Goal: {one['what']}: {found}goal {one['goal']:,.4g}: {verdict}"


if __name__ == "__main__":
    main()
