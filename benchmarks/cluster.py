"""What a Ray cluster costs against the same build without one: python -m benchmarks.cluster SHARD.tar

Both embed the same pictures on the same cores, in turns; the cluster's nodes are processes on this computer. What is
compared is the embedding of a build, from the first picture to the last, and the whole build as well: with connecting,
opening the model and publishing.

Rule: figures go to stdout, progress to stderr.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe_machine, show_machine
from benchmarks.nodes import start_nodes
from indexer.collection import Collection
from indexer.job import build_collection
from indexer.report import Progress, Watchers
from indexer.settings import LOCAL, RAY, BuildSettings
from seer_model.ranks import choose_device


@click.command()
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.option("--nodes", "count", type=click.IntRange(1), default=3, show_default=True)
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Of each node.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Embed so many files only.")
@click.option("--json", "as_json", is_flag=True)
def main(pictures: Path, count: int, cpus: int, rounds: int, limit: int | None, as_json: bool) -> None:
    """Build from PICTURES with each engine, several times."""
    report = measure(pictures, count, cpus, rounds, limit)
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(pictures: Path, count: int, cpus: int, rounds: int, limit: int | None) -> dict:
    """Run the builds, and describe them as JSON-able values."""
    found: dict[str, list[dict]] = {LOCAL: [], RAY: []}
    rows = {}
    with tempfile.TemporaryDirectory() as folder, start_nodes(count, cpus) as nodes:
        for number in range(rounds):
            for engine, address in ((LOCAL, None), (RAY, nodes.address)):
                place = Path(folder, f"{engine}-{number}")
                settings = BuildSettings(engine=engine, address=address, limit=limit)
                found[engine].append(_build(place, pictures, settings))
                rows[engine] = _read_rows(place)
                click.echo(f"{engine}: {found[engine][-1]}", err=True)
    return {
        "schema_version": 1,
        "machine": describe_machine(choose_device("cpu")),
        "nodes": count,
        "cpus_of_each": cpus,
        "is_same": all(np.array_equal(*pair) for pair in zip(*rows.values(), strict=True)),
        "rounds": found,
        "overhead": {name: _compare(found, name) for name in ("embedding_seconds", "seconds")},
    }


def _build(place: Path, pictures: Path, settings: BuildSettings) -> dict:
    begun: list[float] = []

    def note(progress: Progress) -> None:
        if progress.stage in ("embedding", "building the index"):
            begun.append(time.perf_counter())

    started = time.perf_counter()
    report = build_collection(place, [pictures], settings, Watchers(on_progress=note))
    return {
        "images": report.embedded,
        "embedding_seconds": round(begun[-1] - begun[0], 2),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _read_rows(place: Path) -> tuple[np.ndarray, np.ndarray]:
    with Collection(place) as collection:
        ids, rows = collection.read_embeddings()
        return ids.copy(), rows.view(np.uint16).copy()


def _compare(found: dict[str, list[dict]], name: str) -> float:
    local, cluster = (statistics.median(one[name] for one in found[engine]) for engine in (LOCAL, RAY))
    return round(cluster / local - 1, 3)


def show_report(report: dict) -> str:
    """The figures as text."""
    lines = [show_machine(report["machine"]), f"{report['nodes']} nodes with {report['cpus_of_each']} CPU each"]
    for engine, rounds in report["rounds"].items():
        told = ", ".join(f"{one['embedding_seconds']:.1f} of {one['seconds']:.1f} s" for one in rounds)
        lines.append(f"{engine:>6}: {rounds[0]['images']:,} images embedded in {told}")
    overhead = report["overhead"]
    lines.append(f"Overhead: {overhead['embedding_seconds']:+.0%} of the embedding, {overhead['seconds']:+.0%} in all")
    lines.append(f"Rows and their order are the same: {'yes' if report['is_same'] else 'NO'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
