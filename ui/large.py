"""An image opened large over the page: its facts and files, beside the query, and why it was found.

Rule: it runs by itself; only a run of the whole page closes it.
"""

from collections.abc import Callable, Sequence

import streamlit as st

from indexer.collection import Absence, Collection, ImageDetails, Query
from seer_model.errors import UserError
from ui.address import add_term, go_to_image
from ui.components import SIMILAR_ICON, describe_image, read_origin, show_thumbnail
from ui.gallery import show_gallery, was_pressed
from ui.keys import Key
from ui.marking import hide, list_favourites, switch_favourite
from ui.texts import quote, show_path

GONE = "The file is no longer where it was; this is its thumbnail. Run seer build to bring the collection up to date."
CHANGED = "The file holds something else now; this is the thumbnail of what it held. Run seer build to take that up."
AWAY = "The file cannot be read now: its disk or store gives no answer, or lets nobody in. This is its thumbnail."
EXPLAINED = {Absence.GONE: GONE, Absence.CHANGED: CHANGED, Absence.AWAY: AWAY}
NEIGHBOURS = 6
WHY = "Lit up is what looks like the query by itself, place by place; the rest is dark."


def show_large(
    collection: Collection, image: ImageDetails, query: Query | None = None, sources: Sequence[str | bytes] = ()
) -> None:
    """Open an image.

    Args:
        query: what it was found with; None: it was not.
        sources: the query's pictures, each an address or the bytes of one.
    """
    st.dialog(quote(show_path(image.path.name)), width="large")(_show_large)(collection, image, query, sources)


def _show_large(
    collection: Collection, image: ImageDetails, query: Query | None, sources: Sequence[str | bytes]
) -> None:
    absence = collection.find_absence(image)
    is_there = absence is None
    is_why = query is not None and is_there and st.segmented_control(
        "View", ["Picture", "Beside the query", "Why it matched"], key=Key.WHY, default="Picture", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    with st.container(key=Key.LARGE):
        if is_why == "Beside the query":
            _show_beside(image, sources, is_there=is_there)
        elif is_why == "Why it matched":
            _show_why(collection, image, query)
        else:
            _show_picture(image, absence)
    st.text(describe_image(image))
    if is_there and (shot := collection.read_shot(image.content_hash)):
        st.text(" · ".join(f"{name.lower()}: {text}" for name, text in shot.items()))
    for path in image.paths:
        st.code(show_path(path), language=None, wrap_lines=True)
    _show_buttons(collection, image, is_there=is_there)
    _show_neighbours(collection, image)


def _show_picture(image: ImageDetails, absence: Absence | None) -> None:
    name = show_path(image.path.name)
    if absence is None:
        st.image(f"{read_origin()}/o/{image.content_hash}", alt=name)
    else:
        show_thumbnail(image.content_hash, alt=name)
        st.warning(EXPLAINED[absence], icon=":material/image_not_supported:")


def _show_beside(image: ImageDetails, sources: Sequence[str | bytes], *, is_there: bool) -> None:
    left, right = st.columns(2)
    for number, source in enumerate(sources, start=1):
        left.image(source, alt=f"Query, picture {number}", width="stretch")
    right.image(find_source(image.content_hash, is_there=is_there), alt=show_path(image.path.name), width="stretch")


def find_source(content_hash: str, *, is_there: bool) -> str:
    """Where the browser finds an image: its original, or its thumbnail where that is gone."""
    return f"{read_origin()}/o/{content_hash}" if is_there else f"{read_origin()}/t/{content_hash}.webp"


def _show_neighbours(collection: Collection, image: ImageDetails) -> None:
    found = collection.find_similar_to(image.image_id, NEIGHBOURS + 1)
    others = [one for one in found if one.image_id != image.image_id][:NEIGHBOURS]
    if others:
        st.markdown("###### Most like it")
        show_gallery(others, favourites=list_favourites(collection), key=Key.LARGE_GALLERY)
        if was_pressed():
            st.rerun()


def _show_why(collection: Collection, image: ImageDetails, query: Query) -> None:
    try:
        with st.spinner("Looking at it place by place"):
            lit = collection.draw_explanation(query, image.image_id)
    except UserError as error:
        st.info(quote(str(error)), icon=":material/info:")
        return
    st.image(lit, alt=f"What matched in {show_path(image.path.name)}")
    st.caption(WHY)


def _show_buttons(collection: Collection, image: ImageDetails, *, is_there: bool) -> None:
    content_hash = image.content_hash
    is_favourite = content_hash in list_favourites(collection)
    with st.container(horizontal=True):
        _offer("Find similar", Key.LARGE_SIMILAR, SIMILAR_ICON, lambda: go_to_image(content_hash), is_first=True)
        _offer("More like it", Key.LARGE_PLUS, ":material/add:", lambda: add_term(content_hash, is_wanted=True))
        _offer("Less like it", Key.LARGE_MINUS, ":material/remove:", lambda: add_term(content_hash, is_wanted=False))
        label = "No favourite" if is_favourite else "Favourite"
        _offer(label, Key.LARGE_FAVOURITE, ":material/favorite:", lambda: switch_favourite(content_hash))
        _offer("Hide", Key.LARGE_HIDE, ":material/visibility_off:", lambda: hide(content_hash))
        if is_there:
            st.link_button("Download", f"/o/{content_hash}?download", icon=":material/download:")


def _offer(label: str, key: Key, icon: str, do: Callable[[], None], *, is_first: bool = False) -> None:
    if st.button(label, key=key, icon=icon, type="primary" if is_first else "secondary", on_click=do):
        # A dialog runs by itself; only a run of the whole page closes it and shows the answer.
        st.rerun()
