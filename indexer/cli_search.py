"""The command that asks: `seer search`, with one picture, several, a part of one, or a list of them.

A picture is given as PICTURE or PICTURE=WEIGHT, where PICTURE is a file, or `image:` and the number or the content hash
of an image of the collection. A file whose whole name is there is that file, whatever it ends in.

Rule: a command parses, calls one function, prints; a query of a list that fails is said, and the others go on.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial, reduce
from pathlib import Path
from time import perf_counter
from typing import BinaryIO, NamedTuple

import click

from indexer.cli_publish import engine_option
from indexer.cli_upkeep import collection_option, json_option
from indexer.collection import Answer, Collection, Filter, Query, Region, Term, show_similarity
from indexer.decode import read_whole
from indexer.errors import QueryError
from indexer.filters import FORMATS, SHAPES
from indexer.generations import read_current
from indexer.layout import find_collection
from indexer.texts import describe_answer, describe_count, escape, escape_path, show_path
from seer_model.errors import PictureError

IMAGE = re.compile(r"image:(?:([0-9a-f]{64})|(\d{1,18}))")
REGION = re.compile(r"\d{1,9}(,\d{1,9}){3}")
SPAN = re.compile(r"(?:([\d.]+)([KMG]?B)?)?-(?:([\d.]+)([KMG]?B)?)?", re.IGNORECASE)
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}

Span = tuple[int | None, int | None]


class Given(NamedTuple):
    """A picture as it was typed, and how much it counts."""

    text: str
    weight: float = 1.0


def read_given(text: str) -> Given:
    """PICTURE or PICTURE=WEIGHT. Raises: BadParameter."""
    given, (picture, _, weight) = Given(text), text.rpartition("=")
    if picture and not os.path.exists(text):
        with suppress(ValueError):
            given = Given(picture, float(weight))
    if not IMAGE.fullmatch(given.text) and not os.path.isfile(given.text):
        raise click.BadParameter(f"There is no file {show_path(Path(given.text))}.")
    if not 0 < given.weight < math.inf:
        raise click.BadParameter(f"A weight is {given.weight}; allowed are numbers above 0.")
    return given


def read_region(text: str) -> Region:
    """X,Y,W,H. Raises: BadParameter."""
    if not REGION.fullmatch(text):
        raise click.BadParameter(f"{escape(text)!r} is not X,Y,W,H: left, top, width and height in whole pixels.")
    return Region(*map(int, text.split(",")))


def read_sizes(text: str) -> Span:
    """LEAST-MOST in bytes, each with a unit or without. Raises: BadParameter."""
    return _read_span(text, UNITS, "LEAST-MOST, LEAST- and -MOST, as in 100KB-2MB")


def read_sides(text: str) -> Span:
    """LEAST-MOST in pixels. Raises: BadParameter."""
    return _read_span(text, {"": 1}, "LEAST-MOST, LEAST- and -MOST, in pixels")


def _read_span(text: str, units: dict[str, int], allowed: str) -> Span:
    if found := SPAN.fullmatch(text):
        with suppress(ValueError, KeyError):
            least, most = (_measure(*found.group(*ends), units) for ends in ((1, 2), (3, 4)))
            if (least, most) != (None, None):
                return least, most
    raise click.BadParameter(f"{escape(text)!r} is given; allowed are {allowed}.")


def _measure(number: str | None, unit: str | None, units: dict[str, int]) -> int | None:
    return round(float(number) * units[(unit or "").upper()]) if number else None


FILTERS = (
    click.option(
        "--under", multiple=True, type=click.Path(path_type=Path), metavar="FOLDER",
        help="Only images with a file in FOLDER, at any depth; may be repeated.",
    ),
    click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Last changed on DAY or later."),
    click.option("--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Last changed on DAY or earlier."),
    click.option(
        "--size", type=read_sizes, metavar="LEAST-MOST",
        help="Only files of LEAST to MOST bytes: 100KB-2MB, 5MB-, -1GB.",
    ),
    click.option(
        "--px", type=read_sides, metavar="LEAST-MOST",
        help="Only images whose short side is LEAST to MOST px: 1000-, -64, 64-127.",
    ),
    click.option(
        "--type", "formats", multiple=True, type=click.Choice(FORMATS, case_sensitive=False),
        help="Only images of this format; may be repeated.",
    ),
    click.option(
        "--shape", "shapes", multiple=True, type=click.Choice(SHAPES, case_sensitive=False),
        help="Only images of this shape; may be repeated.",
    ),
    click.option(
        "--within", type=click.File("rb"), metavar="ANSWER",
        help="Only the images of an answer that --json printed before; - is standard input.",
    ),
)  # fmt: skip
"""The options that become a Filter, in their order."""


def filter_options(command: Callable) -> Callable:
    """A command with these options."""
    return reduce(lambda inner, option: option(inner), reversed(FILTERS), command)


@click.command()
@click.argument("queries", metavar="[QUERY]...", nargs=-1, type=read_given)
@click.option("--minus", multiple=True, type=read_given, metavar="PICTURE", help="Unlike this one; may be repeated.")
@click.option("--region", type=read_region, metavar="X,Y,W,H", help="Search with this part of QUERY, in pixels.")
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="How many neighbours.")
@click.option(
    "--at-least", type=click.FloatRange(-1, 1), metavar="S", help="Leave out what is less similar than S (-1 to 1)."
)
@click.option("--at-most", type=click.FloatRange(-1, 1), metavar="S", help="Leave out what is more similar than S.")
@click.option("--how-many", "counts_only", is_flag=True, help="Print how many images lie within the bounds, exactly.")
@filter_options
@click.option("--exact", "is_exact", is_flag=True, help="Compare with every image, however long that takes.")
@click.option(
    "--files", "listed", type=click.File("rb"), metavar="LIST",
    help="Search with each picture of a list, one a line, and answer each on lines of its own; - is standard input.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@engine_option
@collection_option
@json_option
def search(
    queries: tuple[Given, ...],
    minus: tuple[Given, ...],
    region: Region | None,
    listed: BinaryIO | None,
    device: str,
    search_engine: str | None,
    folder: Path | None,
    as_json: bool,
    **wish: object,
) -> None:
    """Print the images most like QUERY, best first; each of an image's files on a line of its own.

    QUERY is a picture file, or image:ID for an image of the collection, by its number or content hash. Of several the
    sum is searched with; QUERY=0.5 counts half as much.
    """
    _require_fitting(queries, minus, region, listed)
    with Collection(find_collection(folder), device=device, search_engine=search_engine) as collection:
        if search_engine:
            _tell_what_waits(collection)
        say = partial(_say, collection, as_json=as_json, **_make_wish(collection, **wish))
        if listed is not None:
            sys.exit(_search_each(collection, listed, say, as_json))
        terms = [_make_term(collection, one, 1, region) for one in queries]
        say(Query(*terms, *(_make_term(collection, one, -1) for one in minus)))


def _tell_what_waits(collection: Collection) -> None:
    """Of a search engine that was not given the newest generation."""
    there, here = collection.read_generation(), read_current(collection.folder)
    if there != here:
        click.echo(
            f"It answers from generation {there}, and {here} is here: seer publish lets it find what is new.", err=True
        )


def _require_fitting(
    queries: tuple[Given, ...], minus: tuple[Given, ...], region: Region | None, listed: BinaryIO | None
) -> None:
    if listed is None and not queries and not minus:
        raise click.UsageError("Missing argument 'QUERY': give a picture, or --files LIST.")
    if listed is not None and (queries or minus or region):
        raise click.UsageError("--files is a list of whole queries; give it without QUERY, --minus and --region.")
    if region is not None and len(queries) != 1:
        raise click.UsageError(f"--region is a part of one picture; {len(queries)} are given.")


def _make_wish(
    collection: Collection,
    *,
    size: Span | None,
    px: Span | None,
    since: datetime | None,
    until: datetime | None,
    under: tuple[Path, ...],
    formats: tuple[str, ...],
    shapes: tuple[str, ...],
    within: BinaryIO | None,
    **wish: object,
) -> dict:
    """What `Collection.find` takes besides the query. Raises: QueryError if no image passes the filter."""
    least_bytes, most_bytes = size or (None, None)
    least_px, most_px = px or (None, None)
    where = Filter(
        under=under,
        since=since and since.date(),
        until=until and until.date(),
        least_bytes=least_bytes,
        most_bytes=most_bytes,
        least_px=least_px,
        most_px=most_px,
        formats=formats,
        shapes=shapes,
        images=None if within is None else _read_answers(collection, within),
    )
    if where == Filter():
        return {**wish, "where": None}
    # Now, and not with each query of a list.
    collection.count_images(where)
    return {**wish, "where": where}


def _read_answers(collection: Collection, file: BinaryIO) -> set[int]:
    """The images of answers in JSON, one a line, as far as they are still in the collection."""
    try:
        answers = [answer for line in file if line.strip() if "error" not in (answer := json.loads(line))]
        hashes = [one["content_hash"] for answer in answers for one in answer["neighbours"]]
        return {image_id for one in hashes if (image_id := collection.find_image(one)) is not None}
    except (ValueError, KeyError, TypeError):
        raise QueryError("--within is given what is no answer. Give what seer search --json has printed.") from None


def _make_term(collection: Collection, given: Given, sign: int, region: Region | None = None) -> Term:
    """Raises: PictureError, QueryError."""
    name, weight = show_path(Path(given.text)), sign * given.weight
    found = IMAGE.fullmatch(given.text)
    if not found:
        return Term(_read_picture(given.text, name), weight, region, name)
    content_hash, number = found.groups()
    image_id = int(number) if number else collection.find_image(content_hash)
    if image_id is None:
        raise QueryError(f"The collection has no {name}. Choose another one.")
    return Term(image_id, weight, region, name)


def _read_picture(path: str, name: str) -> bytes:
    try:
        return read_whole(path)[0]
    except PictureError as error:
        raise PictureError(f"{name} cannot be searched with. {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a line of a list may hold what no path can.
        raise PictureError(f"{name} cannot be read ({getattr(error, 'strerror', error)}).") from None


def _search_each(collection: Collection, listed: Iterable[bytes], say: Callable, as_json: bool) -> int:
    """Answer every line. Returns: the exit status."""
    status = 0
    for line in filter(None, (line.rstrip(b"\r\n") for line in listed)):
        text = os.fsdecode(line)
        try:
            say(Query(_make_term(collection, Given(text), 1)), text)
        except (PictureError, QueryError) as error:
            status = 1
            click.echo(f"seer: {error}", err=True)
            if as_json:
                click.echo(json.dumps({"schema_version": 1, "query": escape_path(Path(text)), "error": str(error)}))
    return status


def _say(
    collection: Collection,
    query: Query,
    listed_as: str | None = None,
    *,
    counts_only: bool,
    as_json: bool,
    **wish: object,
) -> None:
    """Print one answer; one of a list with its query before it."""
    started = perf_counter()
    if counts_only:
        answer = collection.count_similar(query, **{name: wish[name] for name in ("at_least", "at_most", "where")})
    else:
        answer = collection.find(query, **wish)
    milliseconds = (perf_counter() - started) * 1000
    if as_json:
        about = {} if listed_as is None else {"query": escape_path(Path(listed_as))}
        if counts_only:
            told = describe_count(collection.folder, answer, collection.read_generation(), milliseconds)
        else:
            told = describe_answer(collection.folder, answer, milliseconds)
        click.echo(json.dumps(about | told))
        return
    before = "" if listed_as is None else f"{show_path(Path(listed_as))}\t"
    for line in [answer] if counts_only else _list_lines(answer):
        click.echo(f"{before}{line}")
    if not counts_only and not (listed_as or answer.neighbours):
        has_images = collection.read_status().images
        click.echo("Nothing is that similar." if has_images else "The collection holds no image yet.", err=True)
    if not counts_only and not (listed_as or answer.is_exact):
        click.echo(f"{answer.way[0].upper()}{answer.way[1:]}; --exact compares with every image.", err=True)


def _list_lines(answer: Answer) -> list[str]:
    return [f"{show_similarity(one)}\t{show_path(path)}" for one in answer.neighbours for path in one.paths]
