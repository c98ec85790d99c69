"""How much memory a build takes, by how many images are in: python -m benchmarks.flat_memory

A collection is made of a folder in four builds that go on from one another, up to 1/8, 1/4, 1/2 and all of its
pictures. Every second of each, the memory of its process and of all that it started is read.

Rule: figures go to stdout, progress to stderr. A peak between two looks is missed; what is told is the largest look.
"""

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.memory import sampling
from benchmarks.seer_command import CommandFailed, make_build, read_result, start
from indexer.sources import Walk, resolve_folders
from seer_model.errors import UserError

PARTS = (8, 4, 2, 1)
"""The builds end with one by so many of all pictures."""


@click.command()
@click.option("--pictures", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="seer-mini", show_default=True, help="A model's name or file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--every", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all samples.")
def main(pictures: Path, model: str, device: str, every: float, as_json: bool) -> None:
    """Measure the memory of `seer build` against the number of images."""
    try:
        report = measure(pictures, every, ("--model", model, "--device", device))
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(pictures: Path, every: float, how: tuple[str, ...]) -> dict:
    """Build in four parts, and describe it as JSON-able values."""
    import torch

    from benchmarks.machine import describe_machine

    machine = describe_machine(torch.device("cpu"))
    total = sum(1 for _ in Walk(resolve_folders([pictures]), ()))
    builds, done = [], 0
    with tempfile.TemporaryDirectory(prefix="seer-memory-") as scratch:
        for upto in sorted({max(1, total // part) for part in PARTS}):
            limit = ("--limit", str(upto - done))
            builds.append(watch_build(make_build(pictures, Path(scratch) / "collection", *how, *limit), every))
            done = upto
            click.echo(show_build(builds[-1]), err=True)
    return {"schema_version": 1, "how": how, "machine": machine, "files": total, "every": every, "builds": builds}


def watch_build(command: list[str], every: float) -> dict:
    """Run one build, and describe what it held. Raises: CommandFailed."""
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with sampling(process.pid, every) as samples:
        output, _ = process.communicate()
    if process.returncode:
        raise CommandFailed(f"seer build ended with status {process.returncode}. Run it by itself to see why.")
    result, largest = read_result(output.decode()), max(samples, key=lambda sample: sample.pss)
    return {
        "images": result["images"],
        "embedded": result["embedded"],
        "seconds": result["seconds"],
        "largest": asdict(largest),
        "samples": [asdict(sample) for sample in samples],
    }


def show_build(build: dict) -> str:
    """One row of the table."""
    largest = build["largest"]
    return (
        f"{build['images']:>9,}  {build['embedded']:>9,}  {largest['pss'] / 1e6:>8,.0f}  {largest['rss'] / 1e6:>8,.0f}"
        f"  {largest['processes']:>9}  {largest['seconds']:>6,.0f} of {build['seconds']:,.0f} s"
    )


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine

    lines = [
        show_machine(report["machine"]),
        f"seer build {' '.join(report['how'])}; a look every {report['every']:g} s",
        "   images   embedded    PSS MB    RSS MB  processes  at",
        *map(show_build, report["builds"]),
        "images: that can be searched after this build; embedded: in this build",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
