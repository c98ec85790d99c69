"""A picture that a person dropped: searched from, and kept for the link to its answer where that can be and is wanted.

A kept one is named by the URL; one that could not be kept is searched from as long as its tab is open.

Rule: whatever keeping comes to, the search goes on, and the page says what became of the link.
"""

from dataclasses import dataclass, replace

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from indexer.collection import Collection, CollectionUnwritable
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
    told: str = ""
    """Until when it is kept for its link, or why it is not."""


def ask_for_picture() -> None:
    """The place to drop a picture: of any name, since what it is stands in its bytes."""
    key = address.name_upload()
    st.file_uploader("Drop a picture, or choose one", key=key, on_change=take_upload, args=(key,))


def take_upload(upload_key: str) -> None:
    """A picture was dropped: search from it. That has a place of its own in the page, so the uploader is emptied."""
    given = st.session_state[upload_key]
    if not isinstance(given, UploadedFile):  # Taken before, and a browser that was busy tells of it once more.
        return
    own = st.session_state[Key.OWN] = _keep(Upload(name=given.name, picture=given.getvalue()))
    address.empty_uploader()
    # Streamlit would hold the bytes until the tab is closed.
    context = get_script_run_ctx()
    context.uploaded_file_mgr.remove_file(context.session_id, given.file_id)
    address.write_address(replace(address.read_address(), image=None, query=own.content_hash, page=1))


def _keep(own: Upload) -> Upload:
    """Returns: it, with the hash under which a link finds it, or with why there is no link."""
    if not keeps_uploads():
        return replace(own, told=NOT_WANTED)
    try:
        make_preview(own.picture)  # Only what is a picture is worth a link; the page says what is wrong.
        return replace(own, content_hash=the_collection().marks.keep_query(own.picture, own.name))
    except (PictureError, CollectionUnwritable):
        return replace(own, told=NO_LINK)
    except UserError as error:
        return replace(own, told=f"{NO_LINK} {error}")


def find_upload(collection: Collection, here: address.Address) -> Upload | None:
    """The picture that the link names, or this tab's own; says so where there is none any more."""
    own: Upload | None = st.session_state.get(Key.OWN)
    if here.query is None:
        return own if own and own.content_hash is None else None
    told = GONE
    try:
        if kept := collection.marks.open_query(here.query):
            until = f"Kept for its link until {show_date(kept.until)}."
            return Upload(name=kept.name, picture=kept.picture, content_hash=kept.content_hash, told=until)
    except UserError as error:
        told = str(error)
    if own and own.content_hash == here.query:
        return replace(own, content_hash=None, told=NO_LONGER if told == GONE else f"{NO_LINK} {told}")
    st.warning(quote(told), icon=":material/link_off:")
    return None


def offer_forgetting(upload: Upload) -> None:
    """The way to have it deleted, if it is kept."""
    if upload.content_hash is not None:
        st.button("Forget it", key=Key.FORGET, icon=":material/delete:", on_click=forget, args=(upload.content_hash,))


def forget(content_hash: str) -> None:
    """Delete a kept picture, and begin anew. Raises: as `Marks`."""
    the_collection().marks.forget_query(content_hash)
    address.start_over()
    st.toast(FORGOTTEN, icon=":material/delete:")
