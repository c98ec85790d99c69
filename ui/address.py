"""What the page shows, as its URL says it: `?image=<content hash>&count=24&at_least=0.9&page=2`,
with `at_most=0.95` and `exact=1` where they are wanted.

`query=<content hash>` in the place of `image` names an upload that is kept. The list of what cannot be searched has
`?kind=Empty&page=2`.

The URL is the only place where this state lives. Each run reads it and sets the widgets by it; a widget's callback
writes it and nothing else. So a link opens the same page, and the browser's back button works.

Rule: a value in the URL that makes no sense counts as not given; only a hash is kept as it stands.
"""

import math
from dataclasses import dataclass, replace

import streamlit as st

from ui.keys import Key, Parameter

COUNTS = (12, 24, 48, 96)
LAST_PAGE = 1000
"""A search passes over (page - 1) * count neighbours: the URL must not be able to ask for a billion."""


ALL_KINDS = "All"
YES = "1"


@dataclass(frozen=True, kw_only=True)
class Address:
    """What to search from, and which part of the answer to show."""

    image: str | None = None
    """Content hash (hex) of the image to search from; None: the uploaded picture, or nothing."""
    query: str | None = None
    """Content hash (hex) of the kept upload to search from; counts where there is no image."""
    count: int = 24
    """Neighbours on one page."""
    at_least: float | None = None
    """The lowest similarity shown; None: no bound."""
    at_most: float | None = None
    """The highest."""
    is_exact: bool = False
    """Whether every image is compared, where the index would miss some."""
    page: int = 1

    @property
    def first(self) -> int:
        """How many neighbours come before this page."""
        return (self.page - 1) * self.count


def read_address() -> Address:
    """What the URL says."""
    given = st.query_params
    return Address(
        image=given.get(Parameter.IMAGE) or None,
        query=given.get(Parameter.QUERY) or None,
        count=_read_count(given.get(Parameter.COUNT, "")),
        at_least=_read_bound(given.get(Parameter.AT_LEAST, "")),
        at_most=_read_bound(given.get(Parameter.AT_MOST, "")),
        is_exact=given.get(Parameter.EXACT) == YES,
        page=_read_page(given.get(Parameter.PAGE, "")),
    )


def set_widgets(address: Address) -> None:
    """Let the widgets show what the URL says; comes before them."""
    st.session_state[Key.COUNT] = address.count
    st.session_state[Key.AT_LEAST] = address.at_least
    st.session_state[Key.AT_MOST] = address.at_most
    st.session_state[Key.EXACT] = address.is_exact
    st.session_state[Key.PAGE] = address.page


def write_address(address: Address) -> None:
    """Put it into the URL: a new step in the browser's history. What is as usual is left out."""
    usual = Address()
    values = {
        Parameter.IMAGE: address.image,
        Parameter.QUERY: address.query,
        Parameter.COUNT: None if address.count == usual.count else str(address.count),
        Parameter.AT_LEAST: None if address.at_least is None else str(address.at_least),
        Parameter.AT_MOST: None if address.at_most is None else str(address.at_most),
        Parameter.EXACT: YES if address.is_exact else None,
        Parameter.PAGE: None if address.page == usual.page else str(address.page),
    }
    _write(values)


def go_to_image(content_hash: str) -> None:
    """Search on from an image of the collection."""
    empty_uploader()
    write_address(replace(read_address(), image=content_hash, query=None, page=1))


def take_controls() -> None:
    """How many, or a bound, was changed: begin at the first page."""
    chosen = {name: st.session_state[name] for name in (Key.COUNT, Key.AT_LEAST, Key.AT_MOST)}
    write_address(replace(read_address(), **chosen, page=1))


def take_exact() -> None:
    """An exact search, or no longer one, was asked for."""
    write_address(replace(read_address(), is_exact=st.session_state[Key.EXACT]))


def take_page() -> None:
    """Another page was chosen."""
    write_address(replace(read_address(), page=st.session_state[Key.PAGE]))


def start_over() -> None:
    """Forget the image and the upload; how many and the bounds stay."""
    empty_uploader()
    st.session_state.pop(Key.OWN, None)
    write_address(replace(read_address(), image=None, query=None, page=1))


def empty_uploader() -> None:
    """What is in it, or was too large for it, is not what is searched from now."""
    st.session_state[Key.UPLOADS_SO_FAR] = st.session_state.get(Key.UPLOADS_SO_FAR, 0) + 1


def name_upload() -> str:
    """The uploader's key: an uploader can only be emptied by putting another one in its place."""
    return f"{Key.UPLOAD}-{st.session_state.get(Key.UPLOADS_SO_FAR, 0)}"


@dataclass(frozen=True, kw_only=True)
class ListAddress:
    """Which part of the list of what cannot be searched to show."""

    kind: str = ALL_KINDS
    page: int = 1


def read_list_address() -> ListAddress:
    """What the URL says."""
    given = st.query_params
    return ListAddress(kind=given.get(Parameter.KIND) or ALL_KINDS, page=_read_page(given.get(Parameter.PAGE, "")))


def take_kind() -> None:
    """Another kind was chosen: begin at its first page."""
    _write_list(ListAddress(kind=st.session_state[Key.KIND]))


def take_list_page() -> None:
    """Another page of the list was chosen."""
    _write_list(replace(read_list_address(), page=st.session_state[Key.LIST_PAGE]))


def _write_list(address: ListAddress) -> None:
    usual = ListAddress()
    _write(
        {
            Parameter.KIND: None if address.kind == usual.kind else address.kind,
            Parameter.PAGE: None if address.page == usual.page else str(address.page),
        }
    )


def _write(values: dict[Parameter, str | None]) -> None:
    st.query_params.from_dict({str(name): value for name, value in values.items() if value is not None})


def _read_count(text: str) -> int:
    return int(text) if text in map(str, COUNTS) else Address.count


def _read_bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if math.isfinite(bound) and -1 <= bound <= 1 else None


def _read_page(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(LAST_PAGE))
    return int(text) if is_number and 1 <= int(text) <= LAST_PAGE else 1
