"""Upkeep: what is done to a collection besides building it. `relocate` follows a folder that moved, `forget` lets go of
one, `prune` of what is gone.

    prune   living rows -> new store (synced) -> catalog -> new generation -> thumbnails and entries of gone images

A reader of the old generation goes on with the old store, whose files and row numbers stay as they are; both go when
the next generation but one is published.

Rule: nothing is embedded here, and no picture is opened.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer import generations
from indexer.catalog_upkeep import UpkeepCatalog
from indexer.errors import SourceError, explain_refusal
from indexer.hold import hold
from indexer.kinds import LIST, is_source, recognise
from indexer.layout import CATALOG, STORES, THUMBNAILS, name_store
from indexer.members import is_picture_there
from indexer.publish import OnStep, publish_store, require_faiss
from indexer.remote import StoreError
from indexer.schema import explain_damage
from indexer.sources import list_named
from indexer.thumbnails import ThumbnailWriter
from indexer.urls import is_remote, make_absolute, resolve, spell
from indexer.vectors import pick_rows

ASKED_ELSEWHERE = 100
"""Files that are looked for behind a URL before it is believed that pictures have moved there."""


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """What a prune did; `removed` counts rows of gone images, `generation` names the one that answers now."""

    images: int
    removed: int
    thumbnails: int
    generation: str

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer prune --json` prints."""
        return {"schema_version": 1, **vars(self)}


def relocate_folder(collection: Path, old: Path, new: Path) -> int:
    """Let everything known below `old` stand below `new`, after a folder or a disk has moved.

    Files keep their stamps, so the next build opens none of them. Returns: how many files are concerned.
    Raises: SourceError if there is no folder `new`, nothing known below `old`, none of its files below `new`, or the
        moved pictures would lie in no picture folder or in two.
    """
    new = resolve(new)
    if not is_source(new):
        raise SourceError(f"There is no folder {new}. Give the place where the pictures are now.")
    spelled = make_absolute(old)
    with open_for_upkeep(collection, "seer relocate") as catalog:
        # Folders are kept as they were resolved when they were there; a link on the way may still be.
        known = spelled if catalog.has_below(spelled) else resolve(spelled)
        _require_there(catalog.list_files_below(known), known, new)
        return catalog.relocate(known, new)


def _require_there(files: list[Path], old: Path, new: Path) -> None:
    """A folder that has moved has taken its files along; another one, taken for it, would lose its own."""
    # Behind a URL each costs a question.
    asked = random.sample(files, min(ASKED_ELSEWHERE, len(files))) if is_remote(new) else files
    try:
        is_there = not files or any(is_picture_there(new / file.relative_to(old)) for file in asked)
    except StoreError as error:
        raise SourceError(
            f"{spell(new)} cannot be asked ({error.strerror}). Run again when it can be reached."
        ) from None
    if not is_there:
        raise SourceError(
            f"None of the {len(asked)} files known below {spell(old)} lies below {spell(new)}. Give the folder that "
            "took its place; if its disk is not mounted, mount it."
        )


def forget_folder(collection: Path, folder: Path) -> int:
    """Take a picture folder out of a collection: its files leave the answers at once, and are not touched themselves.

    Returns: how many files are concerned. Raises: SourceError if it is none of the collection's folders.
    """
    spelled = make_absolute(folder)
    with open_for_upkeep(collection, "seer forget") as catalog:
        known = spelled if spelled in catalog.list_folders() else resolve(spelled)
        return catalog.forget(known, _list_other_names(catalog, known))


def _list_other_names(catalog: UpkeepCatalog, forgotten: Path) -> list[str]:
    """What other lists name, where it is a list that is forgotten. Raises: SourceError if one cannot be read now."""
    if catalog.list_files_below(forgotten):
        return []
    others = [one for one in catalog.list_folders() if one != forgotten]
    return [*list_named(one for one in others if not catalog.list_files_below(one) and recognise(one) == LIST)]


def prune_collection(collection: Path, *, on_step: OnStep = lambda name: None) -> PruneReport:
    """Write a store without the rows of gone images, and publish a generation on it.

    Args:
        on_step: is told each step by name once it is done.
    Raises: what stands under CollectionError. What was published before stays until the new generation is.
    """
    with open_for_upkeep(collection, "seer prune") as catalog:
        current = generations.open_generation(collection)
        # Not the generation's own, where a prune was killed before it could publish.
        store = catalog.find_store(current.manifest["fingerprint"]) or current.manifest["store"]
        living = catalog.list_living_rows(store)
        removed = catalog.count_rows(store) - len(living)
        if removed:
            store = write_living(collection, catalog, store, current.manifest["dimension"], living, on_step)
        if store != current.manifest["store"]:
            current = publish_store(collection, catalog, store, current.manifest, on_step)
        hashes = catalog.forget_gone_images()
        on_step("gone images forgotten")
        with closing(ThumbnailWriter(collection / THUMBNAILS)) as thumbnails:
            gone = thumbnails.keep_only(hashes)
        on_step("thumbnails removed")
        return PruneReport(images=len(living), removed=removed, thumbnails=gone, generation=current.name)


@contextmanager
def open_for_upkeep(collection: Path, purpose: str) -> Iterator[UpkeepCatalog]:
    """The catalog of a collection that nobody else changes meanwhile. Raises: what stands under CollectionError."""
    with (
        explain_refusal(collection),
        explain_damage(collection / CATALOG),
        hold(collection, purpose),
        closing(UpkeepCatalog(collection / CATALOG)) as catalog,
    ):
        yield catalog


def write_living(
    collection: Path, catalog: UpkeepCatalog, old: int, dimension: int, living: list[tuple[int, int]], on_step: OnStep
) -> int:
    """The number of a new store that has these rows, (row in `old`, image), of the old one, and its place."""
    # Before anything is changed that only an index would complete.
    require_faiss("nothing was changed")
    new = catalog.find_next_store()
    target = collection / STORES / name_store(new)
    # What a prune that was killed has left: the catalog does not know that number yet.
    shutil.rmtree(target, ignore_errors=True)
    rows = np.array([row for row, _ in living], dtype=np.int64)
    pick_rows(collection / STORES / name_store(old), target, dimension, rows)
    on_step("living rows written")
    catalog.move_store(old, new, living)
    on_step("store replaced")
    return new
