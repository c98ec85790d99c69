"""The command that builds: `seer build`, once or for as long as something changes.

Rule: a command parses, calls one function, prints.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path

import click

from indexer.cli_upkeep import collection_option, give_way, json_option, nice_option
from indexer.errors import CollectionEmpty, SourceError, explain_refusal
from indexer.estimate import estimate_build
from indexer.interrupts import INTERRUPTED, watch_interrupt
from indexer.job import build_collection
from indexer.layout import LOG, PRIVATE, find_collection, is_collection, require_own_place
from indexer.places import find_place, list_watched
from indexer.report import BuildReport, Watchers
from indexer.settings import ENGINES, LOCAL, PRECISIONS, BuildSettings
from indexer.sources import FoundFile, Walk, require_listing, resolve_folders
from indexer.terminal import show_progress
from indexer.texts import show_count, show_estimate, show_path, show_report
from indexer.watch import Watched, follow_changes, look
from seer_model.durable import make_folder
from seer_model.errors import UserError

LOG_BYTES = 1 << 20
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)I?B?", re.IGNORECASE)
ABOVE_0 = click.FloatRange(0, min_open=True)


class SizeInBytes(click.ParamType):
    """A size as people write it: 4GB, 500 MB, 1.5g, 1000000."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """In bytes, by thousands."""
        if isinstance(value, int):
            return value
        written = SIZE.fullmatch(str(value).strip())
        if written is None:
            self.fail(f"{value!r} is no size; write it as in 500MB or 4GB.", param, ctx)
        return int(float(written[1]) * 1000 ** " KMGT".index(written[2].upper() or " "))


@click.command()
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path))
@collection_option
@click.option("--model", help="A model's name (seer models list) or a file; MODEL#NAME: another readout (models show).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, or several: cuda:0,1.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True,
    help="Of the network; auto: fp16 on a GPU, fp32 on a CPU.",
)  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), help="Pictures at a time; left out, as many as suit the device.")
@click.option("--compile", "is_compiled", is_flag=True, help="Compile the network first: for very many pictures.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes; left out, one for each core.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Pass over files and folders of this name ('raw': at any depth), of this path below a picture folder "
    "('2019/raw'), or of this whole path; may be repeated. Remembered in place of what was said before, until '' is.",
)
@click.option("--max-megapixels", type=ABOVE_0, default=200.0, show_default=True, help="Larger pictures are not read.")
@click.option("--max-seconds", type=ABOVE_0, default=60.0, show_default=True, help="Slower pictures are not read.")
@click.option(
    "--recall", type=click.FloatRange(0, 1, min_open=True), metavar="R",
    help="What share of the nearest ten an approximate index must find; 0.98 at first, then as it was.",
)
@click.option(
    "--memory", "memory_bytes", type=SizeInBytes(), metavar="SIZE",
    help="What an index may take, as in 500MB or 4GB; at first a quarter of the machine's memory, or all that it needs "
    "where its lists stay on the disk; then as it was.",
)
@click.option(
    "--exact-ms", type=click.FloatRange(0), metavar="MS",
    help="Answer exactly while that takes no longer; 20 at first, then as it was. Fewer than 1,000 images always are.",
)
@click.option("--limit", type=click.IntRange(0), help="Read at most this many new files now; the rest stays pending.")
@click.option("--retry-failed", is_flag=True, help="Try the pictures again that could not be read before.")
@click.option(
    "--accept-removals", is_flag=True, help="Believe that a folder which is empty now was emptied on purpose."
)
@click.option(
    "--engine", type=click.Choice(ENGINES), default=LOCAL, show_default=True,
    help="Who embeds: this computer, or the nodes of a Ray cluster.",
)  # fmt: skip
@click.option("--address", metavar="HOST:PORT", help="Of the cluster; left out: RAY_ADDRESS, or one is started here.")
@click.option(
    "--outputs", metavar="PLACE",
    help="Where its nodes leave what they make until it is taken in: a folder that they share, or s3://BUCKET/PREFIX.",
)  # fmt: skip
@click.option("--estimate", "is_estimated", is_flag=True, help="Say what it would take, from a try, and do nothing.")
@click.option("--watch", "is_watched", is_flag=True, help="Go on: build again whenever something changes; Ctrl-C ends.")
@nice_option
@json_option
@click.option("--verbose", is_flag=True, help="Say more while it runs.")
def build(
    pictures: tuple[Path, ...],
    folder: Path | None,
    is_estimated: bool,
    is_watched: bool,
    niceness: int,
    as_json: bool,
    verbose: bool,
    **settings: object,
) -> None:
    """Bring a collection up to date with the folders PICTURES; an uncompressed tar counts as one.

    Unchanged files are left alone. Without PICTURES the collection's own folders are looked through again.
    """
    give_way(niceness)
    place = choose_collection(list(pictures), folder)
    chosen = BuildSettings(**settings)
    if not (is_watched or is_collection(place)):
        require_pictures(list(pictures), chosen.exclude)
    if is_estimated:
        with show_progress() as on_progress:
            estimate = estimate_build(place, list(pictures), chosen, on_progress)
        click.echo(json.dumps(estimate.describe()) if as_json else show_estimate(estimate))
        return
    seen = look_before(place, list(pictures), chosen.exclude) if is_watched else None

    with watch_interrupt("Stopping as soon as nothing is in hand") as should_stop:

        def build_once(added: list[Path]) -> BuildReport:
            report = run_build(place, added, chosen, should_stop=should_stop, verbose=verbose)
            click.echo(json.dumps(report.describe()) if as_json else show_report(report, place))
            return report

        report = build_once(list(pictures))
        # Said of what was there when the command was given, not of whatever may come.
        chosen = replace(chosen, accept_removals=False, retry_failed=False)
        if is_watched:
            report = keep_building(place, build_once, should_stop, seen) or report
    if report.is_stopped:
        click.echo(
            "Stopped before the end; what was embedded is kept, and can be searched once a build has ended. "
            "Run again to go on.",
            err=True,
        )
        sys.exit(INTERRUPTED)


def choose_collection(pictures: list[Path], folder: Path | None) -> Path:
    """Where a build goes: the folder given, the place that belongs to these pictures, or the only one there is.

    Raises: SourceError, CollectionMissing, CollectionAmbiguous, CollectionPlaceTaken; nothing is made then.
    """
    folders = resolve_folders(pictures)
    if not folders:
        return find_collection(folder).absolute()
    place = find_place(folders) if folder is None else folder.resolve()
    require_own_place(place)
    return place


def require_pictures(folders: list[Path], exclude: tuple[str, ...]) -> None:
    """A new collection is not made of a folder that was given by mistake. Raises: SourceError."""
    resolved = resolve_folders(folders)
    for source in resolved:
        require_listing(source)
    walk = Walk(resolved, tuple(filter(None, exclude)))
    if next(iter(walk), None) is None:
        where = ", ".join(show_path(folder) for folder in folders)
        raise SourceError(
            f"There are no pictures in {where} ({show_count(walk.ignored, 'other file')}), and no collection was made. "
            "Name the folder that they are in; one that is still to be filled can be followed with --watch."
        )


def look_before(place: Path, pictures: list[Path], exclude: tuple[str, ...]) -> set[FoundFile]:
    """What a first build is going to find, or less: what is not in it by then is for a second one."""
    folders, globs = [], ()
    with suppress(CollectionEmpty):  # A build had only begun.
        folders, globs = list_watched(place) if is_collection(place) else ([], ())
    return look([*resolve_folders(pictures), *folders], tuple(filter(None, exclude)) if exclude else globs)


def keep_building(
    place: Path,
    build_once: Callable[[list[Path]], BuildReport],
    should_stop: Callable[[], bool],
    seen: set[FoundFile] | None = None,
) -> BuildReport | None:
    """Build whenever something in the picture folders has changed, until told to stop. Returns: the last build.

    Args:
        seen: what a build that is done has found; None: nothing, so that one is made at once.
    """
    report, is_built, watched = None, None, list_watched(place)

    def look_again() -> Watched:
        nonlocal watched
        # A catalog that somebody keeps locked for a while tells nothing new; the next build says what is wrong.
        with suppress(UserError):
            watched = list_watched(place)
        return watched

    changes = follow_changes(look_again, should_stop=should_stop, seen=seen)
    click.echo("Watching for changes; Ctrl-C ends it.", err=True)
    with suppress(StopIteration):
        while True:
            changes.send(is_built)
            try:
                report, is_built = build_once([]), True
            except UserError as error:
                # A disk that is away for a moment, another command at work: it is tried again.
                click.echo(f"seer: {error}", err=True)
                is_built = False
    return report


def run_build(
    place: Path,
    pictures: list[Path],
    settings: BuildSettings,
    *,
    should_stop: Callable[[], bool],
    verbose: bool = False,
) -> BuildReport:
    """Build with progress on stderr and a log file in the collection."""
    with explain_refusal(place), show_progress() as on_progress, _keep_log(place, verbose) as log:
        watchers = Watchers(on_progress=on_progress, on_step=log.debug, should_stop=should_stop)
        report = build_collection(place, pictures, settings, watchers)
        log.info("ended: %s", json.dumps(report.describe()))
        return report


@contextmanager
def _keep_log(place: Path, verbose: bool) -> Iterator[logging.Logger]:
    make_folder(place, PRIVATE)
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
