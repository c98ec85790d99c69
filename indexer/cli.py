"""The command line that asks: `status`, `evaluate`, `doctor`; also `python -m indexer`, with all others.

Rule: a command parses, calls one function, prints. What the person can put right becomes text in `CommandGroup` alone.
"""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import click

from indexer.cli_build import build
from indexer.cli_graph import graph, survey
from indexer.cli_learn import pretrain, whiten
from indexer.cli_publish import publish
from indexer.cli_search import search
from indexer.cli_upkeep import check as check_command
from indexer.cli_upkeep import collection_option, forget, json_option, prune, relocate
from indexer.collection import Collection
from indexer.doctor import examine
from indexer.edits import KINDS
from indexer.evaluate import evaluate
from indexer.evaluation import LABELS_FROM_FOLDERS, EvaluateSettings, read_side_range
from indexer.evaluation_plot import plot_evaluation, require_plot
from indexer.evaluation_text import show_evaluation
from indexer.interrupts import INTERRUPTED
from indexer.layout import find_collection
from indexer.terminal import show_progress
from indexer.texts import describe_status, show_status, show_unsearchable
from seer_model.cli import models
from seer_model.errors import UserError
from seer_model.zoo import DEFAULT_MODEL

SHOWN_FAILURES = 20
"""Of each kind."""


class CommandGroup(click.Group):
    """A group whose commands may raise UserError: its text goes to stderr, and the exit status is 1."""

    def main(self, *args: object, standalone_mode: bool = True, **kwargs: object) -> object:
        """As click's own, with our exit statuses: 0 done, 1 to be put right, 2 wrong usage, 130 interrupted."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        # Else Python prints warnings of what has no log yet.
        logging.getLogger("indexer").addHandler(logging.NullHandler())
        try:
            status = super().main(*args, standalone_mode=False, **kwargs)
        except UserError as error:
            click.echo(f"seer: {error}", err=True)
            status = 1
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else 0)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seer", prog_name="seer")
def cli() -> None:
    """Find pictures by pictures, on your own computer."""


cli.add_command(build)
cli.add_command(pretrain)
cli.add_command(whiten)
cli.add_command(search)
cli.add_command(graph)
cli.add_command(survey)
cli.add_command(publish)
cli.add_command(models)
cli.add_command(check_command)
cli.add_command(prune)
cli.add_command(relocate)
cli.add_command(forget)


@cli.command()
@collection_option
@click.option("--all", "shows_all", is_flag=True, help="Name every file that cannot be searched, however many.")
@json_option
def status(folder: Path | None, shows_all: bool, as_json: bool) -> None:
    """Say what a collection holds, and what cannot be searched and why."""
    most = -1 if shows_all or as_json else SHOWN_FAILURES
    with Collection(find_collection(folder)) as collection:
        told = collection.read_status()
        counts = collection.count_unsearchable()
        files = [file for kind in counts for file in collection.list_unsearchable(0, most, kind=kind)]
    if as_json:
        click.echo(json.dumps(describe_status(told, files)))
        return
    click.echo(show_status(told))
    if files:
        click.echo(show_unsearchable(files, counts))


@cli.command("evaluate")
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path))
@collection_option
@click.option("--labels", metavar="CSV|folders", help="A table file,label; or: the names of the pictures' folders.")
@click.option("--model", help="A model's name (seer models list) or a file; MODEL#NAME: another readout (models show).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--distractors",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR|TAR",
    help="Pictures to search among; may be repeated.",
)
@click.option(
    "--distractors-px",
    "sides",
    multiple=True,
    metavar="LEAST-MOST",
    help="Only those whose short side is LEAST to MOST px (128-, -64, 64-127); repeated: figures for each.",
)
@click.option(
    "--copies", type=click.IntRange(0), default=1000, show_default=True, help="Edit at most this many; 0: no copies."
)
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="EDIT",
    help=f"Only {', '.join(KINDS)}, or one strength as in 'crop 60 %'; may be repeated.",
)
@click.option("--limit", type=click.IntRange(2), help="Evaluate at most this many pictures, drawn at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn at random.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the figures, too.")
@json_option
def evaluate_command(
    pictures: tuple[Path, ...],
    folder: Path | None,
    labels: str | None,
    model: str | None,
    sides: tuple[str, ...],
    distractors: tuple[Path, ...],
    plot: Path | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Measure how well a model finds PICTURES (folders, tar shards or lists), with labels or without.

    With labels, pictures of one label should find each other; edited copies should find their originals in any case.
    Without PICTURES: the files of the CSV, or the collection's folders, with its model.
    """
    if plot:
        require_plot(plot)
    if folder is not None or (not pictures and labels in (None, LABELS_FROM_FOLDERS)):
        with Collection(find_collection(folder)) as collection:
            told = collection.read_status()
        pictures, model = pictures or tuple(told.folders), model or told.model
    chosen = EvaluateSettings(
        model=model or DEFAULT_MODEL, distractor_sides=tuple(map(read_side_range, sides)), **settings
    )
    with show_progress() as on_progress:
        found = evaluate(pictures, chosen, labels=labels, distractors=distractors, on_progress=on_progress)
    click.echo(json.dumps(found.describe()) if as_json else show_evaluation(found))
    if plot:
        plot_evaluation(found, plot)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this computer; the report holds nothing personal and can be pasted into a bug report."""
    findings = examine()
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{finding.state:4}  {finding.name:11}  {finding.text}")
    sys.exit(any(finding.state == "bad" for finding in findings))
