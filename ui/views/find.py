"""The start page: drop a picture, or take an image of the collection, and see the images most like it.

What it shows is decided by the URL; an upload that is not kept stands behind a URL that names nothing.

Rule: the parts stand in the order in which a person sees them, and the page itself is the last function.
"""

from contextlib import nullcontext
from math import ceil
from time import perf_counter

import streamlit as st

from indexer.collection import Answer, Collection, CollectionStatus, ImageDetails, Query
from seer_model.errors import PictureError
from ui import address
from ui.components import (
    OPEN_ICON,
    describe_image,
    scroll_to_top,
    show_footer,
    show_large,
    show_thumbnail,
)
from ui.gallery import show_gallery
from ui.keys import Key
from ui.resources import make_preview, the_collection
from ui.texts import quote, show_path, show_size
from ui.uploads import Upload, ask_for_picture, find_upload, offer_forgetting

START_COUNT = 48
GONE = "The image that this link names is not, or no longer, in the collection. Choose another one, or drop a picture."
KNOWN = "This picture is in the collection."
LOADING = "The model is loading; the answer comes as soon as it is there."

Picture = ImageDetails | Upload


def choose_query(collection: Collection, here: address.Address) -> Picture | None:
    """What to search from; says so where a link names what is gone."""
    if here.image is None:
        return require_picture(find_upload(collection, here))
    image_id = collection.find_image(here.image)
    if image_id is None:
        st.warning(GONE, icon=":material/link_off:")
        return None
    return collection.read_image(image_id)


def require_picture(upload: Upload | None) -> Upload | None:
    """The upload; None, with the reason and a way on, if it is no picture."""
    try:
        if upload is not None:
            make_preview(upload.picture)
        return upload
    except PictureError as error:
        name = show_path(upload.name)
        st.error(quote(f"{name} cannot be searched with. {error} Choose another picture."), icon=":material/error:")
        offer_start()
        return None


def offer_start() -> None:
    """The way back to the beginning."""
    st.button("Start over", key=Key.START_OVER, icon=":material/restart_alt:", on_click=address.start_over)


def show_query(query: Picture | None) -> str | None:
    """The picture that is searched from. Returns: the content hash of the image to open large, if it was asked for."""
    if query is None:
        return None
    opened = None
    with st.container(key=Key.QUERY):
        if isinstance(query, ImageDetails):
            name, facts = show_path(query.path.name), describe_image(query)
            show_thumbnail(query.content_hash, alt=f"Query: {name}")
        else:
            name, facts = show_path(query.name), f"{show_size(len(query.picture))} · your picture"
            st.image(make_preview(query.picture), alt=f"Query: {name}", width="stretch")
        st.text(name, wrap=False, width="stretch")
        st.text(facts)
        if isinstance(query, Upload):
            st.text(query.told)
        with st.container(horizontal=True, gap="small"):
            if isinstance(query, ImageDetails) and st.button("Open", key=Key.OPEN_QUERY, icon=OPEN_ICON):
                opened = query.content_hash
            offer_start()
            if isinstance(query, Upload):
                offer_forgetting(query)
    return opened


def show_controls() -> None:
    """How many neighbours, and how similar at least and at most."""
    with st.container(horizontal=True, key=Key.CONTROLS, vertical_alignment="bottom"):
        st.segmented_control(
            "Neighbours", address.COUNTS, key=Key.COUNT, required=True, on_change=address.take_controls
        )
        for label, key in (("Similarity at least", Key.AT_LEAST), ("Similarity at most", Key.AT_MOST)):
            st.number_input(
                label, -1.0, 1.0, key=key, step=0.01, format="%0.3f", placeholder="no bound",
                on_change=address.take_controls, width=150,
            )  # fmt: skip


def find_answer(collection: Collection, query: Picture, here: address.Address) -> Answer:
    """One page of neighbours, and one more if there is a next page."""
    is_image = isinstance(query, ImageDetails)
    with nullcontext() if is_image or collection.is_model_loaded else st.spinner(LOADING):
        return collection.find(
            Query.of(query.image_id if is_image else query.picture),
            here.count + 1,
            first=here.first,
            at_least=here.at_least,
            at_most=here.at_most,
            is_exact=here.is_exact,
        )


def show_answer(collection: Collection, status: CollectionStatus, query: Picture, here: address.Address) -> str | None:
    """The neighbours of the query, page by page. Returns: the content hash of the image to open large, if any."""
    show_controls()
    started = perf_counter()
    answer = find_answer(collection, query, here)
    milliseconds = (perf_counter() - started) * 1000
    neighbours, has_more = answer.neighbours[: here.count], len(answer.neighbours) > here.count
    if isinstance(query, Upload) and neighbours and neighbours[0].is_same:
        st.badge(KNOWN, icon=":material/check_circle:", color="green")
    if not neighbours:
        st.info(explain_nothing(here), icon=":material/search_off:")
    opened = show_gallery(neighbours)
    show_pages(status, here, has_more)
    show_footer(status, answer, milliseconds)
    offer_exact(status)
    return opened


def offer_exact(status: CollectionStatus) -> None:
    """The switch between what the index finds at once and what there is; none where the index finds it all."""
    if status.is_approximate:
        st.toggle(
            "Search exactly", key=Key.EXACT, on_change=address.take_exact,
            help="Compares your picture with every image: nothing is missed, and it takes longer.",
        )  # fmt: skip


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
    """The way to other pages. With a bound it is not known how many there are: one more than this, if there is more."""
    last = here.page + has_more
    if here.at_least is None and here.at_most is None:
        last = max(here.page, min(ceil(status.images / here.count), address.LAST_PAGE))
    if last > 1:
        # Across the page: inside a horizontal container it hides the numbers of few pages and leaves only the arrows.
        st.pagination(last, key=Key.PAGE, on_change=address.take_page, width="stretch")


def show_start(collection: Collection, status: CollectionStatus) -> str | None:
    """Without a query: images to begin with. Returns: the content hash of the image to open large, if any."""
    images = collection.list_images(count=START_COUNT)
    if not images:
        st.info(
            f"No image can be searched: {status.failed} files failed (see Not searchable), {status.pending} are still "
            "to be read. Add pictures to the folders and run seer build.",
            icon=":material/photo_library:",
        )
        return None
    st.markdown("#### Begin with one of these")
    opened = show_gallery(images)
    show_footer(status)
    return opened


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    status = collection.read_status()
    here = address.read_address()
    address.set_widgets(here)
    rail, answer = st.columns([1, 3.6], gap="medium")
    with rail, st.container(key=Key.RAIL):
        ask_for_picture()
        query = choose_query(collection, here)
        opened = show_query(query)
    with answer:
        if query is None:
            opened = show_start(collection, status)
        else:
            opened = show_answer(collection, status, query, here) or opened
    scroll_to_top(f"{here.image or here.query} {here.page}")
    if opened is not None:
        show_large(collection.read_image(collection.find_image(opened)))


show_page()
