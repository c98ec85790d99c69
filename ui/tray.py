"""The query tray: the pictures that are searched from, each wanted or unwanted, whole or a part of it.

Rule: what a link names and is not there is said, and the rest is searched with.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from indexer.collection import Collection, ImageDetails, Query, Term
from seer_model.errors import PictureError
from ui import address
from ui.components import OPEN_ICON, describe_image, show_thumbnail
from ui.keys import Key
from ui.part import choose_part
from ui.resources import make_preview, measure_upload
from ui.terms import TrayTerm
from ui.texts import quote, show_path, show_size
from ui.uploads import Upload, find_own, find_upload, offer_forgetting, remove_own

GONE = "The image that this link names is not, or no longer, in the collection. Choose another one, or drop a picture."
OWN_GONE = (
    "This address was made for a picture that is not kept, and means something only in the tab where it was dropped. "
    "Drop it again, or choose another one."
)
WHOLE_QUERY = "The query has several pictures: each counts as often as it stands here."


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture in the tray."""

    picture: ImageDetails | Upload
    term: TrayTerm
    place: int
    """Where its term stands in the URL, or it among this tab's own."""
    own: str | None = None
    """The name of this tab's own pictures, if it is one of them: no link names it."""

    @property
    def key(self) -> str:
        """What its widgets' keys end with."""
        return str(self.place) if self.own is None else f"own{self.place}"

    @property
    def name(self) -> str:
        """Its file's name, for people."""
        is_image = isinstance(self.picture, ImageDetails)
        return show_path(self.picture.path.name if is_image else self.picture.name)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        if isinstance(self.picture, ImageDetails):
            return self.picture.width, self.picture.height
        return measure_upload(self.picture.picture)

    def make_term(self) -> Term:
        """For the collection."""
        is_image = isinstance(self.picture, ImageDetails)
        region = self.term.part and self.term.part.measure(*self.size)
        picture = self.picture.image_id if is_image else self.picture.picture
        return Term(picture, 1.0 if self.term.is_wanted else -1.0, region, self.name)


def read_tray(collection: Collection, here: address.Address) -> list[Entry]:
    """What is searched from; says so where a link names what is gone or is no picture."""
    found = [_find(collection, term, place) for place, term in enumerate(here.terms)]
    return [*(entry for entry in found if entry is not None), *_list_own(here.own)]


def _list_own(name: str | None) -> list[Entry]:
    uploads = find_own(name)
    if uploads is None:
        st.warning(OWN_GONE, icon=":material/link_off:")
    return [
        Entry(
            picture=one,
            term=TrayTerm(content_hash="", is_upload=True, is_wanted=one.is_wanted),
            place=place,
            own=name,
        )
        for place, one in enumerate(uploads or ())
    ]


def make_query(entries: Sequence[Entry]) -> Query:
    """The query of a tray that is not empty."""
    if len(entries) == 1 and entries[0].term.is_plain:
        picture = entries[0].picture
        return Query.of(picture.image_id if isinstance(picture, ImageDetails) else picture.picture)
    return Query(*(entry.make_term() for entry in entries))


def show_tray(entries: Sequence[Entry]) -> str | None:
    """The pictures, and what can be done with each. Returns: the content hash to open large, if it was asked for."""
    if not entries:
        return None
    with st.container(key=Key.QUERY):
        if len(entries) > 1:
            st.caption(WHOLE_QUERY)
        opened = [_show_entry(entry, is_alone=len(entries) == 1) for entry in entries]
    return next(filter(None, opened), None)


def offer_start() -> None:
    """The way back to the beginning."""
    st.button("Start over", key=Key.START_OVER, icon=":material/restart_alt:", on_click=address.start_over)


def _find(collection: Collection, term: TrayTerm, place: int) -> Entry | None:
    if term.is_upload:
        upload = find_upload(collection, term.content_hash)
        picture = upload and _require_picture(upload)
    else:
        image_id = collection.find_image(term.content_hash)
        picture = None if image_id is None else collection.read_image(image_id)
        if picture is None:
            st.warning(GONE, icon=":material/link_off:")
    return picture and Entry(picture=picture, term=term, place=place)


def _require_picture(upload: Upload) -> Upload | None:
    """The upload; None, with the reason and a way on, if it is no picture."""
    try:
        make_preview(upload.picture)
        return upload
    except PictureError as error:
        name = show_path(upload.name)
        st.error(quote(f"{name} cannot be searched with. {error} Choose another picture."), icon=":material/error:")
        return None


def _show_entry(entry: Entry, *, is_alone: bool) -> str | None:
    picture, kind = entry.picture, "like" if entry.term.is_wanted else "unlike"
    with st.container(key=f"{Key.TRAY}-{kind}-{entry.key}"):
        _show_picture(entry)
        st.text(entry.name, wrap=False, width="stretch")
        if is_alone:
            is_image = isinstance(picture, ImageDetails)
            st.text(describe_image(picture) if is_image else f"{show_size(len(picture.picture))} · your picture")
        if isinstance(picture, Upload):
            st.text(picture.told)
        with st.container(horizontal=True, gap="small"):
            opened = _show_buttons(entry, is_alone=is_alone)
    return opened


def _show_picture(entry: Entry) -> None:
    alt = f"{'Query' if entry.term.is_wanted else 'Unlike'}: {entry.name}"
    if isinstance(entry.picture, ImageDetails):
        show_thumbnail(entry.picture.content_hash, alt=alt)
    else:
        st.image(make_preview(entry.picture.picture), alt=alt, width="stretch")


def _show_buttons(entry: Entry, *, is_alone: bool) -> str | None:
    opened, place, term = None, entry.place, entry.term
    if entry.own is not None:
        if not is_alone:
            _offer_removal(entry.key, remove_own, entry.own, place)
        return None
    if isinstance(entry.picture, ImageDetails):
        key = Key.OPEN_QUERY if is_alone else f"{Key.OPEN_QUERY}-{place}"
        if st.button("Open", key=key, icon=OPEN_ICON):
            opened = entry.picture.content_hash
    with st.popover("Part" if term.part is None else "Part chosen", icon=":material/crop:"):
        choose_part(place, term, _find_source(entry), entry.name)
    st.button(
        "Unlike it" if term.is_wanted else "Like it", key=f"{Key.TRAY}_flip_{place}",
        icon=":material/remove:" if term.is_wanted else ":material/add:",
        on_click=address.change_term, args=(place, term.flip()),
    )  # fmt: skip
    if not is_alone:
        _offer_removal(entry.key, address.change_term, place, None)
    if isinstance(entry.picture, Upload):
        offer_forgetting(entry.picture, None if is_alone else place)
    return opened


def _offer_removal(key: str, remove: Callable[..., None], *what: object) -> None:
    st.button("Remove", key=f"{Key.TRAY}_remove_{key}", icon=":material/close:", on_click=remove, args=what)


def _find_source(entry: Entry) -> str:
    """Where the browser finds the picture: of an upload nobody is handed the file, so it gets the preview itself."""
    if isinstance(entry.picture, ImageDetails):
        return f"/t/{entry.picture.content_hash}.webp"
    return "data:image/webp;base64," + base64.b64encode(make_preview(entry.picture.picture)).decode()
