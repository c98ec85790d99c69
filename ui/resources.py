"""What all pages and routes of this process share: the open collections, their models, and pictures decoded aside.

The server chooses the collections once, before it starts; a page asks for the one that its URL names, else for the
first. If there is none yet, asking says so, and the next question after `seer build` finds it.

Rule: what is shared here may be asked for by any thread.
"""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from indexer.aside import Aside
from indexer.collection import Collection, hash_content
from indexer.overview import Overview
from seer_model.errors import UserError
from ui.keys import Parameter
from ui.shelves import Library

PREVIEW_PX = 640
FORGET_EVERY_SECONDS = 3600
REMEMBERED = 100
"""Previews and sizes of uploads: a query may have twenty."""
LOADING = "load-model"
"""The name of the thread that loads a model."""
log = logging.getLogger(__name__)


_aside = Aside()


_library = Library((), _aside, lambda collection: load_in_background(collection))
_keeps_uploads = True


def choose_collection(*folders: Path | None, keeps: bool = True, search_engine: str | None = None) -> None:
    """Choose for this process.

    Args:
        folders: of the collections; None or none: those in the default place.
        keeps: whether uploads are kept for links.
        search_engine: where candidates come from in place of the index here, as a person types it.
    """
    global _library, _keeps_uploads
    given = [folder for folder in folders if folder is not None]
    _library, _keeps_uploads = Library(given, _aside, load_in_background, search_engine), keeps


def the_collection() -> Collection:
    """The open collection: that which the page's URL names, else the first. Raises: as `Library.find`, `Shelf.open`."""
    return _library.find(_read_chosen()).take()


def _read_chosen() -> str:
    is_page = get_script_run_ctx(suppress_warning=True) is not None
    return st.query_params.get(Parameter.COLLECTION, "") if is_page else ""


def list_collections() -> list[str]:
    """The names of all collections that there are."""
    return list(_library.list_names())


def find_chosen() -> str:
    """The name of the one that this page shows; empty where there is none."""
    return _library.find_name(_read_chosen())


def list_shown() -> list[Collection]:
    """The collections that somebody has looked at, those left out that are gone; the first one, where nobody has."""
    found = []
    for shelf in _library.list_asked() or [_library.find()]:
        with suppress(UserError):
            found.append(shelf.take())
    return found


def the_overview() -> Overview:
    """What there is in the open collection without a query. Raises: as `the_collection`."""
    return overview_of(the_collection())


@lru_cache(maxsize=8)
def overview_of(collection: Collection) -> Overview:
    """What there is in it without a query."""
    return Overview(collection)


def keeps_uploads() -> bool:
    """Whether an upload is kept for the link to its answer."""
    return _keeps_uploads


def is_model_loaded() -> bool:
    """Whether an upload can be answered without waiting; opens and loads nothing."""
    asked = _library.list_asked()
    return bool(asked) and all(shelf.asked.is_model_loaded for shelf in asked)


@contextmanager
def opened_early() -> Iterator[None]:
    """Open the collection before the first visit, if there is one; who asks later is told what is wrong.

    Uploads whose time is over are deleted, then and while the body runs.
    """
    _aside.start()
    ended = threading.Event()
    try:
        the_collection()
    except UserError as error:
        log.warning("%s", error)
    forget_expired()
    threading.Thread(target=_forget_by_and_by, args=(ended,), name="forget-uploads", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _forget_by_and_by(ended: threading.Event) -> None:
    while not ended.wait(FORGET_EVERY_SECONDS):
        forget_expired()


def forget_expired() -> None:
    """Delete the uploads whose time is over; what keeps us from it is in the log."""
    for shelf in _library.list_all():
        try:
            shelf.open().marks.forget_expired()
        except UserError as error:
            log.warning("%s", error)


def load_in_background(collection: Collection) -> threading.Thread:
    """Load the model while the page answers; whoever needs it sooner waits for the same loading."""
    thread = threading.Thread(target=_load, args=(collection,), name=LOADING, daemon=True)
    thread.start()
    return thread


def _load(collection: Collection) -> None:
    try:
        collection.load_model()
    except UserError as error:
        # The search that needs the model raises the same again, and the page says it.
        log.warning("%s", error)
    # What the libraries have made stays. Looking through it for garbage took a fifth of a second, again and again.
    gc.collect()
    gc.freeze()


class Remembered:
    """What was made of the latest uploads, by their content: the uploads themselves are not held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[Callable, str], object] = {}

    def make(self, function: Callable[[bytes], object], picture: bytes) -> object:
        """What the function makes of a picture."""
        key = function, hash_content(picture).hex()
        with self._lock:
            if key in self._made:
                self._made[key] = self._made.pop(key)  # The one that was wanted longest ago stands first.
                return self._made[key]
        made = function(picture)
        with self._lock:
            self._made[key] = made
            if len(self._made) > REMEMBERED:
                del self._made[next(iter(self._made))]
        return made


_remembered = Remembered()


def make_preview(picture: bytes) -> bytes:
    """A small WebP of an uploaded picture. Raises: PictureError; and as `the_collection` does."""
    return _remembered.make(_shrink_to_preview, picture)


def measure_upload(picture: bytes) -> tuple[int, int]:
    """Width and height of an uploaded picture, upright. Raises: as `make_preview`."""
    return _remembered.make(_measure, picture)


def shrink(picture: bytes, side_px: int, collection: Collection) -> bytes:
    """A WebP that fits in a square of side_px, decoded aside within the collection's limit. Raises: PictureError."""
    return _aside.shrink(picture, side_px, collection.max_megapixels)


def _shrink_to_preview(picture: bytes) -> bytes:
    return shrink(picture, PREVIEW_PX, the_collection())


def _measure(picture: bytes) -> tuple[int, int]:
    return _aside.measure(picture, the_collection().max_megapixels)
