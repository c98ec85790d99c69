"""What the page shows, as its URL says it: `?image=<content hash>&count=24&at_least=0.9&page=2`,
with `at_most=0.95` and `exact=1` where they are wanted.

`query=<content hash>` in the place of `image` names an upload that is kept; several pictures, or a part of one, are
`term=...&term=...` (`terms`); `own=...` names uploads that are not kept, and means something in one tab alone.
`collection=...` stands in every URL where there are several.

The URL is the only place where this state lives. Each run reads it and sets the widgets by it; a widget's callback
writes it and nothing else. So a link opens the same page, and the browser's back button works.

Rule: a value in the URL that makes no sense counts as not given; only a hash is kept as it stands.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import parse_qs, urlencode

import streamlit as st

from ui.keys import Key, Parameter
from ui.terms import MOST_TERMS, TrayTerm, read_terms
from ui.wanted import MOST_WITHIN, Wanted, read_wanted, spell_wanted

COUNTS = (12, 24, 48, 96, 1000)
LOWEST, HIGHEST = -1.0, 1.0
"""Similarities."""
LAST_PAGE = 1000
"""A search passes over (page - 1) * count neighbours: the URL must not be able to ask for a billion."""


YES = "1"
DEEP = f"Answers stand within each other up to {MOST_WITHIN} times. Search everywhere again first."
FULL = f"A query has {MOST_TERMS} pictures at most. Remove one before adding another."


class Sort(StrEnum):
    """The order of what stands on one page."""

    SIMILARITY = "similarity"
    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    NAME = "name"


@dataclass(frozen=True, kw_only=True)
class Address:
    """What to search from, and which part of the answer to show."""

    terms: tuple[TrayTerm, ...] = ()
    """The pictures to search from."""
    own: str | None = None
    """More of them, which are not kept: a name that means something in this tab alone."""
    count: int = 24
    """Neighbours on one page."""
    at_least: float | None = None
    """The lowest similarity shown; None: no bound."""
    at_most: float | None = None
    """The highest."""
    is_exact: bool = False
    """Whether every image is compared, where the index would miss some."""
    wanted: Wanted = Wanted()
    """Which images may be answered."""
    sort: Sort = Sort.SIMILARITY
    """The order on one page."""
    is_folded: bool = False
    """Whether near-copies stand under one."""
    page: int = 1

    @property
    def first(self) -> int:
        """How many neighbours come before this page."""
        return (self.page - 1) * self.count


def read_address() -> Address:
    """What the URL says."""
    given = st.query_params
    return Address(
        terms=_read_terms(),
        own=given.get(Parameter.OWN) or None,
        count=_read_count(given.get(Parameter.COUNT, "")),
        **_read_bounds(given),
        is_exact=given.get(Parameter.EXACT) == YES,
        wanted=read_wanted(given, given.get_all),
        sort=_read_sort(given.get(Parameter.SORT, "")),
        is_folded=given.get(Parameter.FOLD) == YES,
        page=read_page(given.get(Parameter.PAGE, "")),
    )


def set_widgets(address: Address) -> None:
    """Let the widgets show what the URL says; comes before them."""
    st.session_state[Key.COUNT] = address.count
    st.session_state[Key.SIMILARITY] = (
        find_lowest(address) if address.at_least is None else address.at_least,
        HIGHEST if address.at_most is None else address.at_most,
    )
    st.session_state[Key.EXACT] = address.is_exact
    st.session_state[Key.PAGE] = address.page
    st.session_state[Key.SORT] = address.sort
    st.session_state[Key.FOLD] = address.is_folded
    wanted = address.wanted
    st.session_state[Key.SINCE], st.session_state[Key.UNTIL] = wanted.since, wanted.until
    st.session_state[Key.UNDER], st.session_state[Key.LEAST_PX] = wanted.under, wanted.least_px
    st.session_state[Key.FORMATS], st.session_state[Key.SHAPES] = list(wanted.formats), list(wanted.shapes)
    st.session_state[Key.MARKED] = wanted.is_marked


def write_address(address: Address) -> None:
    """Put it into the URL: a new step in the browser's history. What is as usual is left out.

    Another page than the search is left for it, once the script runs (`take_way_to_search`).
    """
    usual = Address()
    values = {
        **_spell_terms(address.terms),
        Parameter.OWN: address.own,
        Parameter.COUNT: None if address.count == usual.count else str(address.count),
        Parameter.AT_LEAST: None if address.at_least is None else str(address.at_least),
        Parameter.AT_MOST: None if address.at_most is None else str(address.at_most),
        Parameter.EXACT: YES if address.is_exact else None,
        **spell_wanted(address.wanted),
        Parameter.SORT: None if address.sort == usual.sort else str(address.sort),
        Parameter.FOLD: YES if address.is_folded else None,
        Parameter.PAGE: None if address.page == usual.page else str(address.page),
    }
    if st.session_state.get(Key.HERE):
        st.session_state[Key.TO_SEARCH] = _spell(values)
    else:
        write_parameters(values)


def take_way_to_search() -> dict[str, str | list[str]] | None:
    """Where on the search page an image leads that was pressed on another page; None if none was."""
    return st.session_state.pop(Key.TO_SEARCH, None)


def read_link() -> str:
    """The query part of the page's URL, as it is."""
    given = st.query_params
    return urlencode({name: given.get_all(name) for name in given}, doseq=True)


def read_kept_link(link: str) -> dict[str, str | list[str]]:
    """The parameters of a link that was kept; the collection is that which is shown, whatever it was called then."""
    found = _read_link(link)
    found.pop(Parameter.COLLECTION, None)
    return {**found, **keep_collection()}


def go_to_link(link: str) -> None:
    """Go back to a link of this tab, in the collection that it was made in."""
    empty_uploader()
    st.query_params.from_dict(_read_link(link))


def _read_link(link: str) -> dict[str, str | list[str]]:
    return {name: values if len(values) > 1 else values[0] for name, values in parse_qs(link).items()}


def go_to_image(content_hash: str) -> None:
    """Search on from an image of the collection."""
    empty_uploader()
    go_to_terms((TrayTerm(content_hash=content_hash),), own=None)


def go_to_terms(terms: Sequence[TrayTerm], own: str | None) -> None:
    """Search from these pictures; from the first ones, where they are too many."""
    if len(terms) > MOST_TERMS:
        st.toast(FULL, icon=":material/info:")
    write_address(replace(read_address(), terms=tuple(terms)[:MOST_TERMS], own=own, page=1))


def add_term(content_hash: str, *, is_wanted: bool) -> None:
    """Search from an image of the collection as well."""
    here = read_address()
    go_to_terms((*here.terms, TrayTerm(content_hash=content_hash, is_wanted=is_wanted)), here.own)


def change_term(place: int, term: TrayTerm | None) -> None:
    """Put another in the place of a term, or none."""
    here = read_address()
    go_to_terms((*here.terms[:place], *([term] if term else []), *here.terms[place + 1 :]), here.own)


def take_controls() -> None:
    """How many was changed: begin at the first page."""
    write_address(replace(read_address(), count=st.session_state[Key.COUNT], page=1))


def take_more(count: int) -> None:
    """So many on one page."""
    write_address(replace(read_address(), count=count, page=1))


def find_lowest(address: Address) -> float:
    """Where the scale of similarities begins: hardly an image is less similar than 0, unless the URL asks for that."""
    return LOWEST if min(address.at_least or 0.0, address.at_most or 0.0) < 0 else 0.0


def take_similarity() -> None:
    """A bound was moved: begin at the first page. At an end of the scale there is none."""
    here, (at_least, at_most) = read_address(), st.session_state[Key.SIMILARITY]
    bounds = {
        "at_least": None if at_least <= find_lowest(here) else round(at_least, 3),
        "at_most": None if at_most >= HIGHEST else round(at_most, 3),
    }
    write_address(replace(here, **bounds, page=1))


def take_wanted() -> None:
    """A condition was changed: begin at the first page."""
    chosen = {name: st.session_state[name] for name in (Key.UNDER, Key.SINCE, Key.UNTIL, Key.LEAST_PX)}
    several = {name: tuple(st.session_state[name]) for name in (Key.FORMATS, Key.SHAPES)}
    here = read_address()
    wanted = replace(here.wanted, **chosen, **several, is_marked=st.session_state[Key.MARKED])
    write_address(replace(here, wanted=wanted, page=1))


def drop_wanted() -> None:
    """No condition any more; within an earlier answer it stays."""
    here = read_address()
    write_address(replace(here, wanted=Wanted(within=here.wanted.within), page=1))


def stay_within() -> None:
    """Search within the answer that is shown from now on: begin with a new picture."""
    here = read_address()
    within = (*here.wanted.within, spell_answer(here))
    if len(within) > MOST_WITHIN:
        st.toast(DEEP, icon=":material/info:")
        return
    empty_uploader()
    write_address(Address(count=here.count, is_exact=here.is_exact, wanted=Wanted(within=within)))


def leave_within() -> None:
    """Search everywhere again."""
    here = read_address()
    write_address(replace(here, wanted=replace(here.wanted, within=()), page=1))


def spell_answer(address: Address) -> str:
    """What decides which images an answer has, as a URL's query part; read by `read_answer`.

    All but the earlier answers that it was found within: these stand before it.
    """
    bounds = {Parameter.AT_LEAST: address.at_least, Parameter.AT_MOST: address.at_most}
    given = {
        Parameter.TERM: [term.spell() for term in address.terms],
        **{name: bound if bound is None else str(bound) for name, bound in bounds.items()},
        Parameter.EXACT: YES if address.is_exact else None,
        **spell_wanted(replace(address.wanted, within=())),
    }
    return urlencode({name: value for name, value in given.items() if value is not None}, doseq=True)


def read_answer(text: str) -> Address:
    """What `spell_answer` has spelled."""
    given = parse_qs(text)
    first = {name: values[0] for name, values in given.items()}
    return Address(
        terms=read_terms(given.get(Parameter.TERM, [])),
        **_read_bounds(first),
        is_exact=first.get(Parameter.EXACT) == YES,
        wanted=replace(read_wanted(first, lambda name: given.get(name, [])), within=()),
    )


def take_order() -> None:
    """Another order, or near-copies folded or not."""
    here = read_address()
    write_address(replace(here, sort=st.session_state[Key.SORT], is_folded=st.session_state[Key.FOLD]))


def take_exact() -> None:
    """An exact search, or no longer one, was asked for."""
    write_address(replace(read_address(), is_exact=st.session_state[Key.EXACT]))


def take_page() -> None:
    """Another page was chosen."""
    write_address(replace(read_address(), page=st.session_state[Key.PAGE]))


def start_over() -> None:
    """Search from nothing any more; how many and the bounds stay."""
    empty_uploader()
    go_to_terms((), own=None)


def empty_uploader() -> None:
    """What is in it, or was too large for it, is not what is searched from now."""
    st.session_state[Key.UPLOADS_SO_FAR] = st.session_state.get(Key.UPLOADS_SO_FAR, 0) + 1


def name_upload() -> str:
    """The uploader's key: an uploader can only be emptied by putting another one in its place."""
    return f"{Key.UPLOAD}-{st.session_state.get(Key.UPLOADS_SO_FAR, 0)}"


def write_parameters(values: Mapping[Parameter, str | list[str] | None]) -> None:
    """Put these into the URL, and nothing else: a new step in the browser's history. None: left out.

    The collection that is shown stays.
    """
    st.query_params.from_dict(_spell(values))


def _spell(values: Mapping[Parameter, str | list[str] | None]) -> dict[str, str | list[str]]:
    given = {str(name): value for name, value in values.items() if value is not None}
    return {**keep_collection(), **given}


def keep_collection() -> dict[str, str]:
    """The parameter that names the collection, where the URL has one."""
    named = st.query_params.get(Parameter.COLLECTION)
    return {str(Parameter.COLLECTION): named} if named else {}


def take_collection() -> None:
    """Another collection was chosen: begin at its start."""
    empty_uploader()
    chosen = st.session_state[Key.COLLECTION]
    st.query_params.from_dict({str(Parameter.COLLECTION): chosen} if chosen else {})


def _read_terms() -> tuple[TrayTerm, ...]:
    given = st.query_params
    if image := given.get(Parameter.IMAGE):
        return (TrayTerm(content_hash=image),)
    if query := given.get(Parameter.QUERY):
        return (TrayTerm(content_hash=query, is_upload=True),)
    return read_terms(given.get_all(Parameter.TERM))


def _spell_terms(terms: Sequence[TrayTerm]) -> dict[Parameter, str | list[str]]:
    if len(terms) == 1 and terms[0].is_plain:
        return {Parameter.QUERY if terms[0].is_upload else Parameter.IMAGE: terms[0].content_hash}
    return {Parameter.TERM: [term.spell() for term in terms]} if terms else {}


def _read_sort(text: str) -> Sort:
    return Sort(text) if text in list(Sort) else Sort.SIMILARITY


def _read_count(text: str) -> int:
    return int(text) if text in map(str, COUNTS) else Address.count


def _read_bounds(given: Mapping[str, str]) -> dict[str, float | None]:
    at_least, at_most = (_read_bound(given.get(name, "")) for name in (Parameter.AT_LEAST, Parameter.AT_MOST))
    if None not in (at_least, at_most) and at_least > at_most:
        at_least = at_most = None
    return {"at_least": at_least, "at_most": at_most}


def _read_bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if math.isfinite(bound) and -1 <= bound <= 1 else None


def read_page(text: str) -> int:
    """The number of a page; the first for what makes no sense."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(LAST_PAGE))
    return int(text) if is_number and 1 <= int(text) <= LAST_PAGE else 1
