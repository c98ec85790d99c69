"""How fast one SwAV training step of seer is, beside a step written the obvious way: python -m benchmarks.training_step

What takes part is said in `contenders`, what is concluded and what is not in README.md.

Rule: figures go to stdout, progress to stderr. Nothing here loads torch before the command runs: the decoding processes
import this module again, and those of `seer pretrain` do not load torch either.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seer_model.errors import UserError

if TYPE_CHECKING:
    from benchmarks.contenders import Setting
    from benchmarks.race import Round, Spread


@click.command()
@click.option(
    "--pictures", "sources", multiple=True, required=True, type=click.Path(path_type=Path), metavar="SOURCE",
    help="A folder, tar shard or file list; may be repeated.",
)  # fmt: skip
@click.option("--preset", default="tiny", show_default=True, help="The recipe; an unknown name lists them.")
@click.option("--batch-size", type=click.IntRange(2), help="Pictures in a step, for all.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of ours; the reference has fp32.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps in a round.")
@click.option("--limit", type=click.IntRange(1), help="Pictures that are used; 16 batches if left out.")
@click.option("--workers", type=click.IntRange(1), help="Processes that decode or crop; one for each core if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all rounds.")
def main(
    as_json: bool, preset: str, batch_size: int | None, precision: str | None, device: str, **given: object
) -> None:
    """Measure one training step of seer against a plainly written one."""
    from benchmarks.contenders import Setting
    from seer_model.presets import change_recipe, find_preset
    from seer_model.ranks import choose_device

    try:
        recipe = change_recipe(find_preset(preset), batch_size=batch_size, precision=precision)
        report = measure(Setting(recipe=recipe, device=choose_device(device), **given), preset)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(setting: "Setting", preset: str) -> dict:
    """Run the race, and describe it as JSON-able values."""
    from benchmarks.contenders import compete
    from benchmarks.machine import describe_machine
    from benchmarks.race import summarise

    machine = describe_machine(setting.device)
    found = compete(setting, tell=lambda text: click.echo(text, err=True))
    return {
        "schema_version": 1,
        "preset": preset,
        "device": str(setting.device),
        "workers": setting.count_workers(),
        "steps": setting.steps,
        "recipe": setting.recipe.describe(),
        "machine": machine,
        "rounds": {name: [one.describe() for one in rounds] for name, rounds in found.items()},
        "images_per_second": {name: summarise(rounds) for name, rounds in found.items()},
        "ratios": {name: asdict(ratio) for name, ratio in find_ratios(found).items()},
    }


def find_ratios(found: "dict[str, list[Round]]") -> "dict[str, Spread]":
    """What is concluded: ours by the reference, by the reference without decoding, and by the network alone."""
    from benchmarks import contenders
    from benchmarks.race import spread_ratio

    names = (contenders.REFERENCE, contenders.DECODED, contenders.NETWORK)
    return {f"{contenders.OURS} / {name}": spread_ratio(found[contenders.OURS], found[name]) for name in names}


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine
    from benchmarks.race import show_rate, show_ratio

    recipe = report["recipe"]
    crops = " + ".join(f"{kind['count']} x {kind['side_px']} px" for kind in recipe["crops"])
    rounds = max(map(len, report["rounds"].values()))
    lines = [
        f"One training step: preset {report['preset']}, RegNetY-{recipe['architecture']}, crops {crops}, "
        f"batch {recipe['batch_size']}, {recipe['precision']}, on {report['device']}, {report['workers']} workers",
        show_machine(report["machine"]),
        f"Median of {rounds} rounds of {report['steps']} steps (least to most):",
        *(show_rate(name, rate) for name, rate in report["images_per_second"].items()),
        *(show_ratio(name, ratio) for name, ratio in report["ratios"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
