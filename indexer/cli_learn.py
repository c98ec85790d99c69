"""The commands by which a model learns: `pretrain`, and `whiten` for its last layer alone.

Rule: a command parses, calls one function, prints; nothing here loads torch before a command runs.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.interrupts import INTERRUPTED, watch_interrupt
from indexer.learn import LearnSettings, WhitenSettings, fit_layer, learn
from indexer.terminal import show_duration, show_learning
from seer_model.zoo import DEFAULT_MODEL

if TYPE_CHECKING:
    from seer_model.pretrain import PretrainReport


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .safetensors file.")
@click.option("--preset", default="mini", show_default=True, help="The recipe; an unknown name lists them.")
@click.option("--from", "model", metavar="MODEL", help="Go on from a model's weights: a name or a file.")
@click.option(
    "--resume", is_flag=True, help="Go on with the run that was begun for this output; begin if there is none."
)
@click.option("--batch-size", type=click.IntRange(2), help="Pictures in a step, over all ranks; the rates go with it.")
@click.option("--epochs", type=float, help="Times that each picture is seen.")
@click.option("--rate", type=float, help="Learning rate at its highest.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the network.")
@click.option("--seed", type=click.IntRange(0), help="Of weights, order and crops.")
@click.option("--window", type=click.IntRange(0), help="Shards one by one, mixed over so many pictures; 0: mix all.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Save and stop after this long.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes; one for each core if left out.")
@click.option(
    "--memory", "memory_gb", type=click.FloatRange(0), default=8.0, show_default=True, help="GB for pictures."
)
@click.option(
    "--save-every", "save_every_seconds", type=click.FloatRange(0), default=300.0, show_default=True,
    help="Seconds between checkpoints.",
)
@click.option("--shard", "is_sharded", is_flag=True, help="Under torchrun: a part of the network on each rank.")
@click.option(
    "--patience", "patience_seconds", type=click.FloatRange(1), default=600.0, show_default=True,
    help="Under torchrun: seconds after which a rank that says nothing is lost.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Pictures to pass over; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def pretrain(as_json: bool, minutes: float | None, memory_gb: float, **given: object) -> None:
    """Let a model teach itself on the pictures in SOURCES, without labels: folders, tar shards, or lists of files."""
    settings = LearnSettings(
        **given, memory_bytes=round(memory_gb * 2**30), piece_seconds=None if minutes is None else 60 * minutes
    )
    with watch_interrupt("Saving and stopping after the step in hand") as should_stop, show_learning() as screen:
        report = learn(settings, on_figures=screen.on_figures, on_message=screen.on_message, should_stop=should_stop)
    if report.rank == 0:  # of those that torchrun starts, one speaks for all
        click.echo(json.dumps({"schema_version": 1, **report.describe()}) if as_json else show_end(report))
    if report.output is None and should_stop():
        sys.exit(INTERRUPTED)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .safetensors file.")
@click.option("--from", "model", metavar="MODEL", default=DEFAULT_MODEL, show_default=True, help="A name or a file.")
@click.option(
    "--readout", default="copies", show_default=True, help="What the layer stands on; an unknown name lists them."
)
@click.option("--numbers", type=click.IntRange(1), help="Of an embedding, at most; for copies 1,024 if left out.")
@click.option("--crops", type=click.IntRange(4), default=4096, show_default=True, help="Four or more for each number.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw of pictures.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes; one for each core if left out.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Pictures to pass over; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def whiten(as_json: bool, **given: object) -> None:
    """Fit a model's last layer on the pictures in SOURCES, without labels: folders, tar shards, or lists of files.

    The file in --output is the model with that layer, for --model wherever one is named. `copies` is the readout that
    SEER's copy detection was published with: squares of three sizes of the last map but one (R-MAC), whitened.
    """
    with watch_interrupt("Stopping; nothing is written") as should_stop, show_learning() as screen:
        report = fit_layer(WhitenSettings(**given), on_message=screen.on_message, should_stop=should_stop)
    if report is None:
        sys.exit(INTERRUPTED)
    shown = "{path}: {output}, {dimension:,} numbers"
    click.echo(json.dumps({"schema_version": 1, **report}) if as_json else shown.format(**report))


def show_end(report: "PretrainReport") -> str:
    """One line on how a piece of a run ended."""
    if report.output:
        return f"{report.output}: {report.step:,} steps in {show_duration(report.seconds)}"
    return f"Stopped at step {report.step:,} of {report.steps:,}; --resume goes on from there."
