"""The commands that look after a collection: `check`, `prune`, `relocate`, `forget`; and options that all share.

Rule: a command parses, calls one function, prints.
"""

import json
import os
import sys
from pathlib import Path

import click

from indexer.check import SAMPLE, check_collection
from indexer.layout import find_collection
from indexer.texts import escape, show_count, show_path
from indexer.upkeep import forget_folder, prune_collection, relocate_folder
from indexer.urls import make_absolute

collection_option = click.option(
    "--collection",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The collection's folder; may be left out where there is only one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
nice_option = click.option(
    "--nice", "niceness", type=click.IntRange(0, 19), default=10, show_default=True,
    help="How far to give way to the page and to other programs; 0: not at all.",
)  # fmt: skip


def give_way(niceness: int) -> None:
    """Lower this process's priority, and that of every thread and process it starts from now on, where that can be."""
    if hasattr(os, "nice"):  # Not on Windows.
        os.nice(niceness)


@click.command()
@click.option("--repair", is_flag=True, help="Put right what follows from the catalog and the pictures.")
@click.option("--sample", type=click.IntRange(0), default=SAMPLE, show_default=True, help="Images to embed again.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@collection_option
@json_option
def check(repair: bool, sample: int, device: str, folder: Path | None, as_json: bool) -> None:
    """Compare files, catalog, embeddings, index and thumbnails; exit status 1 if something is left to be put right."""
    report = check_collection(find_collection(folder), repair=repair, sample=sample, device=device)
    if as_json:
        click.echo(json.dumps(report.describe()))
    else:
        click.echo(
            f"Looked at {show_count(report.files, 'file')}, {show_count(report.rows, 'embedding')}, "
            f"{show_count(report.generations, 'generation')}, {show_count(report.thumbnails, 'thumbnail')}, "
            f"{show_count(report.marks, 'mark')}; "
            f"{show_count(report.sample, 'image')} embedded again."
        )
        for problem in report.problems:
            click.echo(f"{problem.part:12} {escape(problem.text)}")
        click.echo("All is well." if report.is_sound else "Something is left to be put right.")
        if report.waiting:
            click.echo(f"{show_count(report.waiting, 'file')} to be read by the next build; run seer build.")
    sys.exit(0 if report.is_sound else 1)


@click.command()
@collection_option
@json_option
def prune(folder: Path | None, as_json: bool) -> None:
    """Let go of embeddings and thumbnails of pictures that are gone.

    They are left out of every answer as soon as a build has seen that they are gone; this gives their space back. The
    old embeddings themselves are deleted when the next generation but one is published.
    """
    report = prune_collection(find_collection(folder))
    if as_json:
        click.echo(json.dumps(report.describe()))
        return
    click.echo(
        f"{show_count(report.removed, 'embedding')} and {show_count(report.thumbnails, 'thumbnail')} of gone images "
        f"removed; {show_count(report.images, 'image')} stay, generation {report.generation}."
    )


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@collection_option
@json_option
def relocate(old: Path, new: Path, folder: Path | None, as_json: bool) -> None:
    """Say that the pictures that were below the folder OLD are below NEW now. Nothing is read or embedded again."""
    place = find_collection(folder)
    files = relocate_folder(place, old, new)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "files": files}))
    else:
        click.echo(f"{show_count(files, 'file')} now stand below {show_path(make_absolute(new))}.")


@click.command()
@click.argument("picture_folder", metavar="FOLDER", type=click.Path(path_type=Path))
@collection_option
@json_option
def forget(picture_folder: Path, folder: Path | None, as_json: bool) -> None:
    """Take the picture folder FOLDER out of a collection. The pictures in it are not touched."""
    files = forget_folder(find_collection(folder), picture_folder)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "files": files}))
    else:
        click.echo(f"{show_count(files, 'file')} left the collection; seer prune gives back their space.")
