"""How fast the network embeds pictures that lie ready on the device: python -m benchmarks.embedding

Who takes part is said in `embedders` and `peers`, what is concluded and what is not in README.md.

Rule: figures go to stdout, progress to stderr.
"""

import json
from dataclasses import asdict

import click

from benchmarks.embedders import OURS, Outcome, Setting, compete
from benchmarks.machine import describe_machine, show_machine
from benchmarks.race import Spread, show_rate, show_ratio, spread_ratio, summarise
from seer_model.errors import UserError
from seer_model.ranks import choose_device
from seer_model.regnet import name_architecture


@click.command()
@click.option("--model", default="seer-mini", show_default=True, help="A name, a file, or a size: random weights.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="Of ours: auto, fp32, bf16 or fp16.")
@click.option("--batch-size", type=click.IntRange(1), help="For all; what the backbone chooses if left out.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed batches in a round.")
@click.option("--alone", "is_alone", is_flag=True, help="Without the peers; weights are drawn in seconds.")
@click.option("--compiled", "is_compiled", is_flag=True, help="Also by torch.compile, ours and timm: minutes more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all rounds.")
def main(as_json: bool, device: str, **given: object) -> None:
    """Measure our network beside those of other libraries, with the same weights."""
    try:
        report = measure(Setting(device=choose_device(device), **given))
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def measure(setting: Setting) -> dict:
    """Run the race, and describe it as JSON-able values."""
    machine = describe_machine(setting.device)
    outcome = compete(setting, tell=lambda text: click.echo(text, err=True))
    backbone, gemm = outcome.backbone, summarise(outcome.rounds[outcome.gemm.name])
    return {
        "schema_version": 1,
        "model": backbone.model,
        "architecture": name_architecture(backbone.architecture),
        "device": str(setting.device),
        "precision": backbone.settings.precision,
        "batch_size": backbone.batch_size,
        "steps": setting.steps,
        "machine": machine,
        "flops_per_image": outcome.work.flops,
        "bytes_per_image": outcome.work.bytes,
        "gemm": {"size": outcome.gemm.size, "flops_per_second": gemm["median"] * outcome.work.flops},
        "agreement": outcome.agreement,
        "apart": outcome.apart,
        "absent": outcome.absent,
        "memory": outcome.memory,
        "rounds": {name: [one.describe() for one in rounds] for name, rounds in outcome.rounds.items()},
        "images_per_second": {name: summarise(rounds) for name, rounds in outcome.rounds.items()},
        "ratios": {name: asdict(ratio) for name, ratio in find_ratios(outcome).items()},
    }


def find_ratios(outcome: Outcome) -> dict[str, Spread]:
    """Ours by each of the others; by the matrix product it is the share of the ceiling that is reached."""
    ours = outcome.rounds[OURS]
    return {f"{OURS} / {name}": spread_ratio(ours, rounds) for name, rounds in outcome.rounds.items() if name != OURS}


def show_report(report: dict) -> str:
    """The figures as text."""
    gemm = report["gemm"]
    lines = [
        f"{report['model']} on {report['device']}: {report['precision']}, batch {report['batch_size']}, "
        f"{report['flops_per_image'] / 1e9:,.2f} GFLOP a picture",
        show_machine(report["machine"]),
        f"GEMM {' x '.join(map(str, gemm['size']))}: {gemm['flops_per_second'] / 1e12:,.3f} TFLOP/s",
        *show_memory(report["memory"]),
        f"Different pictures have a cosine of {report['apart']:.3f} on average",
        *(f"  {name:<36} cosine with ours {least:.6f} or more" for name, least in report["agreement"].items()),
        *(f"  {name:<36} absent: {reason}" for name, reason in report["absent"].items()),
        f"Median of {len(report['rounds'][OURS])} rounds of {report['steps']} batches (least to most):",
        *(show_rate(name, rate) for name, rate in report["images_per_second"].items()),
        *(show_ratio(name, ratio) for name, ratio in report["ratios"].items()),
    ]
    return "\n".join(lines)


def show_memory(memory: dict[str, int]) -> list[str]:
    """One line on a GPU, none on a CPU."""
    told = {name: f"{size / 1e9:,.2f} GB" for name, size in memory.items()}
    return [f"Memory of the GPU: {told['resting']} before a batch, {told['most']} at most within it"] if told else []


if __name__ == "__main__":
    main()
