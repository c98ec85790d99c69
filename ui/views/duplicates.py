"""The page of near-duplicates: groups of images that are the same picture, or show the same subject.

Rule: nothing is deleted here or anywhere; what a person told apart stays apart.
"""

from math import ceil

import streamlit as st

from indexer.collection import Collection
from indexer.exports import export_duplicates
from indexer.overview import DuplicateGroup, Overview, choose_reference
from ui import copies
from ui.components import show_footer
from ui.keys import Key
from ui.large import show_large
from ui.resources import the_collection, the_overview
from ui.texts import show_path, show_size
from ui.work import offer_work

GROUPS_ON_PAGE = 12
ABOUT = (
    "Every image of a group is at least as similar to its first one as the bound says. Nothing is ever deleted by "
    "seer: the list is for you, or for a program of yours."
)
NO_GRAPH = "Near-duplicates are read from the nearest neighbours of every image, which have not been found yet."
NONE = "There are no near-duplicates with this bound. Lower it to see images that are less alike."


def show_controls(overview: Overview, here: copies.CopiesAddress) -> float:
    """Which kind, how similar, which to keep. Returns: the bound."""
    bound = overview.find_bound(here.mode) if here.bound is None else here.bound
    st.session_state[Key.MODE], st.session_state[Key.KEEP] = here.mode, here.keep
    st.session_state[Key.BOUND] = round(bound, 3)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control("What counts", copies.MODES, key=Key.MODE, required=True, on_change=copies.take_mode)
        st.number_input(
            "Similarity at least", 0.0, 1.0, key=Key.BOUND, step=0.01, format="%0.3f", on_change=copies.take_choice,
            width=170,
        )  # fmt: skip
        st.segmented_control("Mark to keep", copies.RULES, key=Key.KEEP, required=True, on_change=copies.take_choice)
    return bound


def list_cards(group: DuplicateGroup, keep: str) -> list[dict]:
    """What the browser draws of a group."""
    kept = choose_reference(group.images, keep)
    return [
        {
            "image": image.content_hash,
            "name": show_path(image.path.name),
            "line": "first of the group" if not place else f"{min(similarity, 0.999):.3f}",
            "facts": f"{image.width} × {image.height} px · {show_size(image.size_bytes)} · {image.format}",
            "folder": show_path(image.path.parent),
            "more": f"and {len(image.paths) - 1} more files" if len(image.paths) > 1 else None,
            "is_kept": image is kept,
            "medoid": group.images[0].content_hash if place else None,
        }
        for place, (image, similarity) in enumerate(zip(group.images, group.similarities, strict=True))
    ]


def show_told_apart(collection: Collection) -> None:
    """How many pairs were told apart, and the way to take that back."""
    apart = collection.decisions.list_apart()
    if apart:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"{len(apart):,} {'pair was' if len(apart) == 1 else 'pairs were'} told apart.")
            st.button("Take back", key=Key.TAKE_BACK, icon=":material/undo:", on_click=copies.take_back)


def show_groups(overview: Overview, here: copies.CopiesAddress, bound: float, count: int) -> str | None:
    """One page of groups. Returns: the content hash of the image to open large, if one was asked for."""
    pages = max(1, ceil(count / GROUPS_ON_PAGE))
    page = min(here.page, pages)
    shown = overview.find_duplicates(here.mode, bound, (page - 1) * GROUPS_ON_PAGE, GROUPS_ON_PAGE)
    opened = copies.show_cards([list_cards(group, here.keep) for group in shown])
    if pages > 1:
        st.session_state[Key.LIST_PAGE] = page
        st.pagination(pages, key=Key.LIST_PAGE, on_change=copies.take_page, width="stretch")
    return opened


def show_page() -> None:
    """The page, from top to bottom."""
    collection, overview = the_collection(), the_overview()
    here, opened = copies.read_copies(), None
    st.header("Duplicates")
    st.caption(ABOUT)
    if not overview.read_state().has_graph:
        st.info(NO_GRAPH, icon=":material/content_copy:")
        offer_work(collection, "survey", "Find them", Key.SURVEY, ":material/content_copy:")
        return
    bound = show_controls(overview, here)
    groups, images = overview.count_duplicates(here.mode, bound)
    show_told_apart(collection)
    if groups:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.text(f"{groups:,} {'group' if groups == 1 else 'groups'}, {images:,} images.")
            st.download_button(
                "All as CSV", lambda: export_duplicates(overview.find_duplicates(here.mode, bound), here.keep),
                "duplicates.csv", "text/csv",
                key=Key.DUPLICATES_TABLE, icon=":material/download:", on_click="ignore",
            )  # fmt: skip
        opened = show_groups(overview, here, bound, groups)
    else:
        st.success(NONE, icon=":material/check_circle:")
    show_footer(collection.read_status())
    if opened is not None and (image_id := collection.find_image(opened)) is not None:
        show_large(collection, collection.read_image(image_id))


show_page()
