"""The controls above an answer: how many, how similar, which images, in which order.

Rule: every one of them stands in the URL; what is set and not in sight is told by its button.
"""

from collections.abc import Mapping
from datetime import date

import streamlit as st

from indexer.collection import FIRST_YEAR, FORMATS, LAST_YEAR, SHAPES, Collection
from ui import address
from ui.keys import Key
from ui.texts import show_path

SORTED = {
    address.Sort.SIMILARITY: "Most similar first",
    address.Sort.NEWEST: "Newest first",
    address.Sort.OLDEST: "Oldest first",
    address.Sort.LARGEST: "Largest first",
    address.Sort.NAME: "By name",
}
FOLDING = (
    "Near-copies of a neighbour stand under it; opened, it shows them. A model that cannot tell copies folds none."
)
SIMILARITY = "From how similar on, and up to how similar: the upper end leaves out copies. At its ends: no bound."
WITHIN = "Only among the images of an earlier answer."


def show_controls(collection: Collection, here: address.Address, *, can_fold: bool) -> None:
    """All of them in a row that wraps."""
    with st.container(horizontal=True, key=Key.CONTROLS, vertical_alignment="bottom"):
        st.segmented_control(
            "Neighbours", address.COUNTS, key=Key.COUNT, required=True, on_change=address.take_controls
        )
        st.slider(
            "Similarity", address.find_lowest(here), address.HIGHEST, key=Key.SIMILARITY, step=0.01, format="%.2f",
            on_change=address.take_similarity, width=250, help=SIMILARITY,
        )  # fmt: skip
        st.selectbox(
            "Order of this page", list(address.Sort), key=Key.SORT, format_func=SORTED.get,
            on_change=address.take_order, width=190,
        )  # fmt: skip
        _show_filters(collection, here)
        st.toggle(
            "Fold near-copies", key=Key.FOLD, on_change=address.take_order, disabled=not can_fold,
            help=FOLDING,
        )  # fmt: skip
    if here.wanted.within:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(WITHIN, icon=":material/filter_alt:")
            st.button("Search everywhere", key=Key.LEAVE_WITHIN, on_click=address.leave_within)


def _show_filters(collection: Collection, here: address.Address) -> None:
    set_now = here.wanted.count
    with st.popover("Filters" if not set_now else f"Filters · {set_now}", icon=":material/filter_list:"):
        folders = list_folders(collection, here.wanted.under)
        st.selectbox(
            "In the folder", list(folders), key=Key.UNDER, format_func=folders.get, on_change=address.take_wanted,
            index=None, placeholder="any",
        )  # fmt: skip
        since, until = st.columns(2)
        bounds = {"min_value": date(FIRST_YEAR, 1, 1), "max_value": date(LAST_YEAR, 12, 31)}
        since.date_input("Changed since", key=Key.SINCE, on_change=address.take_wanted, **bounds)
        until.date_input("Changed until", key=Key.UNTIL, on_change=address.take_wanted, **bounds)
        st.number_input(
            "Short side at least, px", 1, 100_000, key=Key.LEAST_PX, step=100, placeholder="any",
            on_change=address.take_wanted,
        )  # fmt: skip
        st.multiselect("Format", FORMATS, key=Key.FORMATS, placeholder="any", on_change=address.take_wanted)
        st.multiselect("Shape", SHAPES, key=Key.SHAPES, placeholder="any", on_change=address.take_wanted)
        st.checkbox("Favourites alone", key=Key.MARKED, on_change=address.take_wanted)
        st.button("No filters", key=Key.NO_FILTERS, disabled=not set_now, on_click=address.drop_wanted)


def list_folders(collection: Collection, chosen: str | None) -> Mapping[str, str]:
    """Path -> what people read: the folder below its picture folder, and how many files it has."""
    counts = {str(folder): count for folder, count in collection.list_subfolders().items()}
    if chosen:
        counts.setdefault(chosen, 0)
    # A name that is not UTF-8 cannot stand in a URL.
    return {one: f"{show_path(one)} · {count:,}" for one, count in counts.items() if one.isprintable()}
