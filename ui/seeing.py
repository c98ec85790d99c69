"""What of a collection is shown without a query, as the URL says it.

    show=groups|differ|surprise|unusual    group=3    part=2    surprise=17    page=2

Rule: a value that makes no sense counts as not given.
"""

import random
from dataclasses import dataclass, replace
from enum import StrEnum

import streamlit as st

from ui.address import read_page, write_parameters
from ui.keys import Key, Parameter

MOST_NUMBER = 10**6


class Show(StrEnum):
    """A way to look at a collection."""

    GROUPS = "groups"
    DIFFER = "differ"
    SURPRISE = "surprise"
    UNUSUAL = "unusual"


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """What is shown."""

    show: Show = Show.GROUPS
    group: int | None = None
    part: int | None = None
    surprise: int = 0
    page: int = 1


def read_seeing() -> Seeing:
    """What the URL says."""
    given = st.query_params
    show, group = given.get(Parameter.SHOW, ""), _read_number(given.get(Parameter.GROUP, ""))
    return Seeing(
        show=Show(show) if show in list(Show) else Show.GROUPS,
        group=group,
        part=None if group is None else _read_number(given.get(Parameter.PART, "")),
        surprise=_read_number(given.get(Parameter.SURPRISE, "")) or 0,
        page=read_page(given.get(Parameter.PAGE, "")),
    )


def write_seeing(seeing: Seeing) -> None:
    """Put it into the URL. What is as usual is left out."""
    numbers = {Parameter.GROUP: seeing.group, Parameter.PART: seeing.part}
    write_parameters(
        {
            Parameter.SHOW: None if seeing.show is Show.GROUPS else str(seeing.show),
            **{name: None if number is None else str(number) for name, number in numbers.items()},
            Parameter.SURPRISE: str(seeing.surprise) if seeing.surprise else None,
            Parameter.PAGE: None if seeing.page == 1 else str(seeing.page),
        }
    )


def take_show() -> None:
    """Another way to look was chosen."""
    write_seeing(Seeing(show=st.session_state[Key.SHOW]))


def surprise_again() -> None:
    """Other images."""
    write_seeing(Seeing(show=Show.SURPRISE, surprise=random.randrange(1, MOST_NUMBER)))


def enter(number: int) -> None:
    """Into a group, or within one into a part of it."""
    here = read_seeing()
    write_seeing(Seeing(group=number) if here.group is None else Seeing(group=here.group, part=number))


def go_up() -> None:
    """From a part to its group, from a group to all."""
    here = read_seeing()
    write_seeing(Seeing(group=here.group if here.part is not None else None))


def take_seeing_page() -> None:
    """Another page was chosen."""
    write_seeing(replace(read_seeing(), page=st.session_state[Key.SEEING_PAGE]))


def _read_number(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_NUMBER))
    return int(text) if is_number and int(text) <= MOST_NUMBER else None
