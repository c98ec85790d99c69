"""Favourites and hidden images, as buttons mark them.

Rule: a mark is made in a callback, before the page is drawn; what keeps it from being kept is said in the page.
"""

import streamlit as st

from indexer.collection import Collection, ImageKind
from seer_model.errors import UserError
from ui.resources import the_collection

HIDDEN = "Hidden: it is in no answer now. Favourites has the way back."


def list_favourites(collection: Collection) -> set[str]:
    """Their content hashes; none where what people decided cannot be read, which the status page says."""
    try:
        return set(collection.decisions.list_marked(ImageKind.FAVOURITE))
    except UserError:
        return set()


def switch_favourite(content_hash: str) -> None:
    """Mark an image as a favourite, or no longer. Raises: as `Decisions`."""
    collection = the_collection()
    if collection.find_image(content_hash) is None:
        return
    is_so = content_hash not in collection.decisions.list_marked(ImageKind.FAVOURITE)
    collection.decisions.mark(ImageKind.FAVOURITE, content_hash, is_so=is_so)


def hide(content_hash: str) -> None:
    """Leave an image out of all answers. Raises: as `Decisions`."""
    the_collection().decisions.mark(ImageKind.HIDDEN, content_hash)
    st.toast(HIDDEN, icon=":material/visibility_off:")


def show_again(content_hash: str) -> None:
    """Take a hidden image back into answers. Raises: as `Decisions`."""
    the_collection().decisions.mark(ImageKind.HIDDEN, content_hash, is_so=False)
