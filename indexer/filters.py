"""Filters: which images of a collection may be answered at all.

An image passes if one of its files passes: the same file must lie in the folder and have the date. What is not given is
not asked for. How a filter becomes rows of a store is the catalog's matter (`catalog_reader`).

Rule: a filter is a value that checks itself, and equal ones are the same key.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Self

from indexer.errors import QueryError
from indexer.urls import spell
from seer_model.formats import DECODERS, EXTRAS

FORMATS = (*DECODERS, *EXTRAS)
"""The formats that an image may have."""
SHAPES = ("landscape", "portrait", "square")
SQUARE_PERCENT = 105
"""The long side of a square, of its short one."""
MOST_FOLDERS = 100
"""SQLite takes a limited number of them."""
FIRST_YEAR, LAST_YEAR = 1900, 2261
"""Of a day: a file's time is kept in nanoseconds, which end in 2262."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What an answer may hold: everything that is given must be true of an image.

    Raises: QueryError when the values make no sense.
    """

    under: Iterable[Path] = ()
    """In one of these folders, at any depth."""
    since: date | None = None
    """Last changed on this day or later, in local time."""
    until: date | None = None
    """Last changed on this day or earlier."""
    least_bytes: int | None = None
    most_bytes: int | None = None
    least_px: int | None = None
    """Of the short side; so is `most_px`."""
    most_px: int | None = None
    formats: Iterable[str] = ()
    """One of these (FORMATS), in capital letters or not."""
    shapes: Iterable[str] = ()
    """One of these (SHAPES)."""
    images: Iterable[int] | None = None
    """One of these images: search within an earlier answer."""

    def __post_init__(self) -> None:
        self._settle("under", tuple(sorted(set(map(Path, self.under)))))
        self._settle("formats", tuple(sorted({name.upper() for name in self.formats})))
        self._settle("shapes", tuple(sorted(set(self.shapes))))
        self._settle("images", None if self.images is None else frozenset(map(int, self.images)))
        if unknown := set(self.formats) - set(FORMATS):
            raise QueryError(f"There is no format {min(unknown)}; allowed are {', '.join(FORMATS)}.")
        if unknown := set(self.shapes) - set(SHAPES):
            raise QueryError(f"There is no shape {min(unknown)}; allowed are {', '.join(SHAPES)}.")
        if len(self.under) > MOST_FOLDERS:
            raise QueryError(f"{len(self.under)} folders are given; allowed are {MOST_FOLDERS}. Give one above them.")
        for day in filter(None, (self.since, self.until)):
            if not FIRST_YEAR <= day.year <= LAST_YEAR:
                raise QueryError(f"A day is {day}; allowed are the years {FIRST_YEAR} to {LAST_YEAR}.")
        for what, least, most in (
            ("day", self.since, self.until),
            ("number of bytes", self.least_bytes, self.most_bytes),
            ("number of pixels", self.least_px, self.most_px),
        ):
            if None not in (least, most) and least > most:
                raise QueryError(f"The first {what} is {least} and the last {most}: nothing lies between. Swap them.")

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def split(self) -> list[Self]:
        """A filter for each thing that is given."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return [type(self)(**{name: value}) for name, value in given.items() if value not in (None, ())]

    def __str__(self) -> str:
        """In words: `in /pictures/2024, JPEG or PNG`."""
        words = (
            " or ".join(f"in {spell(folder)}" for folder in self.under),
            self.since and f"changed since {self.since}",
            self.until and f"changed until {self.until}",
            self.least_bytes is not None and f"of {self.least_bytes:,} bytes or more",
            self.most_bytes is not None and f"of {self.most_bytes:,} bytes or less",
            self.least_px is not None and f"with a short side of {self.least_px:,} px or more",
            self.most_px is not None and f"with a short side of {self.most_px:,} px or less",
            " or ".join(self.formats),
            " or ".join(self.shapes),
            self.images is not None and f"among {len(self.images):,} given",
        )
        return ", ".join(filter(None, words)) or "all"
