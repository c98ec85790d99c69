"""From a store to the generation that answers: FAISS's index over its rows, published, and what it replaces let go.

Rule: the catalog and the rows are read here, never changed; a store goes only when no generation stands on it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from indexer import generations
from indexer.catalog import Catalog
from indexer.errors import FaissMissing
from indexer.layout import STORES, name_store
from indexer.vectors import Store

OnStep = Callable[[str], None]
ADDED = ("schema_version", "created_at", "files", "checksum")
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
    collection: Path, catalog: Catalog, store: int, described: dict, on_step: OnStep
) -> generations.Generation:
    """A generation on all rows that the catalog names of a store.

    Args:
        described: at least `dimension`, `fingerprint`, `model` and `settings`, as in a manifest; an earlier
            generation's manifest holds for every store of the same fingerprint.
        on_step: is told each step by name once it is done.
    Raises: FaissMissing; CollectionDamaged if the store is shorter than the catalog says.
    """
    require_faiss("nothing was published; what was embedded is kept")
    from indexer.index import KIND

    # A row that nothing refers to belongs to no image.
    image_ids = [-1 if image_id is None else image_id for image_id in catalog.read_image_ids(store)]
    own = {"store": store, "rows": len(image_ids), "index": KIND, "recall": 1.0}
    stored = Store(collection / STORES / name_store(store), described["dimension"], len(image_ids))
    published = generations.publish_generation(
        collection,
        {key: value for key, value in described.items() if key not in ADDED} | own,
        np.array(image_ids, dtype=np.int64),
        lambda path: _write_index(stored, path),
        on_step,
    )
    _remove_old_stores(collection, catalog)
    on_step("old generations removed")
    return published


def _write_index(stored: Store, path: Path) -> None:
    from indexer.index import build_index

    build_index(stored.rows, stored.norms, path)


def _remove_old_stores(collection: Path, catalog: Catalog) -> None:
    # Another model's store may be half filled, and no generation stands on it yet.
    keep = generations.remove_old_generations(collection) | {catalog.find_latest_store()}
    # By the numbers that the catalog gave out: whatever else lies there is not ours to remove.
    for store in catalog.drop_stores(keep):
        shutil.rmtree(collection / STORES / name_store(store), ignore_errors=True)
