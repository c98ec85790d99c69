"""Who takes part in the measurement of the network: our Backbone, the peers that are here, and a matrix product.

Pictures lie ready on the device: ours as uint8, which it normalises itself; the peers' already normalised, in the
format and layout that each wants.

Rule: nobody is timed whose embeddings are not ours; who is left out is told, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmarks.ceilings import Copy, Gemm, Work, count_work, join_ceilings
from benchmarks.peers import MODES, Absent, Mode, make_peer, normalise_for, run_peer
from benchmarks.race import Contender, Round, race, read_clock
from seer_model.backbone import Backbone, BackboneSettings
from seer_model.checkpoint import Checkpoint, drop_counters, read_checkpoint
from seer_model.devices import PRECISIONS, choose_precision
from seer_model.preprocess import PREPROCESSINGS
from seer_model.regnet import ARCHITECTURES, Block, RegNet
from seer_model.zoo import FoundModel, find_model

OURS, COMPILED = "ours", "ours, compiled"
LAYERS = "GEMM or copy, layer by layer"
FITTED, FITTED_PX = 8, 128
"""Pictures, and their side, that the normalisations of random weights are fitted to."""
LEAD_STEPS = 3
"""Untimed, in the beginning of a round."""
FILLED = 1 << 22
"""Numbers of the block that weights are cut from which nobody is compared by."""
AGREEMENT = 0.999
"""The least cosine with our embedding of the same picture."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all have in common."""

    model: str
    """A size of `ARCHITECTURES`, with random weights; else a model's name or file."""
    device: torch.device
    precision: str = "auto"
    """Of ours; a peer's is its mode's."""
    batch_size: int | None = None
    """None: what the Backbone chooses."""
    rounds: int = 5
    steps: int = 10
    is_alone: bool = False
    """Without the peers, and with weights that are made in seconds; to draw the largest network's takes minutes."""
    is_compiled: bool = False
    """Who can takes part by `torch.compile`, too: ours, and timm on a GPU. It takes minutes."""


@dataclass(kw_only=True)
class Outcome:
    """What the race gave."""

    backbone: Backbone
    work: Work
    gemm: Gemm
    rounds: dict[str, list[Round]]
    agreement: dict[str, float] = field(default_factory=dict)
    """Peer -> the least cosine of its embedding with ours of the same picture."""
    apart: float
    """The mean cosine of our embeddings of different pictures: what an agreement of 0.999 is worth."""
    absent: dict[str, str] = field(default_factory=dict)
    """Peer -> why it did not take part."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes on a GPU: of ours at rest, and at most while it embeds."""


class Runner:
    """Whoever does the same thing again and again."""

    def __init__(
        self, name: str, run: Callable[[], Tensor], images: int, device: torch.device, *, is_tuned: bool = False
    ) -> None:
        self.name, self._run, self._images, self._device, self._is_tuned = name, run, images, device, is_tuned

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it."""
        set_switches(is_tuned=self._is_tuned)
        for _ in range(LEAD_STEPS):
            self._run()
        started = read_clock(self._device)
        for _ in range(steps):
            self._run()
        return Round(images=steps * self._images, seconds=read_clock(self._device) - started)


def set_switches(*, is_tuned: bool) -> None:
    """Those of the whole process, so that nobody runs under another's. Ours forbids TF32 itself."""
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, is_tuned


def open_network(setting: Setting, **more: object) -> tuple[Checkpoint, Backbone]:
    """The weights, and ours as a build opens it; `more` of `BackboneSettings`.

    Raises: SettingsError, ModelError, CheckpointError, DeviceError.
    """
    if setting.model in ARCHITECTURES:
        found = FoundModel(name=f"RegNetY-{setting.model}, random weights", path=Path(), entry=None)
        checkpoint = (fill_checkpoint if setting.is_alone else draw_checkpoint)(setting.model)
    else:
        found = find_model(setting.model)
        checkpoint = read_checkpoint(found.path)
    how = BackboneSettings(
        device=str(setting.device),
        precision=choose_precision(setting.precision, setting.device),
        preprocessing=found.preprocessing,
        **{"batch_size": setting.batch_size, **more},
    )
    return checkpoint, Backbone(found, checkpoint, setting.device, how)


@torch.no_grad()
def fill_checkpoint(size: str) -> Checkpoint:
    """Random weights in half precision, in seconds: all from one drawn block, each as large as it should be."""
    with torch.device("meta"):
        network = RegNet(ARCHITECTURES[size])
    block = torch.randn(FILLED, generator=torch.Generator().manual_seed(0))
    trunk = {key: fill(block, weight, key) for key, weight in drop_counters(network.state_dict()).items()}
    return Checkpoint(architecture=ARCHITECTURES[size], trunk=trunk, heads={}, layout="drawn")


def fill(block: Tensor, like: Tensor, key: str) -> Tensor:
    """A kernel as ReLUs want it; a normalisation that changes nothing, or, where a block ends, lets little by."""
    if like.ndim < 2:
        value = 0.0 if key.endswith(("bias", "running_mean")) else 0.2 if ".c.norm.weight" in key else 1.0
        return torch.full(like.shape, value)
    scaled = (block * (2 / like[0].numel()) ** 0.5).half()
    return scaled.repeat(-(-like.numel() // len(block)))[: like.numel()].view(like.shape)


@torch.no_grad()
def draw_checkpoint(size: str) -> Checkpoint:
    """Random weights, and normalisations that fit them, as those of a trained network do.

    With others all pictures have almost the same embedding, and a peer that embeds otherwise would not be noticed.
    """
    generator = torch.Generator().manual_seed(0)
    network = RegNet(ARCHITECTURES[size], generator=generator).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # What one batch measures is kept.
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.2, generator=generator)
    for module in network.modules():
        if isinstance(module, Block):
            # Blocks that add little, as trained ones do: else each rounding would grow from block to block.
            module.c.norm.weight *= 0.2
    how = PREPROCESSINGS["vissl"]
    pixels = torch.from_numpy(draw_pictures(FITTED, FITTED_PX))
    network(normalise_for(MODES[0], pixels, torch.tensor(how.mean), torch.tensor(how.std)))
    trunk = {key: weight.detach() for key, weight in drop_counters(network.state_dict()).items()}
    return Checkpoint(architecture=ARCHITECTURES[size], trunk=trunk, heads={}, layout="drawn")


def draw_pictures(count: int, side_px: int) -> np.ndarray:
    """uint8 (count, side, side, 3): soft colours under grain, another picture each."""
    chance = np.random.default_rng(0)
    pictures = np.empty((count, side_px, side_px, 3), dtype=np.uint8)
    for picture in pictures:
        cells = Image.fromarray(chance.integers(0, 256, (*chance.integers(2, 12, 2), 3), dtype=np.uint8))
        grain = Image.fromarray(chance.integers(0, 256, picture.shape, dtype=np.uint8))
        soft = cells.resize((side_px, side_px), Image.Resampling.BICUBIC)
        picture[:] = np.asarray(Image.blend(soft, grain, chance.uniform(0, 0.4)))
    return pictures


def compete(setting: Setting, tell: Callable[[str], None] = lambda text: None) -> Outcome:
    """Let all take part that can.

    Raises: as `open_network`.
    """
    checkpoint, backbone = open_network(setting)
    how, device = backbone.preprocessing, setting.device
    side_px = how.crop_px or how.resize_px
    pixels = torch.from_numpy(draw_pictures(backbone.batch_size, side_px)).to(device)
    dtype = PRECISIONS[backbone.settings.precision]
    work = count_work(checkpoint.architecture, side_px, backbone.batch_size, dtype)
    memory, rows = measure_memory(device, lambda: backbone.embed_ready(pixels))
    gemm = Gemm(device, dtype, work)
    # On a CPU much of what one layer writes is still in a cache when the next one reads it: no ceiling there.
    copies = [Copy(device, work)] if device.type == "cuda" else []
    outcome = Outcome(backbone=backbone, work=work, gemm=gemm, rounds={}, apart=measure_apart(rows), memory=memory)
    ours = Runner(OURS, lambda: backbone.embed_ready(pixels), len(pixels), device)
    peers = admit(outcome, list_others(setting, checkpoint, pixels, backbone), rows, tell)
    outcome.rounds = race([ours, gemm, *copies, *peers], rounds=setting.rounds, steps=setting.steps, tell=tell)
    for copy in copies:
        outcome.rounds[LAYERS] = join_ceilings(work, outcome.rounds[gemm.name], outcome.rounds[copy.name])
    return outcome


def measure_memory(device: torch.device, embed: Callable[[], Tensor]) -> tuple[dict[str, int], Tensor]:
    """What a GPU holds before and, at most, while a batch is embedded, in bytes; nothing on a CPU. And the rows."""
    rows = embed()  # Once before: what kernels are chosen by takes memory, too.
    if device.type != "cuda":
        return {}, rows
    torch.cuda.reset_peak_memory_stats(device)
    resting, rows = torch.cuda.memory_allocated(device), embed()
    torch.cuda.synchronize(device)
    return {"resting": resting, "most": torch.cuda.max_memory_allocated(device)}, rows


@dataclass(frozen=True, kw_only=True)
class Other:
    """Somebody who may take part beside ours."""

    name: str
    prepare: Callable[[], Callable[[], Tensor]]
    """Gives what is timed: a batch embedded."""
    is_tuned: bool = False


def list_others(setting: Setting, checkpoint: Checkpoint, pixels: Tensor, backbone: Backbone) -> list[Other]:
    """Ours compiled, and the peers, as far as they are asked for."""

    def prepare_compiled() -> Callable[[], Tensor]:
        _, compiled = open_network(setting, is_compiled=True, batch_size=len(pixels))
        return lambda: compiled.embed_ready(pixels)

    modes = [] if setting.is_alone else [mode for mode in MODES if setting.is_compiled or not mode.is_compiled]
    peers = [
        Other(
            name=mode.name,
            prepare=partial(prepare_peer, mode, checkpoint, pixels, backbone),
            is_tuned=mode.is_tuned,
        )
        for mode in modes
    ]
    return [Other(name=COMPILED, prepare=prepare_compiled), *peers] if setting.is_compiled else peers


def admit(
    outcome: Outcome, others: list[Other], rows: Tensor, tell: Callable[[str], None]
) -> list[Contender]:
    """Those that are here, fit the device, can be compiled, and embed as we do; the rest is noted in the outcome."""
    admitted: list[Contender] = []
    for other in others:
        try:
            run = other.prepare()
            set_switches(is_tuned=other.is_tuned)
            agreement = outcome.agreement[other.name] = measure_agreement(rows, run())
            require_agreement(agreement)
        except (Absent, RuntimeError) as error:  # RuntimeError: too little memory, no compiler.
            outcome.absent[other.name] = (str(error).splitlines() or [type(error).__name__])[0]
            tell(f"{other.name}: left out, {outcome.absent[other.name]}")
            continue
        tell(f"{other.name}: cosine with ours {agreement:.6f} or more")
        admitted.append(Runner(other.name, run, len(rows), rows.device, is_tuned=other.is_tuned))
    return admitted


def prepare_peer(mode: Mode, checkpoint: Checkpoint, pixels: Tensor, backbone: Backbone) -> Callable[[], Tensor]:
    """One step of a peer. Raises: Absent; torch.OutOfMemoryError."""
    device, how = pixels.device, backbone.preprocessing
    if mode.needs_gpu and device.type != "cuda":
        raise Absent("measured on a GPU alone")
    peer = make_peer(mode, checkpoint, device)
    mean, std = (torch.tensor(values, device=device) for values in (how.mean, how.std))
    pictures = normalise_for(mode, pixels, mean, std)
    return lambda: run_peer(peer, mode, pictures)


def measure_agreement(ours: Tensor, theirs: Tensor) -> float:
    """The least cosine of two embeddings of one picture; NaN if one is not finite."""
    return float(F.cosine_similarity(ours.double(), theirs.double(), dim=1).min())


def measure_apart(rows: Tensor) -> float:
    """The mean cosine of embeddings of different pictures; 1 for one picture alone."""
    count, cosines = len(rows), rows.double() @ rows.double().T
    return float((cosines.sum() - cosines.trace()) / (count * (count - 1))) if count > 1 else 1.0


def require_agreement(found: float) -> None:
    """Refuse who embeds otherwise. Raises: Absent."""
    if not found >= AGREEMENT:
        raise Absent(f"its embeddings are others: cosine {found:.4f} with ours, {AGREEMENT} is the least allowed")
