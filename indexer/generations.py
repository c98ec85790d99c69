"""Generations: each what a store answers with and its manifest, immutable; `CURRENT` names the one that answers.

A generation is written under a name that readers pass over, synced, renamed, and only then named in `CURRENT`.
The hashes of its files are checked when it is opened, unless their stamps are the ones that were verified; and whatever
they are, before a file is used.

Rule: FAISS reads no byte that is not in the manifest.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np

from indexer.errors import CollectionDamaged, CollectionEmpty
from indexer.layout import CURRENT, GENERATIONS, name_store
from seer_model.durable import make_folder, sync_file, sync_folder, write_text_durably

SCHEMA_VERSION = 1
IMAGE_IDS, MANIFEST, VERIFIED = "image_ids.npy", "manifest.json", "verified.json"
KEPT = 2
_OURS = re.compile(r"\d{6,}")


@dataclass(frozen=True)
class Generation:
    """One published generation. `manifest` as in `publish_generation`."""

    name: str
    folder: Path
    manifest: dict

    def read_image_ids(self) -> np.ndarray:
        """(N,) int64: the image of each row, its bytes compared with the manifest at every call.

        A byte that rotted under its old stamp would show another picture for a row. Raises: CollectionDamaged.
        """
        path = self.folder / IMAGE_IDS
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _damaged(path, f"cannot be read ({error.strerror})") from None
        _require_hash(path, hashlib.sha256(data).hexdigest(), self.manifest["files"][IMAGE_IDS])
        return np.load(io.BytesIO(data), allow_pickle=False)

    def verify(self, name: str) -> Path:
        """Where one of its files lies, every byte compared with the manifest. Raises: CollectionDamaged."""
        path, told = self.folder / name, self.manifest["files"][name]
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _damaged(path, f"cannot be read ({error.strerror})") from None
        _require_hash(path, found, told)
        return path


def publish_generation(
    collection: Path,
    manifest: dict,
    image_ids: np.ndarray,
    write_index: Callable[[Path], None],
    on_step: Callable[[str], None],
) -> Generation:
    """Write the next generation and let it answer.

    Args:
        manifest: JSON-able; at least `store`, `rows`, `dimension`, `fingerprint`, `model`, `index`, `recall`.
        image_ids: (N,) int64.
        write_index: writes the files of an index, if there is one, into the folder that it is given.
        on_step: is told each step by name once it is done.
    """
    name = name_store(_find_last_number(collection) + 1)
    folder, aside = collection / GENERATIONS / name, collection / GENERATIONS / f".{name}"
    shutil.rmtree(aside, ignore_errors=True)
    # On the disk before CURRENT is: both are names in the collection's folder.
    make_folder(aside.parent)
    aside.mkdir()
    write_index(aside)
    np.save(aside / IMAGE_IDS, image_ids)
    files = {file.name: _describe_file(file) for file in sorted(aside.iterdir())}
    created_at = datetime.now(UTC).isoformat()
    manifest = {"schema_version": SCHEMA_VERSION, "created_at": created_at, **manifest, "files": files}
    manifest["checksum"] = compute_checksum(manifest)
    write_text_durably(aside / MANIFEST, json.dumps(manifest, indent=1))
    on_step("generation written")
    os.rename(aside, folder)
    sync_folder(folder.parent)
    _write_verified(folder, files)
    on_step("generation renamed")
    write_text_durably(collection / CURRENT, name + "\n")
    on_step("generation published")
    return Generation(name, folder, manifest)


def read_current(collection: Path) -> str | None:
    """The name of the generation that answers; None before the first."""
    try:
        name = (collection / CURRENT).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not _OURS.fullmatch(name):
        raise _damaged(collection / CURRENT, "holds no name of a generation")
    return name


def open_generation(collection: Path) -> Generation:
    """The current generation, its files verified.

    Raises: CollectionEmpty if nothing was published; CollectionDamaged if a file is missing or has changed.
    """
    name = read_current(collection)
    if name is None:
        raise CollectionEmpty(f"Nothing can be searched in {collection} yet. Run: seer build --collection {collection}")
    generation = read_generation(collection, name)
    _verify(generation)
    return generation


def read_generation(collection: Path, name: str) -> Generation:
    """A generation by name, its files not verified. Raises: CollectionDamaged."""
    folder = collection / GENERATIONS / name
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder / MANIFEST, f"cannot be read ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("checksum") != compute_checksum(manifest):
        raise _damaged(folder / MANIFEST, "is not the manifest that was published: its checksum differs")
    return Generation(name, folder, manifest)


def list_generations(collection: Path) -> list[str]:
    """The names of all complete generations, oldest first."""
    place = collection / GENERATIONS
    return sorted(entry.name for entry in place.iterdir() if _OURS.fullmatch(entry.name)) if place.is_dir() else []


def read_newest_first(collection: Path) -> Iterator[Generation]:
    """All whose manifests can be read, their files not verified."""
    for name in reversed(list_generations(collection)):
        with suppress(CollectionDamaged):
            yield read_generation(collection, name)


def remove_old_generations(collection: Path) -> set[int]:
    """Keep the current generation and the ones before it, `KEPT` in all; unfinished and damaged ones go too.

    Returns: the stores that the kept ones stand on.
    """
    kept = {one.name: one.manifest["store"] for one in islice(read_newest_first(collection), KEPT)}
    for entry in (collection / GENERATIONS).iterdir():
        if _OURS.fullmatch(entry.name.removeprefix(".")) and entry.name not in kept:
            # A reader on Windows may still hold a file open; the next build tries again.
            shutil.rmtree(entry, ignore_errors=True)
    return set(kept.values())


def remove_generation(collection: Path, name: str) -> None:
    """Remove one that is damaged, unless it is the one that answers."""
    if read_current(collection) != name:
        shutil.rmtree(collection / GENERATIONS / name, ignore_errors=True)


def _find_last_number(collection: Path) -> int:
    """Also where its folder was deleted: a reader that has it open knows it by its name."""
    names = list_generations(collection)
    with suppress(CollectionDamaged):
        names.append(read_current(collection) or "0")
    return max(map(int, names), default=0)


def compute_checksum(manifest: dict) -> str:
    """SHA-256 of a manifest, whatever it says of its own checksum."""
    told = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _describe_file(path: Path) -> dict:
    sync_file(path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "size_bytes": path.stat().st_size}


def _verify(generation: Generation) -> None:
    files = generation.manifest["files"]
    try:
        known = json.loads((generation.folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if isinstance(known, dict) and all(_read_stamp(generation.folder / name) == known.get(name) for name in files):
        return
    verify_whole(generation)
    _write_verified(generation.folder, files)


def verify_whole(generation: Generation) -> None:
    """Compare every byte of a generation with its manifest, whatever the stamps say. Raises: CollectionDamaged."""
    for name in generation.manifest["files"]:
        generation.verify(name)


def _require_hash(path: Path, found: str, told: dict) -> None:
    if found != told["sha256"]:
        # A build goes by stamps, and these may be what they were.
        what = "is not the file that was published: its hash differs from the manifest's"
        raise _damaged(path, what, "seer check --repair")


def _read_stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _write_verified(folder: Path, files: dict) -> None:
    stamps = {name: _read_stamp(folder / name) for name in files}
    with suppress(OSError):  # A read-only copy is verified at every open instead.
        (folder / VERIFIED).write_text(json.dumps(stamps), encoding="utf-8")


def _damaged(path: Path, what: str, command: str = "seer build again") -> CollectionDamaged:
    return CollectionDamaged(
        f"{path} {what}. Run {command}: it makes the index anew, nothing is embedded twice."
    )
