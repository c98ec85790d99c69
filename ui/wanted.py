"""Which images may be answered, as the URL says it: folder, days, size, formats, favourites, within an earlier answer.

    under=/pictures/2024  since=2024-05-01  until=2024-05-31  px=1000  format=PNG&format=JPEG  marked=1  within=...

`within` is the query part of an earlier answer's URL: its images alone are answered.

Rule: a value that makes no sense counts as not given.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from indexer.collection import FIRST_YEAR, FORMATS, LAST_YEAR, Collection, Filter, ImageKind
from ui.keys import Parameter

MOST_PX = 100_000
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
    is_marked: bool = False
    """Favourites alone."""
    within: str | None = None
    """The query part of an earlier answer's URL."""

    @property
    def count(self) -> int:
        """How many conditions there are, `within` apart."""
        given = (self.under, self.since, self.until, self.least_px, self.formats, self.is_marked)
        return sum(bool(one) for one in given)


def read_wanted(given: Mapping[str, str], formats: Sequence[str]) -> Wanted:
    """What the URL says. `formats`: all values of that parameter."""
    since, until = (_read_day(given.get(name, "")) for name in (Parameter.SINCE, Parameter.UNTIL))
    if since and until and since > until:
        since = until = None
    return Wanted(
        under=given.get(Parameter.UNDER) or None,
        since=since,
        until=until,
        least_px=_read_px(given.get(Parameter.LEAST_PX, "")),
        formats=tuple(name for name in FORMATS if name in formats),
        is_marked=given.get(Parameter.MARKED) == YES,
        within=given.get(Parameter.WITHIN) or None,
    )


def spell_wanted(wanted: Wanted) -> dict[Parameter, str | list[str] | None]:
    """As the URL has it."""
    return {
        Parameter.UNDER: wanted.under,
        Parameter.SINCE: wanted.since and wanted.since.isoformat(),
        Parameter.UNTIL: wanted.until and wanted.until.isoformat(),
        Parameter.LEAST_PX: wanted.least_px and str(wanted.least_px),
        Parameter.FORMAT: list(wanted.formats) or None,
        Parameter.MARKED: YES if wanted.is_marked else None,
        Parameter.WITHIN: wanted.within,
    }


def make_filter(
    collection: Collection, wanted: Wanted, list_within: Callable[[str], set[int]]
) -> Filter | None:
    """The filter for the collection; None where there is no condition. Raises: QueryError.

    Args:
        list_within: finds the images of an earlier answer.
    """
    if wanted == Wanted():
        return None
    images = list_within(wanted.within) if wanted.within else None
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
