"""The start page: drop a picture, or take an image of the collection, and see the images most like it.

What it shows is decided by the URL; an upload that is not kept stands behind a URL that names nothing.

Rule: the parts stand in the order in which a person sees them, and the page itself is the last function.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import ceil
from time import perf_counter

import streamlit as st

from indexer.collection import Answer, Collection, CollectionStatus, Filter, ImageDetails
from seer_model.errors import UserError
from ui import address
from ui.components import scroll_to_top, show_footer
from ui.controls import show_controls
from ui.discover import ALL_HIDDEN, show_discover
from ui.gallery import show_gallery
from ui.history import offer_recent, offer_undo, remember
from ui.keys import Key
from ui.large import find_source, show_large
from ui.marking import list_favourites, told
from ui.resources import make_preview, the_collection, the_overview
from ui.results import arrange, count_wanted, offer_export
from ui.seeing import read_seeing
from ui.texts import quote
from ui.tray import Entry, make_query, offer_start, read_tray, show_tray
from ui.uploads import Upload, ask_for_picture, take_refusals
from ui.wanted import Wanted, make_filter

MOST_WITHIN = 1000  # Images of an earlier answer that are searched within.
KNOWN = "This picture is in the collection."
LOADING = "The model is loading; the answer comes as soon as it is there."
NO_WORDS = "This model does not tell copies from other pictures here, so similarities are given without words."
SAVED = "Kept. Favourites has it from now on."


def find_answer(
    collection: Collection, entries: Sequence[Entry], here: address.Address, *, is_folded: bool
) -> Answer:
    """The neighbours that a page is made of."""
    count, first = count_wanted(here, is_folded=is_folded)
    with _waited_for(collection, entries):
        return collection.find(
            make_query(entries),
            count,
            first=first,
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
    images = None
    for text in wanted.within:
        images = list_within(collection, address.read_answer(text), images)
    return make_filter(collection, wanted, images)


def list_within(collection: Collection, then: address.Address, images: set[int] | None) -> set[int]:
    """The images of an earlier answer, found among these; of one that has none, none."""
    entries = read_tray(collection, then)
    if not entries:
        return set()
    where = make_filter(collection, then.wanted, images)
    answer = collection.find(
        make_query(entries), MOST_WITHIN, at_least=then.at_least, at_most=then.at_most, where=where,
        is_exact=then.is_exact,
    )  # fmt: skip
    return {one.image_id for one in answer.neighbours}


def show_answer(
    collection: Collection, status: CollectionStatus, entries: Sequence[Entry], here: address.Address
) -> str | None:
    """The neighbours of the query, page by page. Returns: the content hash of the image to open large, if any."""
    words = the_overview().read_words()
    telling = words if words and words.is_telling else None
    show_controls(collection, here, can_fold=telling is not None)
    started = perf_counter()
    answer = find_answer(collection, entries, here, is_folded=here.is_folded and telling is not None)
    milliseconds = (perf_counter() - started) * 1000
    is_plain = len(entries) == 1 and entries[0].term.is_plain
    results = arrange(collection, answer.neighbours, telling, here, is_plain=is_plain)
    if isinstance(entries[0].picture, Upload) and any(one.is_same for one in results.neighbours):
        st.badge(KNOWN, icon=":material/check_circle:", color="green")
    show_count(collection, entries, here)
    if not results.neighbours:
        st.info(explain_nothing(collection, here), icon=":material/search_off:")
    favourites = list_favourites(collection)
    opened = show_gallery(results.neighbours, words=results.words, folded=results.folded, favourites=favourites)
    offer_next(here, results.has_more)
    show_pages(status, here, results.has_more)
    if results.neighbours:
        offer_more(collection, replace(answer, neighbours=results.neighbours), here, entries, milliseconds)
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
        if here.own is None:  # Else a link would leave out what it does not name.
            st.button(
                "Search within these", key=Key.WITHIN, icon=":material/filter_alt:", on_click=address.stay_within,
                help=f"The next picture is compared with the {MOST_WITHIN:,} nearest of this answer alone.",
            )  # fmt: skip
            title = " + ".join(entry.name for entry in entries)
            st.button(
                "Bookmark", key=Key.BOOKMARK, icon=":material/bookmark_add:", on_click=keep_bookmark,
                args=(collection, address.read_link(), title),
            )  # fmt: skip
        offer_export(collection, answer, milliseconds)


@told
def keep_bookmark(collection: Collection, link: str, title: str) -> None:
    """Keep the link to an answer."""
    collection.decisions.keep_bookmark(link, title)
    st.toast(SAVED, icon=":material/bookmark_added:")


def explain_nothing(collection: Collection, here: address.Address) -> str:
    """Why there is no neighbour on this page, and what to do."""
    if not collection.list_images(count=1):
        return ALL_HIDDEN
    if here.page > 1:
        return f"There is nothing on page {here.page}. Go back to an earlier page."
    if here.at_most is not None:
        lowest = -1 if here.at_least is None else here.at_least
        return f"No similarity lies between {lowest:g} and {here.at_most:g}. Widen the bounds."
    if here.at_least is not None:
        return f"Nothing is as similar as {here.at_least:g}. Lower the bound."
    return "There is nothing to compare with. Add pictures to the folders and run seer build."


def offer_next(here: address.Address, has_more: bool) -> None:
    """More of the answer on the same page."""
    larger = [count for count in address.COUNTS if count > here.count]
    if has_more and larger and here.page == 1:
        st.button(
            f"Show {larger[0]:,}", key=Key.MORE, icon=":material/expand_more:", on_click=address.take_more,
            args=(larger[0],), width="stretch",
        )  # fmt: skip


def show_pages(status: CollectionStatus, here: address.Address, has_more: bool) -> None:
    """The way to other pages. With a condition it is not known how many there are: one more than this, if any."""
    last = here.page + has_more
    if here.at_least is None and here.at_most is None and here.wanted == Wanted() and not here.is_folded:
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


def list_sources(collection: Collection, entries: Sequence[Entry]) -> list[str | bytes]:
    """The query's pictures, to be shown beside an image."""
    return [_find_source(collection, entry.picture) for entry in entries]


def _find_source(collection: Collection, picture: ImageDetails | Upload) -> str | bytes:
    if isinstance(picture, Upload):
        return make_preview(picture.picture)
    return find_source(picture.content_hash, is_there=collection.find_absence(picture) is None)


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    status = collection.read_status()
    here = address.read_address()
    address.set_widgets(here)
    rail, answer = st.columns([1, 3.6], gap="medium")
    with rail, st.container(key=Key.RAIL):
        ask_for_picture()
        for refusal in take_refusals():
            st.error(quote(refusal), icon=":material/error:")
        entries = read_tray(collection, here)
        remember(here, [entry.name for entry in entries])
        opened = show_tray(entries)
        with st.container(horizontal=True):
            if here.terms or here.own:
                offer_start()
            offer_undo()
            offer_recent()
    with answer:
        found = show_found(collection, status, entries, here) if entries else show_start(collection, status)
    scroll_to_top(f"{[term.spell() for term in here.terms]} {here.own} {here.page} {read_seeing()}")
    if (opened := found or opened) is not None and (image_id := collection.find_image(opened)) is not None:
        query = make_query(entries) if entries else None
        show_large(collection, collection.read_image(image_id), query, list_sources(collection, entries))


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
