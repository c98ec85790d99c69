"""A picture that a person dropped: searched from, and kept for the link to its answer where that can be and is wanted.

A kept one is named by the URL; one that is not kept has a name there that means something in its tab alone, as long as
that is open.

Rule: whatever keeping comes to, the search goes on, and the page says what became of the link.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from indexer.collection import Collection, CollectionUnwritable
from seer_model.errors import PictureError, UserError
from ui import address
from ui.keys import Key
from ui.resources import keeps_uploads, make_preview, the_collection
from ui.terms import MOST_TERMS, TrayTerm
from ui.texts import quote, show_date, show_path


class Joining(StrEnum):
    """What the next picture that is dropped does."""

    ANEW = "start anew"
    LIKE = "be added"
    UNLIKE = "be taken away"


NOT_WANTED = "It is not kept, so there is no link to this answer."
NO_LINK = "A link to this answer cannot be made."
NO_LONGER = "It is no longer kept: the link to this answer opens nothing."
MOST_HELD = 8
"""Drops whose pictures a tab holds."""
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
    is_wanted: bool = True
    """Whether answers shall be like it; else unlike. Of one that is kept, its term says that."""


def ask_for_picture() -> None:
    """The place to drop pictures: of any name, since what they are stands in their bytes."""
    key = address.name_upload()
    st.file_uploader(
        "Drop a picture, paste one, or choose", key=key, accept_multiple_files=True, on_change=take_uploads, args=(key,)
    )
    if address.read_address().terms:
        st.segmented_control(
            "The next picture will", list(Joining), key=Key.JOINING, default=Joining.ANEW, required=True,
            width="stretch",
        )  # fmt: skip


def take_uploads(upload_key: str) -> None:
    """Pictures were dropped: search from them. They have a place of their own, so the uploader is emptied."""
    given = st.session_state[upload_key]
    # What was taken before, a browser that was busy tells of once more.
    files = [one for one in given or () if isinstance(one, UploadedFile)]
    if not files:
        return
    joining = st.session_state.get(Key.JOINING) or Joining.ANEW
    is_wanted = joining is not Joining.UNLIKE
    found = [_take(Upload(name=one.name, picture=one.getvalue(), is_wanted=is_wanted)) for one in files]
    address.empty_uploader()
    # Streamlit would hold the bytes until the tab is closed.
    context = get_script_run_ctx()
    for one in files:
        context.uploaded_file_mgr.remove_file(context.session_id, one.file_id)
    _search_from([one for one in found if one is not None], joining)


def _search_from(uploads: Sequence[Upload], joining: Joining) -> None:
    if not uploads:
        return
    here = address.read_address() if joining is not Joining.ANEW else address.Address()
    terms = [
        TrayTerm(content_hash=one.content_hash, is_upload=True, is_wanted=one.is_wanted)
        for one in uploads
        if one.content_hash
    ]
    _hold([one for one in uploads if one.content_hash])
    loose = [one for one in uploads if not one.content_hash]
    own = _hold([*(find_own(here.own) or ()), *loose][:MOST_TERMS]) if loose else here.own
    address.go_to_terms((*here.terms, *terms), own)


def _take(own: Upload) -> Upload | None:
    """Returns: it, with the hash under which a link finds it or with why there is no link; None if it is no picture."""
    try:
        make_preview(own.picture)
    except PictureError as error:
        said = f"{show_path(own.name)} cannot be searched with. {error} Choose another picture."
        st.session_state.setdefault(Key.REFUSED, []).append(said)
        return None
    except UserError as error:
        return replace(own, told=f"{NO_LINK} {error}")
    return _keep(own)


def _keep(own: Upload) -> Upload:
    if not keeps_uploads():
        return replace(own, told=NOT_WANTED)
    try:
        return replace(own, content_hash=the_collection().marks.keep_query(own.picture, own.name))
    except CollectionUnwritable:
        return replace(own, told=NO_LINK)
    except UserError as error:
        return replace(own, told=f"{NO_LINK} {error}")


def take_refusals() -> list[str]:
    """Why pictures that were dropped just now cannot be searched with; each is told once."""
    return st.session_state.pop(Key.REFUSED, [])


def _hold(uploads: Sequence[Upload]) -> str | None:
    """Keep pictures as long as this tab is open, the latest few drops of it. Returns: the name that they have here."""
    if not uploads:
        return None
    held: dict[str, list[Upload]] = st.session_state.setdefault(Key.OWN, {})
    name = secrets.token_hex(4)  # Drawn, so that in another tab it names nothing.
    held[name] = list(uploads)
    for old in list(held)[:-MOST_HELD]:
        del held[old]
    return name


def find_own(name: str | None) -> list[Upload] | None:
    """The pictures of this tab that no link names; None where the name means nothing here."""
    if name is None:
        return []
    return st.session_state.get(Key.OWN, {}).get(name)


def remove_own(name: str, place: int) -> None:
    """Search without one of them."""
    here, uploads = address.read_address(), find_own(name) or []
    address.go_to_terms(here.terms, _hold([*uploads[:place], *uploads[place + 1 :]]))


def find_upload(collection: Collection, content_hash: str) -> Upload | None:
    """The picture that the link names, or this tab's own; says so where there is none any more."""
    held = (one for uploads in st.session_state.get(Key.OWN, {}).values() for one in uploads)
    told = GONE
    try:
        if kept := collection.marks.open_query(content_hash):
            until = f"Kept for its link until {show_date(kept.until)}."
            return Upload(name=kept.name, picture=kept.picture, content_hash=kept.content_hash, told=until)
    except UserError as error:
        told = str(error)
    if own := next((one for one in held if one.content_hash == content_hash), None):
        return replace(own, content_hash=None, told=NO_LONGER if told == GONE else f"{NO_LINK} {told}")
    st.warning(quote(told), icon=":material/link_off:")
    return None


def offer_forgetting(upload: Upload, place: int | None) -> None:
    """The way to have it deleted, if it is kept. `place`: of its term among several; None: it is the only one."""
    if upload.content_hash is not None:
        key = Key.FORGET if place is None else f"{Key.FORGET}-{place}"
        st.button("Forget it", key=key, icon=":material/delete:", on_click=forget, args=(upload.content_hash, place))


def forget(content_hash: str, place: int | None) -> None:
    """Delete a kept picture, and search without it. Raises: as `Marks`."""
    the_collection().marks.forget_query(content_hash)
    if place is None:
        address.start_over()
    else:
        address.change_term(place, None)
    st.toast(FORGOTTEN, icon=":material/delete:")
