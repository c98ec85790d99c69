"""The page of what people marked: favourites, bookmarks of answers, hidden images.

Rule: what is marked stands here whatever became of the index; what is hidden can be shown again from here alone.
"""

from collections.abc import Sequence
from math import ceil

import streamlit as st

from indexer.collection import Collection, ImageKind
from ui import address
from ui.components import show_footer, show_thumbnail
from ui.gallery import show_gallery
from ui.keys import Key, Parameter
from ui.large import show_large
from ui.marking import show_again, told
from ui.resources import the_collection
from ui.texts import quote, show_date, show_path

ON_PAGE = 96
FAVOURITES, BOOKMARKS, HIDDEN = "favourites", "bookmarks", "hidden"
NOTHING = {
    FAVOURITES: "Nothing is marked yet. The heart on a picture marks it.",
    BOOKMARKS: "No answer is kept yet. Bookmark, below an answer, keeps its link.",
    HIDDEN: "Nothing is hidden.",
}
AWAY = "{} more are marked whose images are not in the collection at present."


def choose_kind() -> str:
    """Which marks are shown, as the URL says."""
    kind = st.query_params.get(Parameter.KIND)
    st.session_state[Key.MARKS] = kind if kind in NOTHING else FAVOURITES
    return st.segmented_control(
        "What is marked", list(NOTHING), key=Key.MARKS, format_func=str.capitalize, required=True, on_change=take_kind,
        label_visibility="collapsed",
    )  # fmt: skip


def list_page(marked: Sequence[str]) -> Sequence[str]:
    """Those of the page that the URL names, and above them the way to the others."""
    pages = max(1, ceil(len(marked) / ON_PAGE))
    page = min(address.read_page(st.query_params.get(Parameter.PAGE, "")), pages)
    if pages > 1:
        st.session_state[Key.LIST_PAGE] = page
        st.pagination(pages, key=Key.LIST_PAGE, on_change=take_page, width="stretch")
    return marked[(page - 1) * ON_PAGE : page * ON_PAGE]


def take_page() -> None:
    """Another page was chosen."""
    page = st.session_state[Key.LIST_PAGE]
    kind = st.query_params.get(Parameter.KIND)
    address.write_parameters({Parameter.KIND: kind, Parameter.PAGE: None if page == 1 else str(page)})


def take_kind() -> None:
    """Other marks were chosen."""
    kind = st.session_state[Key.MARKS]
    address.write_parameters({Parameter.KIND: None if kind == FAVOURITES else kind})


def show_favourites(collection: Collection) -> str | None:
    """The images. Returns: the content hash of the one to open large, if any."""
    every = collection.decisions.list_marked(ImageKind.FAVOURITE)
    marked = list_page(every)
    known = [image_id for one in marked if (image_id := collection.find_image(one)) is not None]
    images = collection.read_images(known)
    if not images:
        st.info(NOTHING[FAVOURITES], icon=":material/favorite:")
    opened = show_gallery(images, favourites=set(every)) if images else None
    if len(images) < len(marked):
        st.caption(AWAY.format(len(marked) - len(images)))
    return opened


def show_bookmarks(collection: Collection) -> None:
    """The links, each with its way to be forgotten."""
    kept = collection.decisions.list_bookmarks()
    if not kept:
        st.info(NOTHING[BOOKMARKS], icon=":material/bookmark:")
    for number, one in enumerate(kept):
        with st.container(horizontal=True, vertical_alignment="center", border=True):
            st.page_link(
                "views/find.py", label=quote(show_path(one.title)), icon=":material/image_search:",
                query_params=address.read_kept_link(one.link),
            )  # fmt: skip
            st.caption(show_date(one.made))
            st.button(
                "Forget", key=f"{Key.FORGET_BOOKMARK}-{number}", icon=":material/delete:",
                on_click=told(collection.decisions.forget_bookmark), args=(one.link,),
            )  # fmt: skip


def show_hidden(collection: Collection) -> None:
    """The images, each with its way back."""
    hidden = collection.decisions.list_marked(ImageKind.HIDDEN)
    if not hidden:
        st.info(NOTHING[HIDDEN], icon=":material/visibility:")
    shown = list_page(hidden)
    with st.grid(6, min_column_width=150, gap="small"):
        for content_hash in shown:
            with st.container():
                image_id = collection.find_image(content_hash)
                name = "not in the collection at present"
                if image_id is not None:
                    name = show_path(collection.read_image(image_id).path.name)
                    show_thumbnail(content_hash, alt=name)
                st.text(name, wrap=False, width="stretch")
                st.button(
                    "Show again", key=f"{Key.BACK}-{content_hash}", icon=":material/visibility:",
                    on_click=show_again, args=(content_hash,),
                )  # fmt: skip


def show_page() -> None:
    """The page, from top to bottom."""
    collection, opened = the_collection(), None
    st.header("Favourites")
    kind = choose_kind()
    if kind == FAVOURITES:
        opened = show_favourites(collection)
    elif kind == BOOKMARKS:
        show_bookmarks(collection)
    else:
        show_hidden(collection)
    show_footer(collection.read_status())
    if opened is not None and (image_id := collection.find_image(opened)) is not None:
        show_large(collection, collection.read_image(image_id))


show_page()
