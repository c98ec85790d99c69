"""The start page: drop a picture, or take an image of the collection, and see the images most like it.

What it shows is decided by the URL; an upload that is not kept stands behind a URL that names nothing.

Rule: the parts stand in the order in which a person sees them, and the page itself is the last function.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from math import ceil
from time import perf_counter

import streamlit as st

from indexer.collection import Answer, Collection, CollectionStatus, Filter, ImageDetails
from seer_model.errors import UserError
from ui import address
from ui.components import read_origin, scroll_to_top, show_footer
from ui.controls import show_controls
from ui.discover import show_discover
from ui.gallery import show_gallery
from ui.keys import Key
from ui.large import show_large
from ui.marking import list_favourites
from ui.resources import make_preview, the_collection, the_overview
from ui.results import arrange, offer_export
from ui.shortcuts import listen
from ui.texts import quote
from ui.tray import Entry, make_query, offer_start, read_tray, show_tray
from ui.uploads import Upload, ask_for_picture, find_own
from ui.wanted import Wanted, make_filter

MOST_WITHIN = 1000  # Images of an earlier answer that are searched within.
KNOWN = "This picture is in the collection."
LOADING = "The model is loading; the answer comes as soon as it is there."
NO_WORDS = "This model does not tell copies from other pictures here, so similarities are given without words."
SAVED = "Kept. Favourites has it from now on."


def find_answer(collection: Collection, entries: Sequence[Entry], here: address.Address) -> Answer:
    """One page of neighbours, and one more if there is a next page."""
    with _waited_for(collection, entries):
        return collection.find(
            make_query(entries),
            here.count + 1,
            first=here.first,
            at_least=here.at_least,
            at_most=here.at_most,
            where=find_filter(collection, here.wanted),
            is_exact=here.is_exact,
        )


def _waited_for(collection: Collection, entries: Sequence[Entry]) -> object:
    needs_model = any(isinstance(one.picture, Upload) or one.term.part for one in entries)
    return st.spinner(LOADING) if needs_model and not collection.is_model_loaded else nullcontext()


def find_filter(collection: Collection, wanted: Wanted) -> Filter | None:
    """What may be answered. Raises: QueryError."""
    return make_filter(collection, wanted, partial(list_within, collection))


def list_within(collection: Collection, text: str) -> set[int]:
    """The images of an earlier answer; of one that has none, none."""
    then = address.read_answer(text)
    entries = read_tray(collection, then, own=None)
    if not entries:
        return set()
    answer = collection.find(make_query(entries), MOST_WITHIN, at_least=then.at_least, at_most=then.at_most)
    return {one.image_id for one in answer.neighbours}


def show_answer(
    collection: Collection, status: CollectionStatus, entries: Sequence[Entry], here: address.Address
) -> str | None:
    """The neighbours of the query, page by page. Returns: the content hash of the image to open large, if any."""
    words = the_overview().read_words()
    told = words if words and words.is_telling else None
    show_controls(collection, here, can_fold=told is not None)
    started = perf_counter()
    answer = find_answer(collection, entries, here)
    milliseconds = (perf_counter() - started) * 1000
    neighbours, has_more = answer.neighbours[: here.count], len(answer.neighbours) > here.count
    is_plain = len(entries) == 1 and entries[0].term.is_plain
    if isinstance(entries[0].picture, Upload) and neighbours and neighbours[0].is_same:
        st.badge(KNOWN, icon=":material/check_circle:", color="green")
    show_count(collection, entries, here)
    if not neighbours:
        st.info(explain_nothing(here), icon=":material/search_off:")
    results = arrange(collection, neighbours, told, sort=here.sort, is_folded=here.is_folded, is_plain=is_plain)
    favourites = list_favourites(collection)
    opened = show_gallery(results.neighbours, words=results.words, folded=results.folded, favourites=favourites)
    show_pages(status, here, has_more)
    if neighbours:
        offer_more(collection, answer, here, entries, milliseconds)
    show_footer(status, answer, milliseconds)
    if words and not words.is_telling:
        st.caption(NO_WORDS)
    offer_exact(status)
    return opened


def show_count(collection: Collection, entries: Sequence[Entry], here: address.Address) -> None:
    """Between bounds: how many images lie there."""
    if here.at_least is None and here.at_most is None:
        return
    where = find_filter(collection, here.wanted)
    count = collection.count_similar(make_query(entries), at_least=here.at_least, at_most=here.at_most, where=where)
    st.text(f"{count:,} {'image lies' if count == 1 else 'images lie'} between these bounds.")


def offer_exact(status: CollectionStatus) -> None:
    """The switch between what the index finds at once and what there is; none where the index finds it all."""
    if status.is_approximate:
        st.toggle(
            "Search exactly", key=Key.EXACT, on_change=address.take_exact,
            help="Compares your picture with every image: nothing is missed, and it takes longer.",
        )  # fmt: skip


def offer_more(
    collection: Collection, answer: Answer, here: address.Address, entries: Sequence[Entry], milliseconds: float
) -> None:
    """What can be done with an answer: search within it, keep its link, keep its images."""
    with st.container(horizontal=True):
        if here.terms:
            st.button(
                "Search within these", key=Key.WITHIN, icon=":material/filter_alt:", on_click=address.stay_within,
                help=f"The next picture is compared with the {MOST_WITHIN:,} nearest of this answer alone.",
            )  # fmt: skip
            title = " + ".join(entry.name for entry in entries)
            st.button(
                "Bookmark", key=Key.BOOKMARK, icon=":material/bookmark_add:", on_click=keep_bookmark,
                args=(collection, address.read_link(), title),
            )  # fmt: skip
        offer_export(collection, answer, answer.neighbours[: here.count], milliseconds)


def keep_bookmark(collection: Collection, link: str, title: str) -> None:
    """Keep the link to an answer. Raises: as `Decisions`."""
    collection.decisions.keep_bookmark(link, title)
    st.toast(SAVED, icon=":material/bookmark_added:")


def explain_nothing(here: address.Address) -> str:
    """Why there is no neighbour on this page, and what to do."""
    if here.page > 1:
        return f"There is nothing on page {here.page}. Go back to an earlier page."
    if here.at_most is not None:
        lowest = -1 if here.at_least is None else here.at_least
        return f"No similarity lies between {lowest:g} and {here.at_most:g}. Widen the bounds."
    if here.at_least is not None:
        return f"Nothing is as similar as {here.at_least:g}. Lower the bound."
    return "There is nothing to compare with. Add pictures to the folders and run seer build."


def show_pages(status: CollectionStatus, here: address.Address, has_more: bool) -> None:
    """The way to other pages. With a condition it is not known how many there are: one more than this, if any."""
    last = here.page + has_more
    if here.at_least is None and here.at_most is None and here.wanted == Wanted():
        last = max(here.page, min(ceil(status.images / here.count), address.LAST_PAGE))
    if last > 1:
        # Across the page: inside a horizontal container it hides the numbers of few pages and leaves only the arrows.
        st.pagination(last, key=Key.PAGE, on_change=address.take_page, width="stretch")


def show_start(collection: Collection, status: CollectionStatus) -> str | None:
    """Without a query: what there is. Returns: the content hash of the image to open large, if any."""
    if not status.images:
        st.info(
            f"No image can be searched: {status.failed} files failed (see Not searchable), {status.pending} are still "
            "to be read. Add pictures to the folders and run seer build.",
            icon=":material/photo_library:",
        )
        return None
    opened = show_discover(collection, the_overview(), status)
    show_footer(status)
    return opened


def list_sources(entries: Sequence[Entry]) -> list[str | bytes]:
    """The query's pictures, to be shown beside an image."""
    return [
        f"{read_origin()}/o/{entry.picture.content_hash}"
        if isinstance(entry.picture, ImageDetails)
        else make_preview(entry.picture.picture)
        for entry in entries
    ]


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    status = collection.read_status()
    here = address.read_address()
    address.set_widgets(here)
    listen()
    rail, answer = st.columns([1, 3.6], gap="medium")
    with rail, st.container(key=Key.RAIL):
        ask_for_picture()
        own = find_own()
        entries = read_tray(collection, here, own)
        opened = show_tray(entries)
        if not entries and (here.terms or own):
            offer_start()
    with answer:
        found = show_found(collection, status, entries, here) if entries else show_start(collection, status)
    scroll_to_top(f"{[term.spell() for term in here.terms]} {here.page}")
    if (opened := found or opened) is not None:
        query = make_query(entries) if entries else None
        show_large(collection, collection.read_image(collection.find_image(opened)), query, list_sources(entries))


def show_found(
    collection: Collection, status: CollectionStatus, entries: Sequence[Entry], here: address.Address
) -> str | None:
    """As `show_answer`; where there is none, the reason and a way on."""
    try:
        return show_answer(collection, status, entries, here)
    except UserError as error:
        st.error(quote(str(error)), icon=":material/error:")
        if here.wanted != Wanted():
            st.button("No filters", key=f"{Key.NO_FILTERS}-there", on_click=drop_all)
        return None


def drop_all() -> None:
    """No condition any more."""
    address.leave_within()
    address.drop_wanted()


show_page()
