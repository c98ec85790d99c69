"""Checkpoints: weights under our own names, read from any layout that is known, written in one.

What is in a file, and of which size the network is, is read from the names and shapes of its weights alone; file names
and configurations are not asked, for some of the published ones are wrong.

Rule: every weight is accounted for. One too many, one too few or one of another shape is an error that names it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from seer_model.durable import write_durably
from seer_model.errors import CheckpointError, SettingsError
from seer_model.key_tables import STAGES, TABLES, WHITENING, KeyTable, is_counter, strip_wrappers
from seer_model.outputs import POOLINGS, UNNAMED
from seer_model.regnet import Architecture, RegNet
from seer_model.weight_files import NEWEST_LAYOUT, outline_weights, read_weights

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The weights of one network, and where they came from."""

    architecture: Architecture
    trunk: dict[str, Tensor]
    """Our name (see `regnet`) -> weight; all of them, batch counters left out."""
    heads: dict[str, Tensor]
    """What stood on the trunk, possibly nothing: `classifier.weight`, `projection.0.bias`, `prototypes.0.weight`,
    `whitening.weight`, `whitening.res4-rmac3.bias` ..."""
    layout: str
    """Whose names the file had: seer, vissl, timm or huggingface."""

    def count_parameters(self) -> int:
        """Numbers that training would learn, in the trunk."""
        return sum(weight.numel() for key, weight in self.trunk.items() if ".running_" not in key)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read weights: a file, a Hugging Face folder, its index of shards, or a checkpoint of a pretraining run.

    Raises: CheckpointError when it cannot be read, or its weights are not one whole RegNetY.
    """
    return _sort_checkpoint(Path(path), read_weights(Path(path)))


def outline_checkpoint(path: Path) -> Checkpoint:
    """What `read_checkpoint` reads of the checkpoint of a run on several ranks, with zeros for all numbers.

    Raises: CheckpointError, as there.
    """
    return _sort_checkpoint(path, outline_weights(path))


def _sort_checkpoint(path: Path, weights: Mapping[str, Tensor]) -> Checkpoint:
    named = {strip_wrappers(name): weight for name, weight in weights.items()}
    if len(named) < len(weights):
        raise CheckpointError(f"{path} holds {len(weights) - len(named)} weights twice, under names of two kinds.")
    table = _find_table(path, named)
    try:
        trunk, heads = _sort_weights(table, named)
        shapes = {key: tuple(weight.shape) for key, weight in trunk.items()}
        architecture = infer_architecture(shapes, spell=table.spell)
        _check_shapes(shapes, architecture, spell=table.spell)
        _check_heads(heads, architecture)
    except CheckpointError as error:
        raise CheckpointError(f"{path}, read as a checkpoint of layout {table.layout}: {error}") from error
    return Checkpoint(architecture=architecture, trunk=trunk, heads=heads, layout=table.layout)


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write weights as safetensors in our own layout, in one step: an older file stays until the new one is whole.

    Raises: CheckpointError when the weights do not fit the architecture, or the file cannot be written.
    """
    trunk = drop_counters(checkpoint.trunk)
    _check_shapes({key: tuple(weight.shape) for key, weight in trunk.items()}, checkpoint.architecture)
    _check_heads(checkpoint.heads, checkpoint.architecture)
    weights = trunk | {f"heads.{key}": weight for key, weight in checkpoint.heads.items()}
    if not Path(path).parent.is_dir():
        raise CheckpointError(f"{path} cannot be written: there is no folder {Path(path).parent}. Make it first.")
    ready = _separate(weights)
    metadata = {"format": "pt", "seer_layout": str(NEWEST_LAYOUT)}
    try:
        write_durably(Path(path), lambda aside: save_file(ready, aside, metadata=metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}.") from error


def convert_checkpoint(source: Path, target: Path, *, is_half: bool = False, has_heads: bool = True) -> Checkpoint:
    """Read weights of any layout and write them in ours; what was read is returned.

    Args:
        is_half: write kernels as fp16. What has one axis, normalisations and biases, stays as it is: it is small, and
            a variance may lie outside fp16's range.
        has_heads: write the heads too, if there are any. A whitening is written in any case: it is a part of what the
            model's embeddings are.
    Raises: CheckpointError, as `read_checkpoint` and `write_checkpoint` do, or if a weight is too large for fp16.
    """
    checkpoint = read_checkpoint(source)
    written = checkpoint if has_heads else replace(checkpoint, heads=_keep_whitening(checkpoint.heads))
    if is_half:
        written = replace(written, trunk=_halve(written.trunk), heads=_halve(written.heads))
    write_checkpoint(written, target)
    return checkpoint


def _keep_whitening(heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight for key, weight in heads.items() if key.startswith(WHITENING)}


def _halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halved = {key: weight.half() if weight.ndim > 1 else weight for key, weight in weights.items()}
    if lost := [key for key, weight in halved.items() if not weight.isfinite().all()]:
        raise CheckpointError(f"the weight {lost[0]!r} does not fit into fp16; write it without --half.")
    return halved


def build_network(checkpoint: Checkpoint) -> RegNet:
    """The network with a checkpoint's weights in it, on the CPU. It takes over the tensors, it does not copy them."""
    with torch.device("meta"):
        network = RegNet(checkpoint.architecture)
    counters = {key: torch.zeros((), dtype=torch.long) for key in network.state_dict() if is_counter(key)}
    network.load_state_dict(checkpoint.trunk | counters, strict=True, assign=True)
    return network


def drop_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without batch normalisation's counters, which inference does not read and many files leave out."""
    return {key: weight for key, weight in weights.items() if not is_counter(key)}


def infer_architecture(shapes: Shapes, *, spell: Callable[[str], str] = str) -> Architecture:
    """Read an architecture from the shapes of a trunk's weights.

    Args:
        shapes: our name -> shape.
        spell: how an error names a weight.
    Raises: CheckpointError when a weight that is needed is missing or the numbers make no RegNetY.
    """

    def measure(key: str, axis: int, axes: int = 4) -> int:
        if key not in shapes:
            raise CheckpointError(f"the weight {spell(key)!r} is missing.")
        if len(shapes[key]) != axes:
            raise CheckpointError(f"the weight {spell(key)!r} has the shape {shapes[key]}; expected {axes} axes.")
        return shapes[key][axis]

    depths = tuple(_count_blocks(shapes, stage) for stage in range(STAGES))
    try:
        return Architecture(
            depths=depths,
            widths=tuple(measure(f"stages.{stage}.0.c.conv.weight", 0) for stage in range(STAGES)),
            group_widths=tuple(measure(f"stages.{stage}.0.b.conv.weight", 1) for stage in range(STAGES)),
            stem_width=measure("stem.conv.weight", 0),
            squeeze_widths=tuple(
                tuple(measure(f"stages.{stage}.{block}.squeeze.reduce.weight", 0) for block in range(depth))
                for stage, depth in enumerate(depths)
            ),
        )
    except SettingsError as error:
        raise CheckpointError(f"its shapes make no RegNetY. {error}") from error


def _find_table(path: Path, names: Iterable[str]) -> KeyTable:
    """The layout that knows most of the names."""
    known = {table: sum(table.read_trunk(name) is not None for name in names) for table in TABLES}
    table = max(TABLES, key=known.__getitem__)
    if not known[table]:
        some = ", ".join(repr(name) for name in list(names)[:3]) or "nothing"
        layouts = ", ".join(table.layout for table in TABLES)
        raise CheckpointError(f"{path} holds no RegNetY: its weights are {some} ...; known layouts are {layouts}.")
    return table


def _sort_weights(table: KeyTable, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trunk and heads under our names. A name of neither is an error."""
    trunk, heads = {}, {}
    for name, weight in weights.items():
        if key := table.read_trunk(name):
            place = trunk
        elif key := table.read_head(name):
            place = heads
        else:
            raise CheckpointError(f"the weight {name!r}, of shape {tuple(weight.shape)}, is not part of a RegNetY.")
        if key in place:
            raise CheckpointError(f"the weight {name!r} is there twice, once more under another name.")
        place[key] = weight
    return drop_counters(trunk), heads


def _count_blocks(shapes: Shapes, stage: int) -> int:
    """Blocks up to the highest number, so that one left out between others is missed by its name."""
    numbers = [int(key.split(".")[2]) for key in shapes if key.startswith(f"stages.{stage}.")]
    return max(numbers, default=0) + 1


def _check_shapes(shapes: Shapes, architecture: Architecture, *, spell: Callable[[str], str] = str) -> None:
    with torch.device("meta"):
        network = RegNet(architecture)
    expected = {key: tuple(weight.shape) for key, weight in drop_counters(network.state_dict()).items()}
    if missing := [key for key in expected if key not in shapes]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(f"the weight {spell(missing[0])!r}{more}, of shape {expected[missing[0]]}, is missing.")
    for key, found in shapes.items():
        if key not in expected:
            raise CheckpointError(f"the weight {spell(key)!r} is unexpected; the network has no such part.")
        if found != expected[key]:
            raise CheckpointError(f"the weight {spell(key)!r} has the shape {found}; expected {expected[key]}.")


def _check_heads(heads: Mapping[str, Tensor], architecture: Architecture) -> None:
    """The classifier and the projection stand on the trunk, the whitening on what its name says; each layer takes what
    the one before puts out, and the prototypes stand on the projection."""
    layers = _group_layers({key: tuple(weight.shape) for key, weight in heads.items()})
    width = architecture.dimension
    if len(whitenings := [number for head, number in layers if head == "whitening"]) > 1:
        raise CheckpointError(f"it brings {len(whitenings)} whitenings, {' and '.join(whitenings)}; one is allowed.")
    for head, number in sorted(layers, key=lambda layer: (layer[0], layer[1].zfill(2))):
        shapes = layers[head, number]
        is_norm = head == "projection" and len(shapes.get("weight", ())) == 1
        below = _measure_pooled(number, architecture) if head == "whitening" else width
        expected = _expect_norm(shapes, below) if is_norm else _expect_linear(shapes, head, below)
        for leaf in {**expected, **shapes}:
            _check_head(".".join(filter(None, (head, number, leaf))), shapes.get(leaf), expected.get(leaf))
        if head == "projection":
            width = expected["weight"][0]


def _measure_pooled(spelled: str, architecture: Architecture) -> int:
    """Numbers that a whitening takes, by what its name says that it stands on."""
    known = {pooling.spelled: pooling for pooling in POOLINGS.values()} | {"": UNNAMED}
    if spelled not in known:
        raise CheckpointError(
            f"its whitening stands on {spelled!r}; this program knows {', '.join(filter(None, known))}. "
            "Update the program."
        )
    return sum(architecture.widths[stage] for stage in known[spelled].stages)


def _group_layers(shapes: Shapes) -> dict[tuple[str, str], dict[str, tuple[int, ...]]]:
    """(head, number of its layer, or what a whitening stands on, possibly empty) -> leaf -> shape."""
    layers: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        module, _, leaf = key.rpartition(".")
        head, _, number = module.partition(".")
        layers.setdefault((head, number), {})[leaf] = shape
    return layers


def _expect_linear(shapes: Shapes, head: str, width: int) -> Shapes:
    """A weight for any number of outputs, and a bias if there is one; prototypes have none, a whitening has one."""
    outputs = shapes["weight"][0] if shapes.get("weight") else 1
    has_bias = head == "whitening" or ("bias" in shapes and head != "prototypes")
    return {"weight": (outputs, width)} | ({"bias": (outputs,)} if has_bias else {})


def _expect_norm(shapes: Shapes, width: int) -> Shapes:
    counters = {leaf: () for leaf in shapes if is_counter(f".{leaf}")}
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | counters


def _check_head(key: str, found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> None:
    if expected is None:
        raise CheckpointError(f"the head's weight {key!r} is unexpected; the layer has no such part.")
    if found is None:
        raise CheckpointError(f"the head's weight {key!r} is missing.")
    if found != expected:
        raise CheckpointError(f"the head's weight {key!r} has the shape {found}; expected {expected}.")


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as dense blocks of which no two share memory, as safetensors wants them."""
    separate, taken = {}, set()
    for key, weight in weights.items():
        dense = weight.detach().cpu().contiguous()
        place = dense.untyped_storage().data_ptr()
        separate[key] = dense.clone() if place in taken else dense
        taken.add(place)
    return separate
