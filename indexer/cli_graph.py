"""The commands that find out what is in a collection: `seer graph`, `seer survey`.

Rule: a command parses, calls one function, prints.
"""

import json
import sys
from pathlib import Path

import click

from indexer.cli_upkeep import collection_option, give_way, json_option, nice_option
from indexer.graph import MOST_NEIGHBOURS, NEIGHBOURS, build_graph
from indexer.interrupts import INTERRUPTED, watch_interrupt
from indexer.layout import find_collection
from indexer.survey import survey_collection
from indexer.terminal import show_progress
from indexer.texts import show_graph, show_survey


@click.command()
@click.option(
    "--neighbours", type=click.IntRange(1, MOST_NEIGHBOURS), default=NEIGHBOURS, show_default=True, metavar="K",
    help="How many for each image.",
)  # fmt: skip
@collection_option
@nice_option
@json_option
def graph(neighbours: int, folder: Path | None, niceness: int, as_json: bool) -> None:
    """Find the nearest neighbours of every image: what near-duplicates, groups and the map are made of.

    They hold for the index that answers now; after a build, run it again. What was linked before is gone on with.
    """
    place = find_collection(folder)
    give_way(niceness)
    stopping = watch_interrupt("Stopping after the rows in hand")
    with stopping as should_stop, show_progress() as on_progress:
        report = build_graph(place, neighbours=neighbours, on_progress=on_progress, should_stop=should_stop)
    click.echo(json.dumps(report.describe()) if as_json else show_graph(report))
    sys.exit(INTERRUPTED if report.pending else 0)


@click.command()
@collection_option
@nice_option
@json_option
def survey(folder: Path | None, niceness: int, as_json: bool) -> None:
    """Find groups of look-alikes, odd ones, near-duplicates and a map: what the page shows without a query.

    It holds for the index that answers now; after a build, run it again. What was found before is kept.
    """
    place = find_collection(folder)
    give_way(niceness)
    stopping = watch_interrupt("Stopping after the part in hand")
    with stopping as should_stop, show_progress() as on_progress:
        report = survey_collection(place, on_progress=on_progress, should_stop=should_stop)
        is_stopped = should_stop()
    click.echo(json.dumps(report.describe()) if as_json else show_survey(report))
    if is_stopped:
        sys.exit(INTERRUPTED)
