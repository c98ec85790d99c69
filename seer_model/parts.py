"""A checkpoint in parts: each rank of a run writes what it holds, and any number of ranks reads what it needs of it.

    FOLDER/
      shard-00001-model-00001-of-00001.safetensors   what one rank has written
      ...
      parts.json                                     the shapes of the whole tensors; written last

Who writes what of a tensor that several ranks hold, and which stretch of which file a rank needs, is planned by
`torch.distributed.checkpoint`. The header of each file says which stretch of which tensor lies in it.

Rule: no pickle. What that library writes beside its parts is one (`.metadata`); with safetensors it needs none, and
nothing else is read here. See docs/decisions/0013-training-over-nodes.md.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor

from seer_model.durable import write_text_durably
from seer_model.errors import CheckpointError
from seer_model.ranks import Ranks

SHAPES = "parts.json"
DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What readers raise at files that are cut, gone or foreign."""


def write_parts(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write what the ranks hold, each a part, and wait until all of it is on the disk; collective.

    Args:
        folder: empty; the same for all ranks.
        tensors: name -> a DTensor, of which this rank holds a part, or a plain tensor, equal on all ranks that name it
            and written by one of them.
    Raises: CheckpointError, on every rank, if one cannot write.
    """
    writer = _Writer(str(folder), save_distributed=True)
    _carry_out(folder, "written", lambda: dcp.save(_make_dense(tensors), storage_writer=writer, no_dist=_alone(ranks)))


def fill_from_parts(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Read into tensors, in place, what this rank needs of each; collective. They may lie on any number of ranks.

    Args:
        tensors: some names of `read_outline`, with tensors of those shapes: plain, or this rank's part of DTensors.
    Raises: CheckpointError, on every rank, if a name is missing, a shape is another, or a file is damaged.
    """
    reader = HuggingFaceStorageReader(str(folder))
    _carry_out(folder, "read", lambda: dcp.load(dict(tensors), storage_reader=reader, no_dist=_alone(ranks)))


def read_outline(folder: Path) -> dict[str, Tensor]:
    """What lies in the parts, by the headers of the files: name -> a tensor of that shape and dtype, on meta.

    Raises: CheckpointError if a file is gone or cut short, or a stretch of a tensor is nowhere.
    """
    try:
        written = json.loads((folder / SHAPES).read_text(encoding="utf-8"))
        shapes = {name: tuple(shape) for name, shape in written.items()}
        known = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except DAMAGE as error:
        raise CheckpointError(f"{folder} is damaged: {error}. Copy it again, or go on from another step.") from error
    for name in sorted(shapes.keys() | known.keys()):
        _require_whole(folder, name, known.get(name), shapes.get(name))
    return {name: torch.empty(one.size, dtype=one.properties.dtype, device="meta") for name, one in known.items()}


def read_parts(folder: Path, *, leave_out: str) -> dict[str, Tensor]:
    """All tensors whose name does not begin with `leave_out`, whole, on the CPU; without any other rank.

    Raises: CheckpointError, as `read_outline` and `fill_from_parts` do.
    """
    outline = read_outline(folder).items()
    whole = {name: torch.empty_like(one, device="cpu") for name, one in outline if not name.startswith(leave_out)}
    fill_from_parts(folder, whole, Ranks(device=torch.device("cpu")))
    return whole


class _Writer(HuggingFaceStorageWriter):
    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first rank, once all files are there."""
        shapes = {name: list(one.size) for name, one in metadata.state_dict_metadata.items()}
        write_text_durably(self.path / SHAPES, json.dumps(shapes, indent=0) + "\n")


def _alone(ranks: Ranks) -> bool:
    return ranks.count == 1


def _make_dense(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors takes rows one after the other only, and a trunk may be channels_last.
    return {name: one if isinstance(one, DTensor) else one.detach().contiguous() for name, one in tensors.items()}


def _carry_out(folder: Path, done: str, what: Callable[[], object]) -> None:
    try:
        # It warns of being alone, which here is asked for.
        with warnings.catch_warnings(action="ignore"):
            what()
    except CheckpointException as error:
        rank, (reason, _) = min(error.failures.items())
        raise CheckpointError(f"{folder} cannot be {done}: on rank {rank}, {reason}") from error
    except DAMAGE as error:
        raise CheckpointError(f"{folder} cannot be {done}: {error}") from error


def _require_whole(folder: Path, name: str, one: TensorStorageMetadata | None, shape: tuple[int, ...] | None) -> None:
    is_whole = one is not None and sum(math.prod(chunk.sizes) for chunk in one.chunks) == math.prod(one.size)
    if not is_whole or tuple(one.size) != shape:
        raise CheckpointError(f"{folder} lacks a stretch of {name!r}. Copy the whole folder, or take another step's.")
