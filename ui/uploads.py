"""A picture that a person dropped: searched from, and kept for the link to its answer where that can be and is wanted.

A kept one is named by the URL; the uploader's is searched from where it could not be kept.

Rule: whatever keeping comes to, the search goes on, and the page says what became of the link.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from indexer.aside import PICTURE_SUFFIXES
from indexer.collection import Collection, CollectionUnwritable, hash_content
from seer_model.errors import PictureError, UserError
from ui import address
from ui.keys import Key
from ui.resources import keeps_uploads, make_preview, the_collection
from ui.texts import quote, show_date

NOT_WANTED = "It is not kept, so there is no link to this answer."
NO_LINK = "A link to this answer cannot be made."
NO_LONGER = "It is no longer kept: the link to this answer opens nothing."
GONE = "The picture that this link was made for is no longer kept. Drop it again, or choose another one."
FORGOTTEN = "Forgotten. The link to its answer opens nothing now."


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture from outside, as it was given."""

    name: str
    picture: bytes
    content_hash: str | None = None
    """Under which it is kept; None: it is not."""
    until: datetime | None = None
    """When it is forgotten, unless it is used."""


def ask_for_picture() -> UploadedFile | None:
    """The place to drop a picture."""
    key, kinds = address.name_upload(), ["image/*", *sorted(PICTURE_SUFFIXES)]
    return st.file_uploader("Drop a picture, or choose one", kinds, key=key, on_change=take_upload, args=(key,))


def take_upload(upload_key: str) -> None:
    """A picture was dropped: search from it. One that was taken away takes its answer with it."""
    given = st.session_state[upload_key]
    here = replace(address.read_address(), query=None, page=1)
    if given is None:
        address.write_address(here)
    else:
        content_hash, st.session_state[Key.NOT_KEPT] = _keep(given)
        address.write_address(replace(here, image=None, query=content_hash))


def _keep(given: UploadedFile) -> tuple[str | None, str | None]:
    """Returns: the hash under which a link finds it, or why there is no link."""
    if not keeps_uploads():
        return None, NOT_WANTED
    try:
        make_preview(given.getvalue())  # Only what is a picture is worth a link; the page says what is wrong.
        return the_collection().marks.keep_query(given.getvalue(), given.name), None
    except (PictureError, CollectionUnwritable):
        return None, NO_LINK
    except UserError as error:
        return None, f"{NO_LINK} {error}"


def find_upload(collection: Collection, here: address.Address, given: UploadedFile | None) -> Upload | None:
    """The picture that the link names, or the one in the uploader; says so where there is none any more."""
    own = Upload(name=given.name, picture=given.getvalue()) if given else None
    if here.query is None:
        return own if st.session_state.get(Key.NOT_KEPT) else None
    told = GONE
    try:
        if kept := collection.marks.open_query(here.query):
            return Upload(name=kept.name, picture=kept.picture, content_hash=kept.content_hash, until=kept.until)
    except UserError as error:
        told = str(error)
    if own is not None and hash_content(own.picture).hex() == here.query:
        st.session_state[Key.NOT_KEPT] = NO_LONGER if told == GONE else f"{NO_LINK} {told}"
        return own
    st.warning(quote(told), icon=":material/link_off:")
    return None


def explain_keeping(upload: Upload) -> str:
    """Until when it is kept for its link, or why it is not."""
    if upload.content_hash is None:
        return st.session_state[Key.NOT_KEPT]
    return f"Kept for its link until {show_date(upload.until)}."


def offer_forgetting(upload: Upload) -> None:
    """The way to have it deleted, if it is kept."""
    if upload.content_hash is not None:
        st.button("Forget it", key=Key.FORGET, icon=":material/delete:", on_click=forget, args=(upload.content_hash,))


def forget(content_hash: str) -> None:
    """Delete a kept picture, and begin anew. Raises: as `Marks`."""
    the_collection().marks.forget_query(content_hash)
    address.start_over()
    st.toast(FORGOTTEN, icon=":material/delete:")
