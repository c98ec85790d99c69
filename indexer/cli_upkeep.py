"""The commands that look after a collection: `prune`, `relocate`.

Rule: a command parses, calls one function, prints.
"""

import json
from pathlib import Path

import click

from indexer.layout import find_collection
from indexer.texts import show_count, show_path
from indexer.upkeep import prune_collection, relocate_folder

collection_option = click.option(
    "--collection",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The collection's folder; may be left out where there is only one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


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
        click.echo(f"{show_count(files, 'file')} now stand below {show_path(new.absolute())}.")
