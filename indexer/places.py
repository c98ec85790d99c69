"""Which collection of the default place a build belongs to, and what its builds look through.

A collection is named after the folders that it was first made of. Those may move (`relocate`), and others come; then it
is known by the folders that it has now.

Rule: this module only looks.
"""

from contextlib import closing
from itertools import count
from pathlib import Path

from indexer.catalog_reader import CatalogReader
from indexer.layout import CATALOG, is_collection, list_collections, name_collection
from seer_model.errors import UserError


def list_watched(collection: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The folders that a collection's builds look through, and globs of what they pass over in them.

    Raises: what stands under CollectionError.
    """
    with closing(CatalogReader(collection / CATALOG)) as catalog:
        return catalog.list_folders(), tuple(catalog.list_excluded())


def find_place(folders: list[Path]) -> Path:
    """The collection in the default place that these folders (absolute) belong to, or where to make it."""
    named = name_collection(folders)
    if not is_collection(named) or _may_hold(named, folders):
        return _find_same(folders) or named
    numbered = (named.with_name(f"{named.name}-{number}") for number in count(2))
    return _find_same(folders) or next(place for place in numbered if not place.exists())


def _may_hold(collection: Path, folders: list[Path]) -> bool:
    """Whether all of them are its own, as far as it tells; what is wrong with one that cannot tell, the build says."""
    try:
        known, _ = list_watched(collection)
    except UserError:
        return True
    return not known or set(folders) <= set(known)


def _find_same(folders: list[Path]) -> Path | None:
    for place in list_collections():
        try:
            known, _ = list_watched(place)
        except UserError:
            continue
        if set(known) == set(folders):
            return place
    return None
