"""The terms of a query as the URL spells them: which pictures, wanted or unwanted, and which part of each.

    term=HASH              an image of the collection
    term=up:HASH           an upload that is kept
    term=-HASH             what answers shall be unlike
    term=HASH@0,250,500,750  a part: left, top, width and height in thousandths of the upright picture

A term that stands twice counts twice. One whole picture alone is spelled as before: image=HASH, query=HASH.

Rule: what makes no sense counts as not given.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from indexer.collection import Region

MOST_TERMS = 20
WHOLE = 1000
"""Thousandths: what a picture measures along each side, however many pixels it has."""
LEAST = 20
"""Thousandths along a side of a part; less is a click, and shows nothing."""
SPELLED = re.compile(r"(-?)(up:)?([0-9a-f]{64})(?:@(\d{1,4}),(\d{1,4}),(\d{1,4}),(\d{1,4}))?", re.ASCII)


class Part(NamedTuple):
    """A part of a picture, in thousandths of its sides."""

    left: int
    top: int
    width: int
    height: int

    @property
    def makes_sense(self) -> bool:
        """Whether it lies in the picture and is large enough to show something."""
        is_inside = self.left + self.width <= WHOLE and self.top + self.height <= WHOLE
        return is_inside and min(self.left, self.top) >= 0 and min(self.width, self.height) >= LEAST

    def measure(self, width: int, height: int) -> Region:
        """In pixels of a picture of this size."""
        left, top = self.left * width // WHOLE, self.top * height // WHOLE
        across, down = max(1, self.width * width // WHOLE), max(1, self.height * height // WHOLE)
        return Region(left, top, min(across, width - left), min(down, height - top))


@dataclass(frozen=True, kw_only=True)
class TrayTerm:
    """One picture of a query."""

    content_hash: str
    """In hex; of one whole image it stands as the URL has it, whatever that is."""
    is_upload: bool = False
    is_wanted: bool = True
    """Whether answers shall be like it; else unlike."""
    part: Part | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all of it is wanted."""
        return self.is_wanted and self.part is None

    def flip(self) -> Self:
        """The same, wanted where it was not."""
        return replace(self, is_wanted=not self.is_wanted)

    def spell(self) -> str:
        """As the URL has it."""
        part = "@" + ",".join(map(str, self.part)) if self.part else ""
        return f"{'' if self.is_wanted else '-'}{'up:' if self.is_upload else ''}{self.content_hash}{part}"


def read_terms(spelled: Sequence[str]) -> tuple[TrayTerm, ...]:
    """The terms that make sense, the first MOST_TERMS of them."""
    found = (SPELLED.fullmatch(one) for one in spelled)
    return tuple(_make(*one.groups()) for one in found if one)[:MOST_TERMS]


def read_part(numbers: Sequence[str | int]) -> Part | None:
    """Four numbers as a part; None where they make no sense, or mean all of the picture."""
    part = Part(*map(int, numbers))
    return part if part.makes_sense and part != (0, 0, WHOLE, WHOLE) else None


def _make(minus: str, up: str | None, content_hash: str, *numbers: str | None) -> TrayTerm:
    part = None if numbers[0] is None else read_part(numbers)
    return TrayTerm(content_hash=content_hash, is_upload=up is not None, is_wanted=not minus, part=part)
