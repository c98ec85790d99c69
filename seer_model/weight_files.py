"""From a path to the weights that lie there, under the names that the file gives them.

Reads safetensors, torch's files (zipped and older), Hugging Face's folders with or without an index of shards, the
checkpoints of a pretraining run, and VISSL's nested layouts, of which "slice_list" keeps every weight in a file of its
own.

Rule: nothing in a file is ever run. Weights are safetensors or what torch reads with `weights_only=True`, and a list of
files leads only to files in its own folder. Weights are mapped where the format allows it, not copied.
"""

import json
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seer_model.errors import CheckpointError
from seer_model.key_tables import is_counter

FOLDER_NAMES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "weights.safetensors"),
)
"""What a folder of weights may hold, the preferred first; the last is in the checkpoints of a run on one rank."""
PARTS, MEMORY = "parts", "memory."
"""The folder in the checkpoint of a run on several ranks, and how the names of what is no weight begin there."""
NEWEST_LAYOUT = 1
"""The newest version of our own layout; in the metadata `seer_layout` of a safetensors file."""

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its readers have it: eight bytes say how long the header is, which is JSON."""
# What torch's readers are seen to raise on damaged files; foreign code shows itself as UnpicklingError.
DAMAGE = (
    *(RuntimeError, EOFError, ValueError, LookupError, TypeError),
    *(AttributeError, AssertionError, OSError, struct.error),
)


class _Ignored:
    """Takes the place of a number of numpy's, such as the loss that VISSL keeps beside the weights; does nothing."""

    def __init__(self, *content: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


INERT = [(_Ignored, f"numpy.{name}") for name in ("dtype", "core.multiarray.scalar", "_core.multiarray.scalar")]
"""What files may name beside weights: no code of numpy's runs, either."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every weight of a file, an index of shards, or a folder that holds either; VISSL's heads begin with `heads.`.

    Raises: CheckpointError when the file is not there, damaged, foreign, or does not hold weights alone.
    """
    if (path / PARTS).is_dir():
        from seer_model.parts import read_parts  # half a second, which only a pretraining run pays

        return read_parts(path / PARTS, leave_out=MEMORY)
    if path.is_dir():
        path = find_weights(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _flatten(_read_file(path), path)


def outline_weights(path: Path) -> dict[str, Tensor]:
    """The same for the checkpoint of a run on several ranks, without reading: zeros that take no memory.

    Raises: CheckpointError, as `parts.read_outline` does.
    """
    from seer_model.parts import read_outline

    weights = {name: one for name, one in read_outline(path / PARTS).items() if not name.startswith(MEMORY)}
    return {name: torch.zeros((), dtype=one.dtype).expand(one.shape) for name, one in weights.items()}


def find_weights(folder: Path) -> Path:
    """The file to read in a folder of weights.

    Raises: CheckpointError when none of `FOLDER_NAMES` is there.
    """
    for name in FOLDER_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"The folder {folder} holds no weights: none of {', '.join(FOLDER_NAMES)} is there.")


def _read_file(path: Path) -> Mapping:
    """The content of one file of weights, whatever its format, found by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL in it.
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"The weights file {path} cannot be read: {reason}.") from error
    # Of the lengths that a header may have, one in 32 begins as a pickle does.
    is_header = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MOST_HEADER_BYTES
    if head.startswith((ZIP_START, PICKLE_START)) and not is_header:
        return _read_torch(path, is_zip=head.startswith(ZIP_START))
    if head[8:9] == b"{":
        return _read_safetensors(path)
    found = "empty" if not head else "a web page" if head.lstrip().startswith(b"<") else "of no format that is known"
    raise CheckpointError(
        f"{path} is {found}; weights are safetensors or PyTorch files. Download or copy the file again."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            version = (file.metadata() or {}).get("seer_layout", "0")
            weights = {key: file.get_tensor(key) for key in names}
    except (SafetensorError, *DAMAGE) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Download or copy the file again.") from error
    if not version.isdecimal() or int(version) > NEWEST_LAYOUT:
        raise CheckpointError(
            f"{path} has layout version {version}; this program knows up to {NEWEST_LAYOUT}. Update the program."
        )
    return weights


def _read_torch(path: Path, *, is_zip: bool) -> Mapping:
    try:
        # Warnings are of unusual pickles; what matters of them is an error below.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(INERT):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or holds more than weights, and opening that could run foreign code. "
            "Use a file with weights only, best in safetensors."
        ) from error
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged: {reason}. Download or copy the file again.") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name.")
    return content


def list_shards(index: Path) -> list[str]:
    """The names of the files that a Hugging Face index puts the weights into; all of them are for its own folder.

    Raises: CheckpointError.
    """
    names = sorted(set(_read_index(index).values()))
    for name in names:
        if name != PureWindowsPath(name).name or not name.isprintable():
            raise CheckpointError(f"{index} names the file {name!r}; only files in its own folder are read.")
    return names


def _read_index(index: Path) -> dict[str, str]:
    """Weight -> name of its file."""
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if different := [name for name in shard_of.values() if not isinstance(name, str)]:
            raise TypeError(f"{different[0]!r} is no file name")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of weight files: {error}.") from error
    return shard_of


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The weights of all files that a Hugging Face index names; each must hold just what the index says."""
    weights, shard_of = {}, _read_index(index)
    for name in list_shards(index):
        shard = _flatten(_read_file(index.parent / name), index.parent / name)
        expected = {key for key, holder in shard_of.items() if holder == name}
        if different := sorted(expected ^ set(shard)):
            verb = "lacks" if different[0] in expected else "also holds"
            raise CheckpointError(
                f"{index.parent / name} {verb} the weight {different[0]!r}, unlike {index.name} says."
            )
        weights |= shard
    return weights


def _flatten(content: Mapping, path: Path) -> dict[str, Tensor]:
    """Take VISSL's levels away, follow its lists of slices, and leave weights by name."""
    kind = content.get("type", "consolidated")
    if kind in ("shard", "shard_list"):
        raise CheckpointError(
            f"{path} is one of VISSL's sharded checkpoints, whose weights are cut across files. "
            "Join them first with VISSL's extra_scripts/convert_sharded_checkpoint.py, then give the joined file."
        )
    if kind == "slice":
        raise CheckpointError(f"{path} is one slice of a checkpoint; give the file that lists the slices.")
    weights = _unnest(content, path)
    if kind == "slice_list":
        weights = {name: _read_slice(path, name, leaf) for name, leaf in weights.items()}
    for name, weight in weights.items():
        _require_weight(path, name, weight)
    return weights


def _unnest(content: Mapping, path: Path) -> dict:
    try:
        model = content["classy_state_dict"]["base_model"]["model"] if "classy_state_dict" in content else content
        trunk, heads = model.get("trunk"), model.get("heads") or {}
        if trunk is None:
            return dict(model)
        return {**trunk, **{f"heads.{name}": weight for name, weight in heads.items()}}
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is nested otherwise than VISSL's checkpoints: {error!r}. Expected classy_state_dict, base_model, "
            "model, and in it trunk and heads by name."
        ) from error


def _require_weight(path: Path, name: object, weight: object) -> None:
    is_number = isinstance(weight, Tensor) and (weight.is_floating_point() or is_counter(str(name)))
    if not isinstance(name, str) or not is_number:
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise CheckpointError(f"{path} has {found} under {name!r}; expected a weight of floating-point numbers.")
    if not _is_stored_whole(weight):
        raise CheckpointError(
            f"{path} has no number of its own for every place of {name!r}, of shape {tuple(weight.shape)} (a sparse or "
            "expanded tensor, or one without numbers). Save its weights as plain tensors."
        )


def _is_stored_whole(weight: Tensor) -> bool:
    """Whether the file holds all that the shape promises. A small file could else become a network of any size."""
    if weight.layout != torch.strided or weight.device.type != "cpu":
        return False
    return weight.untyped_storage().nbytes() >= weight.numel() * weight.element_size()


def _read_slice(listing: Path, name: str, leaf: object) -> Tensor:
    """One weight of a slice list; the listed path may be from where the folder lay before it was moved."""
    if not isinstance(leaf, str):
        raise CheckpointError(f"{listing} has {type(leaf).__name__} under {name!r}; expected the path of a slice.")
    folder, listed = listing.resolve().parent, PurePosixPath(leaf.replace("\\", "/"))
    for candidate in (folder / leaf, folder / listed.parent.name / listed.name, folder / listed.name):
        if _is_file_inside(folder, candidate):
            content = _read_file(candidate)
            if content.get("type") != "slice" or "weight" not in content:
                raise CheckpointError(f"{candidate} is not a slice; {listing} names it for {name!r}.")
            return content["weight"]
    raise CheckpointError(
        f"{listing} keeps the weight {name!r} in {leaf!r}, which is not in the folder {folder}. "
        "Copy the whole checkpoint folder; files outside of it are not read."
    )


def _is_file_inside(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder) and path.is_file()
    except (OSError, ValueError, RuntimeError):
        return False  # A name that no system can have: too long, with a NUL, or a ring of links.
