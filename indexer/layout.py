"""Where everything lies: the files of a collection, and the collections of this computer.

    COLLECTION/
      catalog.sqlite  thumbnails.sqlite  marks.sqlite  build.lock  build.log
      stores/000002/       rows.f16  norms.f32  crc.u32  parts/
      generations/000007/  image_ids.npy  manifest.json  index.faiss  index.lists  held_out.npz  graph/
      CURRENT              "000007\\n", replaced atomically

Rule: every path is spelled here and nowhere else. This module creates nothing.
"""

import hashlib
import os
from pathlib import Path

from indexer.errors import CollectionAmbiguous, CollectionDamaged, CollectionMissing, CollectionPlaceTaken
from seer_model.zoo import read_home

CATALOG = "catalog.sqlite"
THUMBNAILS = "thumbnails.sqlite"
MARKS = "marks.sqlite"
"""What people decided; it may be there before the rest."""
LOCK = "build.lock"
HOLDER = "build.holder"
"""Who has the lock, while it is held."""
LOG = "build.log"
BACKGROUND_LOG = "background.log"
"""What the last command said that a page has started."""
BACKGROUND_NOTE = "background.json"
"""Which process that is."""
CURRENT = "CURRENT"
OUTPUTS = "outputs"
"""Where a cluster leaves what it has made, until the catalog has taken it in."""
STORES = "stores"
GENERATIONS = "generations"
ROWS = "rows.f16"
"""Of a store: its embeddings."""
OURS = (LOG, LOCK, HOLDER, MARKS)
"""How the names of those files begin that a place may hold before it is a collection."""
APPLICATION = b"seer"
"""What SQLite keeps for us at the end of the first HEADER_BYTES of the catalog (`application_id`)."""
HEADER_BYTES = 72
LARGEST = 2**63 - 1
"""The largest number that the catalog can hold."""
PRIVATE = 0o700
"""Rights of a collection's folder: thumbnails and uploads are for whoever built it, as the pictures may be."""


def name_store(number: int) -> str:
    """The name of a store's or generation's folder: six digits."""
    return f"{number:06d}"


def is_collection(folder: Path) -> bool:
    """Whether a collection of ours lies here: other programs have a catalog.sqlite too.

    Not for a process that has this catalog open: POSIX gives up all of a process's locks on a file as soon as it closes
    the file once, and a build would then change what a reader of it is reading.
    """
    try:
        with open(folder / CATALOG, "rb") as file:
            return file.read(HEADER_BYTES)[-len(APPLICATION) :] == APPLICATION
    except OSError:
        return False


def has_lost_catalog(folder: Path) -> bool:
    """Whether a collection lies here whose catalog is gone, or so damaged that it is not known for one any more."""
    return not is_collection(folder) and any((folder / STORES).glob(f"*/{ROWS}"))


def refuse_lost_catalog(folder: Path) -> None:
    """Say what is left of a collection, and what to do. Raises: CollectionDamaged."""
    if has_lost_catalog(folder):
        raise CollectionDamaged(
            f"The catalog of the collection in {folder} is gone or unreadable: embeddings are there, but nothing says "
            f"any more of which pictures. Those are untouched. Move everything but {MARKS} out of that folder, then "
            f"run: seer build PICTURES --collection {folder}"
        )


def require_own_place(folder: Path) -> None:
    """A collection is kept by itself: what it removes must never be somebody's.

    Raises: CollectionPlaceTaken if the folder holds something else than a collection; CollectionDamaged.
    """
    if not folder.exists() or is_collection(folder):
        return
    refuse_lost_catalog(folder)
    ours = (*OURS, *((CATALOG,) if _is_blank(folder / CATALOG) else ()))
    if not folder.is_dir() or any(not entry.name.startswith(ours) for entry in folder.iterdir()):
        raise CollectionPlaceTaken(
            f"{folder} is not empty and holds no collection. Choose a new or an empty folder with --collection."
        )


def _is_blank(catalog: Path) -> bool:
    """Whether a build was killed, or the power cut, before SQLite had written the head of a new catalog."""
    try:
        with open(catalog, "rb") as file:
            return not any(file.read(HEADER_BYTES))
    except OSError:
        return False


def list_collections() -> list[Path]:
    """The collections in the default place, by name, those with a lost catalog among them."""
    place = read_home() / "collections"
    there = place.glob("*") if place.is_dir() else ()
    return sorted(folder for folder in there if is_collection(folder) or has_lost_catalog(folder))


def name_collection(folders: list[Path]) -> Path:
    """The default place of the collection made from just these picture folders (absolute paths)."""
    key = b"\0".join(sorted(os.fsencode(folder) for folder in folders))
    title = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in folders[0].name) or "pictures"
    return read_home() / "collections" / f"{title[:40]}-{hashlib.sha256(key).hexdigest()[:8]}"


def find_collection(folder: Path | None) -> Path:
    """The collection given, or the only one there is.

    Raises: CollectionMissing if there is none; CollectionAmbiguous if there are several and none was given;
        CollectionDamaged if its catalog is lost.
    """
    folder = folder or _find_only()
    refuse_lost_catalog(folder)
    if not is_collection(folder):
        raise CollectionMissing(
            f"There is no collection in {folder}. Make one in a new or an empty folder: "
            "seer build PICTURES --collection FOLDER"
        )
    return folder


def _find_only() -> Path:
    there = list_collections()
    if not there:
        raise CollectionMissing("There is no collection yet. Make one: seer build PICTURES")
    if len(there) > 1:
        listed = "\n".join(f"  {place}" for place in there)
        raise CollectionAmbiguous(f"There are {len(there)} collections; choose one with --collection:\n{listed}")
    return there[0]


def clamp_time(mtime_ns: int) -> int:
    """A file's time as the catalog can hold it: some disks know times after the year 2262."""
    return max(-LARGEST - 1, min(mtime_ns, LARGEST))
