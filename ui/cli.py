"""The `seer` command, composed: what needs no page (`indexer`), and here `ui` and `demo`.

Rule: a command parses, calls one function, prints. What the person can put right becomes text in `CommandGroup` alone.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from indexer.cli import CommandGroup
from indexer.cli import cli as indexer_group
from indexer.cli_build import build, choose_collection
from indexer.cli_graph import survey
from indexer.cli_publish import engine_option
from indexer.layout import find_collection, list_collections, read_home
from ui.password import VARIABLE, read_password
from ui.samples import SampleCounts, gather_samples
from ui.server import is_loopback, require_free, serve

SAMPLES = "demo-pictures"
DEMO = "demo"
LOOPBACK = "127.0.0.1"

port_option = click.option(
    "--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0: any that is free."
)


@click.command("ui")
@click.option(
    "--collection", "folders", multiple=True, type=click.Path(path_type=Path), metavar="FOLDER",
    help="The collection; may be given again, and the page has a switch. Without it: all in the default place.",
)  # fmt: skip
@click.option(
    "--host", default=LOOPBACK, show_default=True,
    help="Where to listen. 0.0.0.0: to all networks. Other computers can call it only if it has a password.",
)  # fmt: skip
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME",
    help="Another name by which the page may be called, as in pictures.lan; may be given again.",
)  # fmt: skip
@click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE",
    help=f"A file with the page's password, for its owner's eyes only. Without it, what {VARIABLE} says.",
)  # fmt: skip
@port_option
@engine_option
@click.option("--no-kept-uploads", is_flag=True, help="Keep no dropped picture for links to its answer.")
def ui_command(
    folders: tuple[Path, ...],
    host: str,
    names: tuple[str, ...],
    password_file: Path | None,
    port: int,
    search_engine: str | None,
    no_kept_uploads: bool,
) -> None:
    """Show collections in the browser; Ctrl-C ends it."""
    password, keeps = read_password(password_file), not no_kept_uploads
    places = find_or_wait(folders)
    options = {"names": names, "keeps_uploads": keeps, "search_engine": search_engine}
    serve_page(places, host, port, password, **options)


@click.command()
@click.argument("pictures", required=False, type=click.Path(path_type=Path))
@port_option
@click.pass_context
def demo(context: click.Context, pictures: Path | None, port: int) -> None:
    """From nothing to the page: sample pictures, or the folder PICTURES.

    They become a collection as with seer build and seer survey, and the page shows it. Running it again costs little.
    """
    # Asked before the build: minutes later would be late for it.
    require_free(LOOPBACK, port)
    password = read_password(None)
    if pictures is None:
        pictures, place = read_home() / SAMPLES, read_home() / "collections" / DEMO
        click.echo(show_samples(gather_samples(pictures), pictures))
    else:
        place = choose_collection([pictures], None)
    context.invoke(build, pictures=(pictures,), folder=place)
    context.invoke(survey, folder=place)
    serve_page([place], LOOPBACK, port, password)


def find_or_wait(folders: Sequence[Path]) -> list[Path]:
    """The collections to show; none: those in the default place, also if they are made later.

    Raises: as `indexer.layout.find_collection`, for those that are named, and for the only one there is.
    """
    if not folders and len(list_collections()) == 1:
        find_collection(None)
    return [find_collection(Path(os.path.abspath(folder))) for folder in dict.fromkeys(folders)]


def serve_page(places: Sequence[Path], host: str, port: int, password: str | None, **options: object) -> None:
    """Serve until Ctrl-C, which is the way to end it and so is said nothing about."""
    serve(places, host, port, lambda addresses: say_ready(addresses, host, password), password=password, **options)


def say_ready(addresses: Sequence[str], host: str, password: str | None) -> None:
    """Where the page is, and what stands between it and others."""
    click.echo(f"The page is at {addresses[0]} (Ctrl-C ends it)")
    for address in addresses[1:]:
        click.echo(f"        and at {address}")
    if password is not None:
        click.echo("It asks for a password; the user's name is free.")
    if not is_loopback(host):
        click.echo("Nothing is encrypted on the way: in a network that is not yours, put a proxy with TLS before it.")


def show_samples(counts: SampleCounts, folder: Path) -> str:
    """How many sample pictures there are, and where."""
    photos, copies = sum(counts.originals.values()), sum(counts.edited.values())
    return f"{photos} photos and {copies} edited copies of them in {folder}"


main = CommandGroup(
    "seer",
    commands={**indexer_group.commands, "ui": ui_command, "demo": demo},
    params=indexer_group.params,
    context_settings=indexer_group.context_settings,
    help=indexer_group.help,
)
