"""Favourites and hidden images, as buttons mark them.

Rule: a mark is made in a callback, before the page is drawn; what keeps it from being kept is said in the page.
"""

from collections.abc import Callable
from functools import wraps

import streamlit as st

from indexer.collection import Collection, ImageKind
from seer_model.errors import UserError
from ui.resources import the_collection
from ui.texts import quote

HIDDEN = "Hidden: it is in no answer now. Favourites has the way back."


def list_favourites(collection: Collection) -> set[str]:
    """Their content hashes; none where what people decided cannot be read, which the status page says."""
    try:
        return set(collection.decisions.list_marked(ImageKind.FAVOURITE))
    except UserError:
        return set()


def told(do: Callable[..., None]) -> Callable[..., None]:
    """A callback whose failure is said over the page, which stays as it is."""

    @wraps(do)
    def try_it(*given: object) -> None:
        try:
            do(*given)
        except UserError as error:
            st.toast(quote(str(error)), icon=":material/error:")

    return try_it


@told
def switch_favourite(content_hash: str) -> None:
    """Mark an image as a favourite, or no longer."""
    collection = the_collection()
    if collection.find_image(content_hash) is None:
        return
    is_so = content_hash not in collection.decisions.list_marked(ImageKind.FAVOURITE)
    collection.decisions.mark(ImageKind.FAVOURITE, content_hash, is_so=is_so)


@told
def hide(content_hash: str) -> None:
    """Leave an image out of all answers."""
    the_collection().decisions.mark(ImageKind.HIDDEN, content_hash)
    st.toast(HIDDEN, icon=":material/visibility_off:")


@told
def show_again(content_hash: str) -> None:
    """Take a hidden image back into answers."""
    the_collection().decisions.mark(ImageKind.HIDDEN, content_hash, is_so=False)
