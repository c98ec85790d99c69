"""A whole pretraining run in so many minutes: python -m benchmarks.timed_pretraining SOURCE... --minutes M --output F

A run's length must be known when it begins, as its rate falls along a curve; how many epochs a computer has time for is
measured first. The rest is `seer pretrain`, and the model once more in half precision beside its output.

Rule: a run that has begun keeps its length. One that is slower than was measured takes longer; SIGTERM saves it,
--piece stops it, saved, and the same command goes on with it.
"""

from pathlib import Path

import click

HALF = "-half"
SAVING = ("--save-every", "60")
USED = 0.85
"""Part of the time that is planned with: the rest are pictures that are waited for, starts, and what is saved."""


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A .safetensors file.")
@click.option("--preset", default="mini", show_default=True)
@click.option("--minutes", required=True, type=click.FloatRange(0, min_open=True), help="Of training.")
@click.option("--piece", type=click.FloatRange(0, min_open=True), help="Minutes after which it stops, saved.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="That the rate is measured by.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes; one for each core if left out.")
def main(
    sources: tuple[Path, ...],
    output: Path,
    preset: str,
    minutes: float,
    piece: float | None,
    device: str,
    steps: int,
    workers: int | None,
) -> None:
    """Train for so long, or go on with it."""
    from seer_model.errors import UserError

    try:
        epochs = read_epochs(output) or fit_epochs(sources, preset, device, minutes, steps)
        pieces = ["--minutes", str(piece)] if piece else []
        decoding = ["--workers", str(workers)] if workers else []
        how = ["--preset", preset, "--epochs", str(epochs), "--device", device, *pieces, *decoding, *SAVING]
        run_seer("pretrain", *map(str, sources), *how, "--resume", "--output", str(output))
        if output.exists():
            run_seer("models", "convert", str(output), str(name_half(output)), "--half")
    except UserError as error:
        raise click.ClickException(str(error)) from error


def name_half(output: Path) -> Path:
    """Where the model lies in half precision."""
    return output.with_name(f"{output.stem}{HALF}{output.suffix}")


def read_epochs(output: Path) -> float | None:
    """Of the run that has begun for this output; None if there is none. Raises: TrainingError."""
    from seer_model.run_folder import RunFolder

    run = RunFolder(output)
    return run.read_settings()["settings"]["epochs"] if run.has_checkpoint else None


def fit_epochs(sources: tuple[Path, ...], preset: str, device: str, minutes: float, steps: int) -> float:
    """How many there is time for, as training goes on this device.

    Raises: SourceError, PileError, SettingsError, DeviceError.
    """
    from benchmarks.training_memory import take_steps
    from indexer.pile import list_sources
    from seer_model.learner import start_learner
    from seer_model.presets import find_preset
    from seer_model.ranks import Ranks, choose_device

    place, pictures = choose_device(device), len(list_sources(sources).places)
    rate = take_steps(start_learner(find_preset(preset), Ranks(device=place)), place, steps)
    epochs = round(rate * minutes * 60 * USED / pictures, 2)
    click.echo(f"{rate:,.0f} images/s, {pictures:,} pictures: {epochs:,} epochs in {minutes:g} minutes", err=True)
    return epochs


def run_seer(*words: str) -> None:
    """One of seer's commands, in this process. Raises: UserError; SystemExit where it was interrupted."""
    from indexer.cli import cli

    cli(words, prog_name="seer", standalone_mode=False)


if __name__ == "__main__":
    main()
