"""How long `seer build` takes when nothing has changed, beside a walk over the same files:
python -m benchmarks.nothing_new

Both are whole commands, run in turn; what they read of the disk is in memory from an untimed run before.

Rule: figures go to stdout, progress to stderr. A build that finds something to do is refused, not measured.
"""

import json
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.seer_command import CommandFailed, Run, make_build, read_result, run_to_end
from indexer.layout import find_collection
from seer_model.errors import UserError

OURS, WALK = "seer build, nothing new", "find -printf"
CHANGES = ("embedded", "moved", "removed", "pending")


@click.command()
@click.option("--pictures", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--collection", required=True, type=click.Path(path_type=Path), help="Made of these pictures before.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all rounds.")
def main(pictures: Path, collection: Path, rounds: int, as_json: bool) -> None:
    """Measure a build that has nothing to do."""
    try:
        report = measure(pictures, find_collection(collection), rounds)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(pictures: Path, collection: Path, rounds: int) -> dict:
    """Run both in turn, and describe it as JSON-able values."""
    commands = {
        OURS: make_build(pictures, collection),
        WALK: ["find", str(pictures), "-printf", "%p %s %T@\\n"],
    }
    files = require_nothing_new(run_to_end([*commands[OURS], "--limit", "0"]))
    entries = len(run_to_end(commands[WALK]).output.splitlines())
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in commands if number % 2 == 0 else reversed(commands):
            runs[name].append(run_to_end(commands[name], is_kept=False))
            click.echo(f"round {number + 1} of {rounds}: {name} {runs[name][-1].seconds:.3f} s", err=True)
    return describe(runs, files, entries)


def require_nothing_new(run: Run) -> int:
    """The files that a build found unchanged. Raises: CommandFailed if it had anything to do."""
    result = read_result(run.output)
    changes = {name: result[name] for name in CHANGES if result[name]}
    if changes:
        raise CommandFailed(f"The build had something to do: {changes}. Let it end with seer build, and measure again.")
    return result["found"]


def describe(runs: dict[str, list[Run]], files: int, entries: int) -> dict:
    """What was found as JSON-able values."""
    # Not at the top: see the rule of `seer_command`.
    import torch

    from benchmarks.machine import describe_machine
    from benchmarks.race import spread

    ratio = spread(ours.seconds / walk.seconds for ours, walk in zip(runs[OURS], runs[WALK], strict=True))
    return {
        "schema_version": 1,
        "files": files,
        "entries": entries,
        "machine": describe_machine(torch.device("cpu")),
        "rounds": {
            name: [{"seconds": run.seconds, "peak_bytes": run.peak_bytes} for run in taken]
            for name, taken in runs.items()
        },
        "seconds": {name: asdict(spread(run.seconds for run in taken)) for name, taken in runs.items()},
        "peak_bytes": {name: max(run.peak_bytes for run in taken) for name, taken in runs.items()},
        "ratios": {f"{OURS} / {WALK}": asdict(ratio)},
    }


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine
    from benchmarks.race import show_ratio

    rows = (
        f"  {name:<28} {seconds['median']:.3f} s  ({seconds['least']:.3f} to {seconds['most']:.3f})  "
        f"at most {report['peak_bytes'][name] / 1e6:,.0f} MB"
        for name, seconds in report["seconds"].items()
    )
    lines = [
        f"{report['files']:,} pictures in {report['entries']:,} files and folders",
        show_machine(report["machine"]),
        f"Median of {len(report['rounds'][OURS])} rounds (least to most):",
        *rows,
        *(show_ratio(name, ratio) for name, ratio in report["ratios"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
