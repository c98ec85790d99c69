"""Which part of the list of what cannot be searched is shown, as its URL says it: `?kind=Empty&page=2`.

Rule: a value in the URL that makes no sense counts as not given.
"""

from dataclasses import dataclass, replace

import streamlit as st

from ui.address import read_page, write_parameters
from ui.keys import Key, Parameter

ALL_KINDS = "All"


@dataclass(frozen=True, kw_only=True)
class ListAddress:
    """Which part to show."""

    kind: str = ALL_KINDS
    page: int = 1


def read_list_address() -> ListAddress:
    """What the URL says."""
    given = st.query_params
    return ListAddress(kind=given.get(Parameter.KIND) or ALL_KINDS, page=read_page(given.get(Parameter.PAGE, "")))


def take_kind() -> None:
    """Another kind was chosen: begin at its first page."""
    _write(ListAddress(kind=st.session_state[Key.KIND]))


def take_list_page() -> None:
    """Another page of the list was chosen."""
    _write(replace(read_list_address(), page=st.session_state[Key.LIST_PAGE]))


def _write(listing: ListAddress) -> None:
    usual = ListAddress()
    write_parameters(
        {
            Parameter.KIND: None if listing.kind == usual.kind else listing.kind,
            Parameter.PAGE: None if listing.page == usual.page else str(listing.page),
        }
    )
