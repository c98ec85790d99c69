"""The page of what cannot be searched: every file that was seen and is not in the answers, why, and what to do.

Rule: a file stands here until it can be searched; the table for download has all of them, whatever is shown.
"""

from math import ceil

import streamlit as st

from indexer.collection import Collection, UnsearchableFile
from ui import listing
from ui.keys import Key
from ui.resources import the_collection
from ui.table import show_table
from ui.texts import show_path

FILES_ON_PAGE = 50
ALL_WELL = "Every file that was found can be searched."


def show_kinds(counts: dict[str, int], here: listing.ListAddress) -> None:
    """How many of each kind there are; a kind that is chosen is shown alone."""
    labels = {listing.ALL_KINDS: f"All · {sum(counts.values()):,}"}
    labels |= {kind: f"{kind} · {count:,}" for kind, count in counts.items()}
    st.session_state[Key.KIND] = here.kind if here.kind in labels else listing.ALL_KINDS
    st.pills(
        "Reasons",
        list(labels),
        format_func=labels.get,
        key=Key.KIND,
        required=True,
        on_change=listing.take_kind,
        label_visibility="collapsed",
    )


def offer_table(collection: Collection) -> None:
    """All of them as a file, whatever is shown."""
    # Written when it is asked for: of a large collection the table is long.
    st.download_button(
        "Download all as CSV",
        collection.export_unsearchable,
        "not-searchable.csv",
        "text/csv",
        key=Key.FAILURE_TABLE,
        icon=":material/download:",
        # A run that began with the click would take away what is still to be written.
        on_click="ignore",
    )


def describe_file(file: UnsearchableFile) -> dict[str, str]:
    """A row of the table."""
    return {
        "File": show_path(file.path),
        "Reason": file.reason,
        "What to do": file.advice,
        "Seen": f"{file.seen:%Y-%m-%d %H:%M}",
    }


def show_list(collection: Collection, counts: dict[str, int]) -> None:
    """The kinds, and the files of the chosen one page by page."""
    here = listing.read_list_address()
    # Not beside anything: only across the page do the kinds wrap on a narrow one.
    show_kinds(counts, here)
    kind = here.kind if here.kind in counts else None
    pages = ceil((counts[kind] if kind else sum(counts.values())) / FILES_ON_PAGE)
    page = min(here.page, pages)
    files = collection.list_unsearchable((page - 1) * FILES_ON_PAGE, FILES_ON_PAGE, kind=kind)
    show_table(list(map(describe_file, files)))
    if pages > 1:
        st.session_state[Key.LIST_PAGE] = page
        st.pagination(pages, key=Key.LIST_PAGE, on_change=listing.take_list_page, width="stretch")


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    counts = collection.count_unsearchable()
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.header("Not searchable", width="content")
        if counts:
            offer_table(collection)
    if counts:
        show_list(collection, counts)
    else:
        st.success(ALL_WELL, icon=":material/check_circle:")


show_page()
