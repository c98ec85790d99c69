"""The command line that builds and asks: `build`, `search`, `status`, `doctor`; also `python -m indexer`.

Rule: a command parses, calls one function, prints. What the person can put right becomes text in `CommandGroup` alone.
"""

import base64
import json
import logging
import os
import shlex
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from logging.handlers import RotatingFileHandler
from pathlib import Path
from time import perf_counter

import click

from indexer.collection import UNTRAINED, Collection, CollectionStatus, Failure, Neighbour, show_similarity
from indexer.doctor import examine
from indexer.errors import explain_refusal
from indexer.job import build_collection
from indexer.layout import LOG, find_collection, name_collection, require_own_place
from indexer.report import BuildReport, Watchers
from indexer.settings import BuildSettings
from indexer.sources import resolve_folders
from indexer.terminal import show_duration, show_progress
from seer_model.errors import PictureError, UserError

LOG_BYTES = 1 << 20
INTERRUPTED = 130
SHOWN_FAILURES = 20


class CommandGroup(click.Group):
    """A group whose commands may raise UserError: its text goes to stderr, and the exit status is 1."""

    def main(self, *args: object, standalone_mode: bool = True, **kwargs: object) -> object:
        """As click's own, with our exit statuses: 0 done, 1 to be put right, 2 wrong usage, 130 interrupted."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
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


collection_option = click.option(
    "--collection",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The collection's folder; may be left out where there is only one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
verbose_option = click.option("--verbose", is_flag=True, help="Say more while it runs.")


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seer", prog_name="seer")
def cli() -> None:
    """Find pictures by pictures, on your own computer."""


@cli.command()
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path))
@collection_option
@click.option("--model", help="A model's name (seer models list) or a checkpoint file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Files or folders to pass over; may be repeated.")
@click.option("--max-megapixels", type=float, default=200.0, show_default=True, help="Larger pictures are not read.")
@click.option("--limit", type=int, help="Read at most this many new files now; the rest stays pending.")
@click.option("--retry-failed", is_flag=True, help="Try the pictures again that could not be read before.")
@click.option(
    "--accept-removals", is_flag=True, help="Believe that a folder which is empty now was emptied on purpose."
)
@json_option
@verbose_option
def build(pictures: tuple[Path, ...], folder: Path | None, as_json: bool, verbose: bool, **settings: object) -> None:
    """Bring a collection up to date with the folders PICTURES.

    Unchanged files are left alone. Without PICTURES the collection's own folders are looked through again.
    """
    place = choose_collection(list(pictures), folder)
    report = run_build(place, list(pictures), BuildSettings(**settings), verbose=verbose)
    click.echo(json.dumps(report.describe()) if as_json else show_report(report, place))
    if report.is_stopped:
        click.echo(
            "Stopped before the end; what was embedded is kept, and can be searched once a build has ended. "
            "Run again to go on.",
            err=True,
        )
        sys.exit(INTERRUPTED)
    with Collection(place) as collection:
        show_untrained(collection.read_status())


@cli.command()
@click.argument("query", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="How many neighbours.")
@click.option(
    "--at-least", type=click.FloatRange(-1, 1), metavar="S", help="Leave out what is less similar than S (-1 to 1)."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@collection_option
@json_option
def search(query: Path, count: int, at_least: float | None, device: str, folder: Path | None, as_json: bool) -> None:
    """Print the images most like the picture QUERY, best first; each of an image's files on a line of its own."""
    place = find_collection(folder)
    with Collection(place, device=device) as collection:
        data = query.read_bytes()
        started = perf_counter()
        try:
            neighbours = collection.find_similar(data, count, at_least=at_least)
        except PictureError as error:
            raise PictureError(f"{show_path(query)} cannot be searched with. {error}") from None
        milliseconds = (perf_counter() - started) * 1000
        status = collection.read_status()
    if as_json:
        click.echo(json.dumps(describe_answer(status, neighbours, milliseconds)))
        return
    for neighbour in neighbours:
        for path in neighbour.paths:
            click.echo(f"{show_similarity(neighbour)}\t{show_path(path)}")
    if not neighbours:
        click.echo("Nothing is that similar." if status.images else "The collection holds no image yet.", err=True)
    show_untrained(status)


@cli.command()
@collection_option
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Say what a collection holds, and what cannot be searched and why."""
    with Collection(find_collection(folder)) as collection:
        told = collection.read_status()
        failures = collection.list_failures(count=told.failed if as_json else SHOWN_FAILURES)
    if as_json:
        click.echo(json.dumps(describe_status(told, failures)))
        return
    click.echo(show_status(told))
    for failure in failures:
        click.echo(f"  {show_path(failure.path)}: {failure.reason}")
    if told.failed > len(failures):
        click.echo(f"  ... and {told.failed - len(failures)} more")
    if told.is_trained is False:
        click.echo(UNTRAINED)


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


def choose_collection(pictures: list[Path], folder: Path | None) -> Path:
    """Where a build goes: the folder given, the place that belongs to these pictures, or the only one there is.

    Raises: SourceError, CollectionMissing, CollectionAmbiguous, CollectionPlaceTaken; nothing is made then.
    """
    folders = resolve_folders(pictures)
    if not folders:
        return find_collection(folder).absolute()
    place = name_collection(folders) if folder is None else folder.resolve()
    require_own_place(place)
    return place


def run_build(place: Path, pictures: list[Path], settings: BuildSettings, *, verbose: bool = False) -> BuildReport:
    """Build with progress on stderr, a log file in the collection, and Ctrl-C that keeps the batch in hand."""
    with (
        explain_refusal(place),
        _watch_interrupt() as should_stop,
        show_progress() as on_progress,
        _keep_log(place, verbose) as log,
    ):
        watchers = Watchers(on_progress=on_progress, on_step=log.debug, should_stop=should_stop)
        report = build_collection(place, pictures, settings, watchers)
        log.info("ended: %s", json.dumps(report.describe()))
        return report


def show_report(report: BuildReport, place: Path) -> str:
    """What a build did, in a few lines."""
    changes = (
        f"{report.embedded} embedded, {report.unchanged} unchanged, {report.moved} moved, {report.removed} removed"
    )
    lines = [f"{show_count(report.images, 'image')} can be searched ({changes}) in {show_duration(report.seconds)}."]
    if not report.found:
        lines.append(f"There are no pictures in these folders ({show_count(report.ignored, 'other file')}).")
    if report.pending:
        lines.append(f"{show_count(report.pending, 'file')} still to be read; run again to go on.")
    if report.failed:
        told = f"seer status --collection {shlex.quote(show_path(place))}"
        lines.append(f"{show_count(report.failed, 'file')} cannot be searched; the reasons: {told}")
    return "\n".join([*lines, f"Collection: {show_path(place)}"])


def show_status(told: CollectionStatus) -> str:
    """A collection in a few lines."""
    index = f"{told.index}, recall {told.recall:.3f}" if told.index else "nothing published yet; run: seer build"
    lines = {
        "collection": show_path(told.folder),
        "folders": ", ".join(show_path(folder) for folder in told.folders),
        "images": f"{told.images} searchable, from {show_count(told.files, 'file')} "
        f"({told.failed} failed, {told.pending} pending)",
        "generation": f"{told.generation} of {told.updated:%Y-%m-%d %H:%M}" if told.updated else "none",
        "model": f"{told.model}, {told.dimension} numbers an image" if told.model else "none yet",
        "index": index,
    }
    return "\n".join(f"{name:11} {text}" for name, text in lines.items())


def show_path(path: Path) -> str:
    """A path for a terminal: what is not UTF-8 or not printable is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(ascii(letter)[1:-1] if unicodedata.category(letter)[0] == "C" else letter for letter in text)


def show_untrained(told: CollectionStatus) -> None:
    """One line on stderr when the model has not been trained."""
    if told.is_trained is False:
        click.echo(UNTRAINED, err=True)


def show_count(number: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def describe_status(told: CollectionStatus, failures: list[Failure]) -> dict:
    """A status as JSON-able values."""
    return {
        "schema_version": 1,
        **asdict(told),
        "folder": _escape(told.folder.absolute()),
        "folders": [_escape(folder) for folder in told.folders],
        "updated": told.updated.isoformat() if told.updated else None,
        "failures": [
            {"path": _escape(failure.path), "reason": failure.reason, "when": failure.when.isoformat()}
            for failure in failures
        ],
    }


def describe_answer(told: CollectionStatus, neighbours: list[Neighbour], milliseconds: float) -> dict:
    """An answer as JSON-able values; a path that is not UTF-8 comes escaped, and whole in `path_bytes` (base64)."""
    return {
        "schema_version": 1,
        "collection": _escape(told.folder.absolute()),
        "generation": told.generation,
        "exact": told.recall == 1.0,
        "recall": told.recall,
        "milliseconds": round(milliseconds, 3),
        "neighbours": [_describe_neighbour(neighbour) for neighbour in neighbours],
    }


def _describe_neighbour(neighbour: Neighbour) -> dict:
    values = {
        "rank": neighbour.rank,
        "similarity": neighbour.similarity,
        "path": _escape(neighbour.path),
        "paths": [_escape(path) for path in neighbour.paths],
        "image_id": neighbour.image_id,
        "content_hash": neighbour.content_hash,
        "width": neighbour.width,
        "height": neighbour.height,
    }
    if values["path"] != str(neighbour.path):
        values["path_bytes"] = base64.b64encode(os.fsencode(neighbour.path)).decode("ascii")
    return values


def _escape(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def _watch_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks the build to stop after the batch in hand, the second one stops it at once."""
    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        click.echo("\nStopping after the batch in hand; once more to stop at once.", err=True)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _keep_log(place: Path, verbose: bool) -> Iterator[logging.Logger]:
    place.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger("indexer")
    handlers: list[logging.Handler] = [
        RotatingFileHandler(place / LOG, maxBytes=LOG_BYTES, backupCount=2, encoding="utf-8", errors="backslashreplace")
    ]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if verbose:
        handlers.append(logging.StreamHandler())
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield log
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
