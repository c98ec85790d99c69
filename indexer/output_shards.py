"""Output shards: what became of some files, embedded elsewhere, in one file each, until a catalog has taken it in.

    NAME.safetensors   rows (b, D) float16; thumbnails (t,) uint8, one behind the other; and in its header, as JSON, the
                       files in order, and the SHA-256 of all of it

A shard is named after what it was made from, so that whoever makes it again makes the same; it is written aside and
renamed, or put into object storage as a whole.

Rule: one that cannot be read, or is not what was written, is none.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from indexer.decode import DecodedFile, DecodeTask
from indexer.remote import list_remote, read_remote, remove_remote, write_remote
from indexer.urls import is_remote, spell
from seer_model.durable import make_folder, write_durably
from seer_model.errors import SettingsError

SUFFIX, TOKEN = ".safetensors", ".here"
"""Of a shard; of a file by which nodes know that a folder is the same everywhere."""
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class OutputShard:
    """What became of some files."""

    files: list[DecodedFile]
    """In order, without their pixels."""
    embedded: list[int]
    """Places among them of those that the network has seen: one of each content."""
    usable: list[bool]
    """Whether each of these has an embedding."""
    rows: np.ndarray
    """(b, D) float16, of length 1 before rounding: of those that have."""


def name_shard(tasks: list[DecodeTask], made_by: dict) -> str:
    """A name for what comes of these files. `made_by`: all else that it depends on, JSON-able."""
    # What is known of them already is left out: it changes how much is done, and not what comes of it.
    files = [(task.path, task.size_bytes, task.mtime_ns, task.inode) for task in tasks]
    told = json.dumps({"version": VERSION, "files": files, **made_by}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:40]


@contextmanager
def explain_outputs(outputs: Path) -> Iterator[None]:
    """Turn what the place of the shards refuses into a SettingsError that names it."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{spell(outputs)}, where the nodes leave what they make, cannot be used ({error.strerror or error}). What "
            "was recorded is kept; run again when it can, or give another place with --outputs."
        ) from error


def write_shard(outputs: Path, name: str, shard: OutputShard) -> None:
    """Put a shard where it is looked for, whole or not at all. Raises: OSError."""
    data = encode_shard(shard)
    if is_remote(outputs):
        write_remote(outputs / f"{name}{SUFFIX}", data)
    else:
        make_folder(outputs)
        # A node that was given up may still be at work on the same.
        aside = outputs / f"{name}.{uuid.uuid4().hex}"
        write_durably(aside, lambda path: path.write_bytes(data))
        os.replace(aside, outputs / f"{name}{SUFFIX}")


def read_shard(outputs: Path, name: str) -> OutputShard | None:
    """A shard; None if there is none that is whole. Raises: OSError, where a store gives no answer."""
    path = outputs / f"{name}{SUFFIX}"
    try:
        data = read_remote(path) if is_remote(outputs) else path.read_bytes()
    except FileNotFoundError:
        return None
    return decode_shard(data)


def remove_shard(outputs: Path, name: str) -> None:
    """Let go of a shard that a catalog has taken in."""
    path = outputs / f"{name}{SUFFIX}"
    if is_remote(outputs):
        remove_remote(path)
    else:
        path.unlink(missing_ok=True)


def remove_aside(outputs: Path) -> None:
    """Let go of what was being written into a folder when its node was lost; in a store there is no such thing."""
    if not is_remote(outputs):
        for path in outputs.iterdir():
            if path.suffix not in (SUFFIX, TOKEN):
                path.unlink(missing_ok=True)


def list_shards(outputs: Path) -> set[str]:
    """The names of those that are there, whole or not. Raises: OSError, where a store gives no answer."""
    return {Path(name).stem for name in _list_names(outputs) if name.endswith(SUFFIX)}


def _list_names(outputs: Path) -> Iterator[str]:
    with suppress(FileNotFoundError):
        if is_remote(outputs):
            yield from (path.rpartition("/")[2] for path, _ in list_remote(outputs))
        else:
            yield from os.listdir(outputs)


def encode_shard(shard: OutputShard) -> bytes:
    """A shard as bytes."""
    files = [_describe(file) for file in shard.files]
    thumbnails = b"".join(file.thumbnail or b"" for file in shard.files)
    told = json.dumps({"files": files, "embedded": shard.embedded, "usable": shard.usable})
    tensors = {
        "rows": np.ascontiguousarray(shard.rows, np.float16),
        "thumbnails": np.frombuffer(thumbnails, np.uint8),
    }
    return save(tensors, {"told": told, "sha256": _compute_sum(told, tensors)})


def decode_shard(data: bytes) -> OutputShard | None:
    """A shard from bytes; None if they are not what was written."""
    try:
        tensors, header = load(data), _read_header(data)
        told = header["told"]
        if header["sha256"] != _compute_sum(told, tensors):
            return None
        values = json.loads(told)
    except (SafetensorError, ValueError, KeyError):
        return None
    thumbnails = memoryview(tensors["thumbnails"].tobytes())
    files = []
    for one in values.pop("files"):
        size = one.pop("thumbnail")
        files.append(_restore(one, None if size is None else bytes(thumbnails[:size])))
        thumbnails = thumbnails[size or 0 :]
    return OutputShard(files=files, rows=tensors["rows"], **values)


def _describe(file: DecodedFile) -> dict:
    told = asdict(replace(file, pixels=None))
    del told["pixels"]
    told["content_hash"] = file.content_hash and file.content_hash.hex()
    told["thumbnail"] = None if file.thumbnail is None else len(file.thumbnail)
    return told


def _restore(told: dict, thumbnail: bytes | None) -> DecodedFile:
    content_hash = told.pop("content_hash")
    return DecodedFile(**told, content_hash=content_hash and bytes.fromhex(content_hash), thumbnail=thumbnail)


def _read_header(data: bytes) -> dict:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def _compute_sum(told: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(told.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
