"""Where everything lies: the files of a collection, and the collections of this computer.

    COLLECTION/
      catalog.sqlite  thumbnails.sqlite  build.lock  build.log
      stores/000002/       rows.f16  norms.f32  crc.u32
      generations/000007/  index.faiss  image_ids.npy  manifest.json
      CURRENT              "000007\\n", replaced atomically

Rule: every path is spelled here and nowhere else. This module creates nothing.
"""

import hashlib
import os
from pathlib import Path

from indexer.errors import CollectionAmbiguous, CollectionMissing
from seer_model.zoo import read_home

CATALOG = "catalog.sqlite"
THUMBNAILS = "thumbnails.sqlite"
LOCK = "build.lock"
LOG = "build.log"
CURRENT = "CURRENT"
STORES = "stores"
GENERATIONS = "generations"


def name_store(number: int) -> str:
    """The name of a store's or generation's folder: six digits."""
    return f"{number:06d}"


def is_collection(folder: Path) -> bool:
    """Whether a collection lies here."""
    return (folder / CATALOG).is_file()


def list_collections() -> list[Path]:
    """The collections in the default place, by name."""
    place = read_home() / "collections"
    return sorted(folder for folder in place.glob("*") if is_collection(folder)) if place.is_dir() else []


def name_collection(folders: list[Path]) -> Path:
    """The default place of the collection made from just these picture folders (absolute paths)."""
    key = b"\0".join(sorted(os.fsencode(folder) for folder in folders))
    title = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in folders[0].name) or "pictures"
    return read_home() / "collections" / f"{title[:40]}-{hashlib.sha256(key).hexdigest()[:8]}"


def find_collection(folder: Path | None) -> Path:
    """The collection given, or the only one there is.

    Raises: CollectionMissing if there is none; CollectionAmbiguous if there are several and none was given.
    """
    if folder is not None:
        if not is_collection(folder):
            raise CollectionMissing(f"No collection in {folder}. Make one: seer build PICTURES --collection {folder}")
        return folder
    there = list_collections()
    if not there:
        raise CollectionMissing("There is no collection yet. Make one: seer build PICTURES")
    if len(there) > 1:
        listed = "\n".join(f"  {place}" for place in there)
        raise CollectionAmbiguous(f"There are {len(there)} collections; choose one with --collection:\n{listed}")
    return there[0]
