"""Which images may be answered, as the URL says it: folder, days, size, formats, shapes, favourites, earlier answers.

    under=/pictures/2024  since=2024-05-01  until=2024-05-31  px=1000  format=PNG&format=JPEG  shape=square  marked=1
    within=...

`within` is the query part of an earlier answer's URL: its images alone are answered. Of several each was found within
the one before it.

Rule: a value that makes no sense counts as not given.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from indexer.collection import FIRST_YEAR, FORMATS, LAST_YEAR, SHAPES, Collection, Filter, ImageKind
from ui.keys import Parameter

MOST_PX = 100_000
MOST_WITHIN = 5
"""Answers within each other."""
NOWHERE = Path("/nowhere/at/all")
"""No picture lies there."""
YES = "1"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an answer may hold."""

    under: str | None = None
    since: date | None = None
    until: date | None = None
    least_px: int | None = None
    """Of the short side."""
    formats: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    is_marked: bool = False
    """Favourites alone."""
    within: tuple[str, ...] = ()
    """The query parts of earlier answers' URLs."""

    @property
    def count(self) -> int:
        """How many conditions there are, `within` apart."""
        given = (self.under, self.since, self.until, self.least_px, self.formats, self.shapes, self.is_marked)
        return sum(bool(one) for one in given)


def read_wanted(given: Mapping[str, str], get_all: Callable[[str], Sequence[str]]) -> Wanted:
    """What the URL says. `get_all`: all values of a parameter."""
    formats = get_all(Parameter.FORMAT)
    since, until = (_read_day(given.get(name, "")) for name in (Parameter.SINCE, Parameter.UNTIL))
    if since and until and since > until:
        since = until = None
    return Wanted(
        under=given.get(Parameter.UNDER) or None,
        since=since,
        until=until,
        least_px=_read_px(given.get(Parameter.LEAST_PX, "")),
        formats=tuple(name for name in FORMATS if name in formats),
        shapes=tuple(name for name in SHAPES if name in get_all(Parameter.SHAPE)),
        is_marked=given.get(Parameter.MARKED) == YES,
        within=tuple(filter(None, get_all(Parameter.WITHIN)))[:MOST_WITHIN],
    )


def spell_wanted(wanted: Wanted) -> dict[Parameter, str | list[str] | None]:
    """As the URL has it."""
    return {
        Parameter.UNDER: wanted.under,
        Parameter.SINCE: wanted.since and wanted.since.isoformat(),
        Parameter.UNTIL: wanted.until and wanted.until.isoformat(),
        Parameter.LEAST_PX: wanted.least_px and str(wanted.least_px),
        Parameter.FORMAT: list(wanted.formats) or None,
        Parameter.SHAPE: list(wanted.shapes) or None,
        Parameter.MARKED: YES if wanted.is_marked else None,
        Parameter.WITHIN: list(wanted.within) or None,
    }


def make_filter(collection: Collection, wanted: Wanted, images: set[int] | None) -> Filter | None:
    """The filter for the collection; None where there is no condition. Raises: QueryError.

    Args:
        images: of the earlier answers that are searched within.
    """
    if wanted == Wanted() and images is None:
        return None
    if wanted.is_marked:
        marked = map(collection.find_image, collection.decisions.list_marked(ImageKind.FAVOURITE))
        favourites = {image_id for image_id in marked if image_id is not None}
        images = favourites if images is None else images & favourites
    under = [folder for folder in collection.list_subfolders() if str(folder) == wanted.under]
    return Filter(
        # Of a folder that holds nothing, nothing passes.
        under=under or ([NOWHERE] if wanted.under else ()),
        since=wanted.since,
        until=wanted.until,
        least_px=wanted.least_px,
        formats=wanted.formats,
        shapes=wanted.shapes,
        images=images,
    )


def _read_day(text: str) -> date | None:
    with suppress(ValueError):
        day = date.fromisoformat(text)
        return day if FIRST_YEAR <= day.year <= LAST_YEAR else None
    return None


def _read_px(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_PX))
    return int(text) if is_number and 1 <= int(text) <= MOST_PX else None
