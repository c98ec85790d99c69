"""The one open collection of this process, shared by all pages and routes, and its model loading in the background.

The server chooses the folder once, before it starts; pages and routes ask for the collection. If there is none yet,
asking says so, and the next question after `seer build` finds it. If it was deleted and built anew, it is opened anew.

Rule: opened once, read-only, never closed while a page may still be reading from it.
"""

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from indexer.aside import Aside
from indexer.collection import Collection
from indexer.layout import CATALOG, find_collection
from indexer.overview import Overview
from seer_model.errors import UserError

PREVIEW_PX = 640
FORGET_EVERY_SECONDS = 3600
LOADING = "load-model"
"""The name of the thread that loads a model."""
log = logging.getLogger(__name__)


_aside = Aside()


class Shelf:
    """Where the open collection stands."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: tuple[tuple[int, int] | None, Collection] | None = None

    def take(self) -> Collection:
        """The collection. Raises: CollectionMissing, CollectionAmbiguous, CatalogTooNew, CollectionDamaged."""
        with self._lock:
            # A folder that was deleted and built again has another catalog under the same name.
            if self._open is None or self._open[0] != _read_stamp(self._open[1].folder):
                # Not while it is open: looking whether it is a collection gives up SQLite's locks (`is_collection`).
                folder = find_collection(self._folder)
                self._open = _read_stamp(folder), Collection(folder, decoder=_aside)
                # What was found stays chosen, also when a second collection is made while the server runs.
                self._folder = folder
                load_in_background(self._open[1])
            return self._open[1]

    @property
    def is_model_loaded(self) -> bool:
        """Whether the collection is open and its model there; opens and loads nothing."""
        return self._open is not None and self._open[1].is_model_loaded


def _read_stamp(folder: Path) -> tuple[int, int] | None:
    try:
        status = (folder / CATALOG).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_shelf = Shelf(None)
_keeps_uploads = True


def choose_collection(folder: Path | None, *, keeps: bool = True) -> None:
    """Which collection this process shows (None: the only one there is), and whether it keeps uploads for links."""
    global _shelf, _keeps_uploads
    _shelf, _keeps_uploads = Shelf(folder), keeps


def the_collection() -> Collection:
    """The open collection. Raises: as `Shelf.take`."""
    return _shelf.take()


def the_overview() -> Overview:
    """What there is in the open collection without a query. Raises: as `Shelf.take`."""
    return _overview_of(the_collection())


@lru_cache(maxsize=1)
def _overview_of(collection: Collection) -> Overview:
    return Overview(collection)


def keeps_uploads() -> bool:
    """Whether an upload is kept for the link to its answer."""
    return _keeps_uploads


def is_model_loaded() -> bool:
    """Whether an upload can be answered without waiting."""
    return _shelf.is_model_loaded


@contextmanager
def opened_early() -> Iterator[None]:
    """Open the collection before the first visit, if there is one; who asks later is told what is wrong.

    Uploads whose time is over are deleted, then and while the body runs.
    """
    _aside.start()
    ended = threading.Event()
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
    try:
        the_collection().marks.forget_expired()
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


@lru_cache(maxsize=4)
def make_preview(picture: bytes) -> bytes:
    """A small WebP of an uploaded picture. Raises: PictureError; and as `the_collection` does."""
    return shrink(picture, PREVIEW_PX)


def shrink(picture: bytes, side_px: int) -> bytes:
    """A WebP that fits in a square of side_px, decoded aside. Raises: as `make_preview`."""
    return _aside.shrink(picture, side_px, the_collection().max_megapixels)


@lru_cache(maxsize=32)
def measure_upload(picture: bytes) -> tuple[int, int]:
    """Width and height of an uploaded picture, upright. Raises: as `make_preview`."""
    return _aside.measure(picture, the_collection().max_megapixels)
