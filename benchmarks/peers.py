"""RegNets of other libraries with our weights in them: what a Backbone is measured beside.

    transformers, fp32                     eager, NCHW
    timm, fp32                             eager, NCHW
    timm, AMP, channels_last               eager, under autocast                              on a GPU
    timm, bf16, channels_last, compiled    torch.compile(mode="max-autotune")                 on a GPU
    torchvision, fp32                      eager, NCHW

Each ends in our readout, so that its rows can be compared with ours.

Rule: a library that is not here, or has no network of this shape, is told as absent with the reason and is no error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seer_model.checkpoint import Checkpoint
from seer_model.key_tables import HUGGINGFACE, TIMM, KeyTable, is_counter
from seer_model.readout import Readout, choose_output
from seer_model.regnet import Architecture, name_architecture

TORCHVISION = KeyTable(
    layout="torchvision",
    block="trunk_output.block{stage1}.block{stage1}-{block}",
    parts={
        "stem.conv": "stem.0",
        "stem.norm": "stem.1",
        "a.conv": "f.a.0",
        "a.norm": "f.a.1",
        "b.conv": "f.b.0",
        "b.norm": "f.b.1",
        "squeeze.reduce": "f.se.fc1",
        "squeeze.expand": "f.se.fc2",
        "c.conv": "f.c.0",
        "c.norm": "f.c.1",
        "shortcut.conv": "proj.0",
        "shortcut.norm": "proj.1",
    },
    heads={},
)
TIMM_NAMES = {
    **{"200MF": "regnety_002", "400MF": "regnety_004", "600MF": "regnety_006", "800MF": "regnety_008"},
    **{"1.6GF": "regnety_016", "3.2GF": "regnety_032", "4GF": "regnety_040", "6.4GF": "regnety_064"},
    **{"8GF": "regnety_080", "12GF": "regnety_120", "16GF": "regnety_160", "32GF": "regnety_320"},
    **{"64GF": "regnety_640", "128GF": "regnety_1280", "256GF": "regnety_2560"},
}
BROKEN = (ImportError, OSError, RuntimeError)
"""What importing a library raises that is not here, or does not fit this torch."""


class Absent(Exception):
    """A peer cannot take part; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to run one library's network."""

    name: str
    build: Callable[[Architecture], "Trunk"]
    is_amp: bool = False
    """Under autocast, its weights in fp32."""
    is_compiled: bool = False
    """In bf16, by `torch.compile`."""
    is_tuned: bool = False
    """With cuDNN's search for the fastest kernel, as the library's own benchmark has it."""

    @property
    def needs_gpu(self) -> bool:
        """A CPU is measured eager and in fp32 alone."""
        return self.is_amp or self.is_compiled

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and input."""
        return torch.bfloat16 if self.is_compiled else torch.float32

    @property
    def layout(self) -> torch.memory_format:
        """Of weights and input."""
        return torch.channels_last if self.needs_gpu else torch.contiguous_format


class Trunk(nn.Module):
    """A library's network: normalised pictures (B, 3, H, W) -> its maps, the last two of them at least."""

    table: KeyTable

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def take_weights(self, weights: dict[str, Tensor]) -> None:
        """Fill the network from our names. Raises: Absent if it has another shape."""
        own = self.network.state_dict()
        given = {self.table.spell(key): weight for key, weight in weights.items()}
        differing = {key for key, weight in given.items() if key not in own or own[key].shape != weight.shape}
        missing = {key for key in own.keys() - given.keys() if not (is_counter(key) or self.is_head(key))}
        if differing or missing:
            raise Absent(f"its network of this size has another shape ({min(differing | missing)})")
        for key, weight in given.items():
            own[key].copy_(weight)

    def is_head(self, key: str) -> bool:
        """Whether a weight is of what stands on the trunk, which is not run."""
        return key.startswith(("fc.", "classifier.", "head."))


class TransformersTrunk(Trunk):
    """`RegNetModel`."""

    table = HUGGINGFACE

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        return self.network(x, output_hidden_states=True).hidden_states


class TimmTrunk(Trunk):
    """timm's `RegNet`."""

    table = TIMM

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        before = self.network.s3(self.network.s2(self.network.s1(self.network.stem(x))))
        return before, self.network.s4(before)


class TorchvisionTrunk(Trunk):
    """torchvision's `RegNet`."""

    table = TORCHVISION

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        x, maps = self.network.stem(x), []
        for stage in self.network.trunk_output.children():
            x = stage(x)
            maps.append(x)
        return maps


def build_transformers(architecture: Architecture) -> TransformersTrunk:
    """Without weights, as the others here. Raises: Absent."""
    try:
        from transformers import RegNetConfig, RegNetModel
    except BROKEN as error:
        raise Absent(_explain("transformers", error)) from error
    group_width = max(architecture.group_widths)
    config = RegNetConfig(
        embedding_size=architecture.stem_width,
        hidden_sizes=list(architecture.widths),
        depths=list(architecture.depths),
        groups_width=group_width,
        layer_type="y",
    )
    with torch.device("meta"):
        return TransformersTrunk(RegNetModel(config))


def build_timm(architecture: Architecture) -> TimmTrunk:
    """Without weights. Raises: Absent."""
    try:
        import timm
    except BROKEN as error:
        raise Absent(_explain("timm", error)) from error
    name = TIMM_NAMES.get(name_architecture(architecture))
    if name not in timm.list_models("regnety*"):
        raise Absent(f"timm {timm.__version__} has no network of this size")
    with torch.device("meta"):
        return TimmTrunk(timm.create_model(name, num_classes=0))


def build_torchvision(architecture: Architecture) -> TorchvisionTrunk:
    """Without weights. Raises: Absent."""
    try:
        from torchvision import models
    except BROKEN as error:
        raise Absent(_explain("torchvision", error)) from error
    size = name_architecture(architecture) or ""
    build = getattr(models, f"regnet_y_{size.lower().replace('.', '_')}", None)
    if build is None:
        raise Absent("torchvision has no network of this size")
    return TorchvisionTrunk(build())  # Not on the meta device: its widths are computed with tensors.


def _explain(library: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == library:
        return f"{library} is not installed"
    return f"{library} cannot be loaded: {str(error).splitlines()[0]}"


MODES = (
    Mode(name="transformers, fp32", build=build_transformers),
    Mode(name="timm, fp32", build=build_timm, is_tuned=True),
    Mode(name="timm, AMP, channels_last", build=build_timm, is_amp=True, is_tuned=True),
    Mode(name="timm, bf16, channels_last, compiled", build=build_timm, is_compiled=True, is_tuned=True),
    Mode(name="torchvision, fp32", build=build_torchvision),
)
TRANSFORMERS = MODES[0]


class Peer(nn.Module):
    """A library's network and our readout: normalised pictures (B, 3, H, W) -> (B, D) float32, rows of length 1."""

    def __init__(self, trunk: Trunk, readout: Readout) -> None:
        super().__init__()
        self.trunk, self.readout = trunk, readout

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.trunk(x))


def make_peer(mode: Mode, checkpoint: Checkpoint, device: torch.device) -> nn.Module:
    """A peer with a checkpoint's weights, ready on a device. Raises: Absent."""
    trunk = mode.build(checkpoint.architecture).to_empty(device=device)
    trunk.take_weights(checkpoint.trunk)
    readout = Readout(checkpoint, choose_output(checkpoint.heads)).to(device)
    trunk.to(dtype=mode.dtype, memory_format=mode.layout)
    peer = Peer(trunk, readout).eval().requires_grad_(False)
    return torch.compile(peer, mode="max-autotune") if mode.is_compiled else peer


@torch.inference_mode()
def run_peer(peer: nn.Module, mode: Mode, pictures: Tensor) -> Tensor:
    """Rows of pictures that `normalise_for` has made ready."""
    with torch.autocast(pictures.device.type, dtype=torch.bfloat16, enabled=mode.is_amp):
        return peer(pictures)


def normalise_for(mode: Mode, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) as the mode wants them."""
    scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - mean[:, None, None]) / std[:, None, None]
    return scaled.to(dtype=mode.dtype).contiguous(memory_format=mode.layout)
