"""The command that lets another search engine hold a collection: `seer publish`; and the option that asks it.

Rule: a command parses, calls one function, prints.
"""

import json
import sys
from pathlib import Path

import click

from indexer.cli_upkeep import collection_option, give_way, json_option, nice_option
from indexer.engine_publish import DEFAULT_INDEX, publish_collection
from indexer.interrupts import INTERRUPTED, watch_interrupt
from indexer.layout import find_collection
from indexer.milvus import FORMS, INDEXES, read_address
from indexer.terminal import show_progress
from indexer.texts import show_publication

VARIABLE = "SEER_SEARCH_ENGINE"


def _require_address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    # Now, and not on the page.
    if text:
        read_address(text, "collection")
    return text


engine_option = click.option(
    "--search-engine", metavar="URL", envvar=VARIABLE, callback=_require_address,
    help=f"Ask Milvus for candidates, where seer publish has put them: {FORMS}.",
)  # fmt: skip


@click.command()
@click.option("--to", "address", required=True, metavar="URL", help=f"Where to: {FORMS}.")
@click.option(
    "--index", type=click.Choice(tuple(INDEXES)), default=DEFAULT_INDEX, show_default=True, help="What Milvus makes."
)
@collection_option
@nice_option
@json_option
def publish(address: str, index: str, folder: Path | None, niceness: int, as_json: bool) -> None:
    """Put the generation that answers into Milvus, for seer search and seer ui with --search-engine.

    Who asks goes over to it when all is there. A run that was stopped is gone on with; after a build, run it again.
    """
    place = find_collection(folder)
    give_way(niceness)
    stopping = watch_interrupt("Stopping after what is in hand")
    with stopping as should_stop, show_progress() as on_progress:
        report = publish_collection(place, address, index=index, on_progress=on_progress, should_stop=should_stop)
    click.echo(json.dumps(report.describe()) if as_json else show_publication(report))
    sys.exit(INTERRUPTED if report.recall is None else 0)
