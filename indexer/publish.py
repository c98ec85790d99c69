"""From a store to the generation that answers: the index that fits its rows, published, and what it replaces let go.

Rule: the catalog and the rows are read here, never changed; a store goes only when no generation stands on it.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from indexer import generations
from indexer.catalog import Catalog
from indexer.edits import EDITS
from indexer.errors import CollectionError, FaissMissing
from indexer.fitting import Before, Demands, fit_index, read_edited
from indexer.layout import STORES, name_store
from indexer.parts import FillParts, remove_parts
from indexer.vectors import Store
from indexer.words import MILD, WORDS, calibrate

log = logging.getLogger(__name__)

OnStep = Callable[[str], None]
DEMANDS = ("recall", "memory_bytes", "exact_ms")
"""The settings that are about the index."""
MakeCopies = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Titles of edits -> embeddings of edited copies of some images, (E, D) float32, and (E,) the rows of these."""
MEASURED_AGAIN = 1.5
"""With so many times the rows, the words for similarities are measured anew."""
ADDED = ("schema_version", "created_at", "files", "checksum", "search", "tried")
"""What a publication says of itself, and not of the rows."""


def require_faiss(consequence: str) -> None:
    """Raise FaissMissing, with what that means for the work in hand, unless FAISS can be loaded."""
    try:
        import indexer.index  # noqa: F401
    except ImportError as error:
        raise FaissMissing(
            f"FAISS cannot be loaded ({error}), so {consequence}. Install faiss-gpu (Linux x86-64) or faiss-cpu, check "
            "with seer doctor, and run again."
        ) from None


def publish_store(
    collection: Path,
    catalog: Catalog,
    store: int,
    described: dict,
    on_step: OnStep,
    make_copies: MakeCopies | None = None,
    fill: FillParts | None = None,
) -> generations.Generation:
    """A generation on all rows that the catalog names of a store.

    Args:
        described: at least `dimension`, `fingerprint`, `model` and `settings`, as in a manifest; an earlier
            generation's manifest holds for every store of the same fingerprint.
        on_step: is told each step by name once it is done.
        make_copies: edits and embeds copies of some images; what the generation before knows by such copies is as good.
        fill: makes parts of a large index elsewhere.
    Raises: FaissMissing; CollectionDamaged if the store is shorter than the catalog says.
    """
    require_faiss("nothing was published; what was embedded is kept")
    image_ids = catalog.read_image_ids(store)
    stored = Store(collection / STORES / name_store(store), described["dimension"], len(image_ids))
    settings, last = described["settings"], _find_last(collection, described["fingerprint"])
    indexed = last if last and "search" in last.manifest else None
    fitted = fit_index(
        stored,
        Demands(**{name: settings[name] for name in DEMANDS if settings.get(name) is not None}),
        before=_find_before(indexed, store),
        last=last.manifest if last else None,
        embed_edited=partial(_find_edited, indexed, make_copies),
        on_note=log.info,
        fill=fill,
    )
    log.info("%s", fitted.described["chosen"])
    own = {"store": store, "rows": len(image_ids), **fitted.described, **_find_words(stored, last, make_copies)}
    published = generations.publish_generation(
        collection,
        {key: value for key, value in described.items() if key not in ADDED} | own,
        image_ids,
        fitted.write,
        on_step,
    )
    remove_parts(stored.folder)
    _remove_old_stores(collection, catalog)
    on_step("old generations removed")
    return published


def _find_last(collection: Path, fingerprint: str) -> generations.Generation | None:
    """The generation that answers, if it is whole and of the same model."""
    try:
        last = generations.open_generation(collection)
        if last.manifest["fingerprint"] != fingerprint:
            return None
        generations.verify_whole(last)
        return last
    except CollectionError:
        return None


def _find_edited(indexed: generations.Generation | None, make_copies: MakeCopies | None) -> np.ndarray | None:
    """Edited copies that the last index was measured with, or else new ones; None where neither can be had."""
    kept = read_edited(indexed.folder) if indexed else ()
    if len(kept):
        return kept
    return make_copies(tuple(EDITS))[0] if make_copies else None


def _find_words(store: Store, last: generations.Generation | None, make_copies: MakeCopies | None) -> dict:
    """The words for similarities: those of the last generation while they were measured on about as many rows."""
    known = last.manifest.get(WORDS) if last else None
    is_enough = known and len(store.rows) <= MEASURED_AGAIN * known["rows"]
    if is_enough or not make_copies:
        return {WORDS: known} if known else {}
    words = calibrate(store, *make_copies(MILD))
    return {WORDS: words.describe()} if words else {}


def _find_before(last: generations.Generation | None, store: int) -> Before | None:
    """Its index, if it is of the same rows."""
    if last is None or last.manifest["store"] != store:
        return None
    return Before(folder=last.folder, search=last.manifest["search"], rows=last.manifest["rows"])


def _remove_old_stores(collection: Path, catalog: Catalog) -> None:
    # Another model's store may be half filled, and no generation stands on it yet.
    keep = generations.remove_old_generations(collection) | {catalog.find_latest_store()}
    # By the numbers that the catalog gave out: whatever else lies there is not ours to remove.
    for store in catalog.drop_stores(keep):
        shutil.rmtree(collection / STORES / name_store(store), ignore_errors=True)
