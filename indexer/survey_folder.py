"""A survey of a generation on disk: what is in the collection, found once, in a folder of the generation.

    survey/groups.npz   outliers.npz   map.npz     arrays, each written whole
    survey/survey.json  whose generation, and for each file its SHA-256 and what else is told of it

It is derived, and no part of the generation's manifest: it may be deleted at any time. A part that is not there, is not
what was written or is of another generation counts as not made yet.

Rule: a file is on the disk before survey.json names it, and is compared with its hash before it is read.
"""

import hashlib
import io
import json
import shutil
from dataclasses import dataclass

import numpy as np

from indexer.generations import Generation, compute_checksum
from seer_model.durable import make_folder, write_durably, write_text_durably

FOLDER, TOLD = "survey", "survey.json"
GROUPS, OUTLIERS, MAP = "groups", "outliers", "map"
"""The parts."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One part of a survey: its arrays by name, and what is told of it, JSON-able."""

    arrays: dict[str, np.ndarray]
    told: dict


def write_part(generation: Generation, name: str, part: Part) -> None:
    """Write a part, in the place of an earlier one; nothing where the generation was removed meanwhile."""
    if not generation.folder.is_dir():
        return
    folder = generation.folder / FOLDER
    make_folder(folder)
    stream = io.BytesIO()
    np.savez(stream, **part.arrays)
    data = stream.getvalue()
    write_durably(folder / f"{name}.npz", lambda aside: aside.write_bytes(data))
    parts = _read_parts(generation) | {name: {"sha256": hashlib.sha256(data).hexdigest(), "told": part.told}}
    told = {"schema_version": SCHEMA_VERSION, "generation": generation.manifest["checksum"], "parts": parts}
    write_text_durably(folder / TOLD, json.dumps({**told, "checksum": compute_checksum(told)}, indent=1))


def read_part(generation: Generation, name: str) -> Part | None:
    """A part; None if it is not there, or not what was written."""
    known = _read_parts(generation).get(name)
    if known is None:
        return None
    try:
        data = (generation.folder / FOLDER / f"{name}.npz").read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != known["sha256"]:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Part({key: arrays[key] for key in arrays.files}, known["told"])


def read_stamp(generation: Generation, name: str) -> tuple[int, ...] | None:
    """Which part it is: one that was made anew has another stamp. None if it is not there."""
    folder = generation.folder / FOLDER
    try:
        known = [(folder / file).stat() for file in (TOLD, f"{name}.npz")]
    except OSError:
        return None
    return tuple(value for one in known for value in (one.st_ino, one.st_size, one.st_mtime_ns))


def remove_survey(generation: Generation) -> None:
    """It can be made again."""
    shutil.rmtree(generation.folder / FOLDER, ignore_errors=True)


def _read_parts(generation: Generation) -> dict[str, dict]:
    try:
        told = json.loads((generation.folder / FOLDER / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(told, dict) and told.get("checksum") == compute_checksum(told)
    is_this = is_ours and told.get("generation") == generation.manifest["checksum"]
    return told["parts"] if is_this and told.get("schema_version") == SCHEMA_VERSION else {}
