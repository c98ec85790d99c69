"""The backbone: preprocessed pictures in, embeddings out, and the fingerprint that says which ones are comparable.

B pictures of uint8 (H, W, 3) -> RegNetY, its batch normalisations folded in -> readout -> (B, D) of length 1.

Rule: every batch has the same padded shape, `batch_size` pictures, whatever is asked: libraries choose their kernels
by shape, and another kernel rounds differently. So a row depends on its own picture only.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from blake3 import blake3
from torch import nn
from torch.nn import functional

from seer_model.attribution import attribute
from seer_model.checkpoint import Checkpoint, build_network, drop_counters, read_checkpoint
from seer_model.devices import CPU_BATCH, PRECISIONS, choose_precision, fit_batch, is_out_of_memory, measure_free
from seer_model.errors import CheckpointError, DeviceError, SettingsError
from seer_model.outputs import PROJECTED, Output
from seer_model.packing import pack_convolutions
from seer_model.poolings import normalise
from seer_model.preprocess import PREPROCESSINGS, Preprocessing
from seer_model.ranks import choose_device
from seer_model.readout import Readout, choose_output, take_weights
from seer_model.regnet import RegNet
from seer_model.zoo import BEHIND, FoundModel, find_model, read_home

PROBE_BATCH = 8
BROKEN = ("CUDA error", "cuDNN error")
"""How torch's errors about a device itself begin."""
COMPILING = {"cpu": "default", "cuda": "max-autotune-no-cudagraphs"}
"""How torch.compile goes about it; on a GPU with kernels chosen by trial. No CUDA graph: torch lets one thread alone
replay it (pytorch/pytorch issue 123177), and a build embeds in one thread and publishes in another."""


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """How a backbone computes; only `preprocessing` changes what its embeddings mean."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    precision: str = "fp32"
    """Of the network; the readout is in fp32 always. `auto`: fp16 on a GPU, else fp32."""
    batch_size: int | None = 8
    """Pictures in a batch; shorter batches are padded. None: 8, and on a GPU as many as its memory holds."""
    preprocessing: str | None = None
    """A name of `PREPROCESSINGS`; None: the model's own."""
    is_compiled: bool = False
    """By torch.compile: minutes before the first batch, for more pictures a second afterwards."""

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *PRECISIONS):
            raise SettingsError(f"The precision is {self.precision!r}; allowed are auto, {', '.join(PRECISIONS)}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingsError(f"The batch size is {self.batch_size}; it must be 1 or more.")
        if self.preprocessing is not None and self.preprocessing not in PREPROCESSINGS:
            allowed = ", ".join(PREPROCESSINGS)
            raise SettingsError(f"There is no preprocessing {self.preprocessing!r}; allowed are {allowed}.")


def open_backbone(
    model: str = "seer-mini",
    *,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = 8,
    preprocessing: str | None = None,
    is_compiled: bool = False,
) -> "Backbone":
    """Load a model by its name or file, ready to embed. See `BackboneSettings` for what the rest means.

    Raises: SettingsError, DeviceError, ModelUnknown, ModelMissing, CheckpointError.
    """
    settings = BackboneSettings(
        device=device,
        precision=precision,
        batch_size=batch_size,
        preprocessing=preprocessing,
        is_compiled=is_compiled,
    )
    chosen_device = choose_device(settings.device)
    found = find_model(model)
    settings = replace(
        settings,
        preprocessing=settings.preprocessing or found.preprocessing,
        precision=choose_precision(settings.precision, chosen_device),
    )
    return Backbone(found, read_checkpoint(found.path), chosen_device, settings)


class Backbone:
    """A loaded model. Made by `open_backbone`; safe to call from one thread at a time."""

    def __init__(
        self, found: FoundModel, checkpoint: Checkpoint, device: torch.device, settings: BackboneSettings
    ) -> None:
        self.model, self.stamps = found.name, found.stamps
        """Of the files that it was read from, so that a build can tell that it is still the same."""
        self.device = str(device)
        self.settings = settings
        self.architecture = checkpoint.architecture
        self.output = choose_output(checkpoint.heads, found.asked)
        self.preprocessing: Preprocessing = PREPROCESSINGS[settings.preprocessing]
        _require_memory(found, checkpoint, device, settings.precision)
        self.fingerprint = compute_fingerprint(checkpoint, self.preprocessing, self.output)
        with _memory_as_device_error(device):
            self._readout = _prepare_readout(found, checkpoint, self.output).to(device)
            self._network = _prepare_network(checkpoint, device, PRECISIONS[settings.precision])
        mean, std = (
            torch.tensor(values, device=device) for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        self._device = device
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._filled: torch.Tensor | None = None
        self._compute = self._compute_rows
        self.batch_size = settings.batch_size or self._find_batch_size()
        """Halved whenever the device's memory does not hold a batch."""
        if settings.is_compiled:
            # Kept for the next build: torch's own place for it is gone with the next start of the system.
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(read_home() / "compiled"))
            self._compute = torch.compile(self._compute_rows, dynamic=False, mode=COMPILING[device.type])
        elif device.type == "cpu":
            one = torch.zeros((1, *self._measure_batch()[1:]), dtype=torch.uint8)
            pack_convolutions(self._network, self._normalise(one), self.batch_size)

    @property
    def dimension(self) -> int:
        """D, the length of an embedding."""
        return self._readout.dimension

    def describe(self) -> dict:
        """What made the embeddings, as JSON-able values, for a manifest."""
        return {
            "model": self.model,
            "architecture": asdict(self.architecture),
            "dimension": self.dimension,
            "preprocessing": self.preprocessing.describe(),
            "output": str(self.output),
            "fingerprint": self.fingerprint,
            "precision": self.settings.precision,
        }

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Embed preprocessed pictures, any number of them, of equal shapes or not.

        Args:
            pixels: uint8 (H, W, 3) each, as `preprocess.prepare` returns them.
        Returns: float32 (len(pixels), D), rows of length 1; a row that is zero or not finite before it is brought to
            length 1 comes back as NaNs.
        Raises: DeviceError when the device's memory does not hold a batch.
        """
        rows = np.empty((len(pixels), self.dimension), dtype=np.float32)
        waiting = deque(_group_places(pixels))
        while waiting:
            places = waiting.popleft()
            if len(places) > self.batch_size:
                waiting.appendleft(places[self.batch_size :])
                places = places[: self.batch_size]
            try:
                rows[places] = self._embed_batch([pixels[place] for place in places])
            except RuntimeError as error:
                self._halve(error)
                waiting.appendleft(places)
        return rows

    def _halve(self, error: RuntimeError) -> None:
        """Go on with half the batch where memory was the trouble. Raises: DeviceError; a bug's error as it is."""
        if not is_out_of_memory(error):
            if str(error).startswith(BROKEN):
                raise DeviceError(f"{self._device} cannot go on: {str(error).splitlines()[0]}") from error
            raise error
        if self.batch_size == 1:
            raise DeviceError(_explain_memory(self._device)) from error
        self.batch_size //= 2
        # What the larger batch has held would be in the smaller one's way.
        torch.cuda.empty_cache()

    def _find_batch_size(self) -> int:
        """On a GPU what its free memory holds, measured on a small batch; past a few hundred nothing is gained."""
        if self._device.type != "cuda":
            return CPU_BATCH
        self.batch_size = PROBE_BATCH
        torch.cuda.synchronize(self._device)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self.embed([np.zeros(self._measure_batch()[1:], dtype=np.uint8)])
        used = torch.cuda.max_memory_allocated(self._device) - before
        free, _ = torch.cuda.mem_get_info(self._device)
        # Where even this one had to be halved, there is no room for more.
        return fit_batch(free, used / PROBE_BATCH) if self.batch_size == PROBE_BATCH else self.batch_size

    @torch.inference_mode()
    def embed_ready(self, batch: torch.Tensor) -> torch.Tensor:
        """Embed pictures that are on the device: uint8 (B, H, W, 3) -> float32 (B, D), there, as `embed` does."""
        # TF32 would keep 10 of fp32's 23 bits, and a row from a GPU would not find its twin from a CPU. Both switches
        # are the whole process's: set each time and never set back, no thread can undo them under another's batch.
        torch.backends.cudnn.allow_tf32 = False
        # Kernels are chosen by trial, once for each shape: where pictures keep their aspect there are too many.
        torch.backends.cudnn.benchmark = self.preprocessing.resize != "long"
        return self._compute(batch)

    @torch.inference_mode()
    def find_matching_places(self, pixels: np.ndarray, aim: np.ndarray) -> np.ndarray:
        """How similar each place of a picture is to something else, by itself (`attribution`).

        Args:
            pixels: uint8 (H, W, 3), as for `embed`.
            aim: (D,) float32 of length 1, what the picture is compared with.
        Returns: (h, w) float32 cosines, one for each field of the finest map that the embedding is read from.
        """
        batch = torch.from_numpy(np.array(pixels))[None].to(self._device)  # A copy: torch wants to be able to write.
        maps = self._network.read_maps(self._normalise(batch))
        aim_there = torch.from_numpy(aim).to(self._device)
        return attribute(maps, self.output.pooling.stages, self._readout, aim_there).cpu().numpy()

    def _embed_batch(self, pixels: list[np.ndarray]) -> np.ndarray:
        batch = self._take_buffer((self.batch_size, *pixels[0].shape))
        np.stack(pixels, out=batch.numpy()[: len(pixels)])
        return self.embed_ready(batch.to(self._device, non_blocking=True))[: len(pixels)].cpu().numpy()

    def _take_buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Memory for a batch, uint8, the same one each time, from which a GPU may read by itself."""
        if self._filled is None or self._filled.shape != shape:
            self._filled = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        return self._filled

    def _compute_rows(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W, 3) on the device -> float32 (B, D)."""
        x = self._normalise(batch)
        rows = [self._readout(self._network.read_maps(_resize(x, scale))) for scale in self.output.scales]
        return rows[0] if len(rows) == 1 else normalise(torch.stack(rows).mean(0))

    def _normalise(self, batch: torch.Tensor) -> torch.Tensor:
        # Pictures are stored channels-last; the permuted view keeps that layout, which is the network's too.
        x = batch.permute(0, 3, 1, 2) * self._scale[:, None, None] + self._shift[:, None, None]
        return x.to(PRECISIONS[self.settings.precision])

    def _measure_batch(self) -> tuple[int, int, int, int]:
        """(B, H, W, 3) of most batches; with a resize of the long side the one of square pictures."""
        side = self.preprocessing.crop_px or self.preprocessing.resize_px
        return self.batch_size, side, side, 3


def compute_fingerprint(checkpoint: Checkpoint, preprocessing: Preprocessing, output: Output) -> str:
    """The hex name of an embedding space: weights, preprocessing and output; not device, precision or batch size."""
    digest, weights = blake3(), checkpoint.trunk | take_weights(checkpoint.heads, output)
    for key, weight in sorted(drop_counters(weights).items()):
        digest.update(f"{key} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().float().contiguous().cpu().numpy().reshape(-1).view(np.uint8))
    digest.update(json.dumps([preprocessing.describe(), str(output)], sort_keys=True).encode())
    return digest.hexdigest()


def read_prototypes(model: str) -> np.ndarray | None:
    """SwAV's prototypes of a model that is named with its projection, in whose space they stand.

    Returns: (K, D) float32 of length 1; None where another readout is asked for, or the file has none.
    Raises: ModelUnknown, ModelMissing, CheckpointError.
    """
    found = find_model(model)
    if found.asked.readout != PROJECTED:
        return None
    heads = read_checkpoint(found.path).heads
    sets = [weight.float() for key, weight in heads.items() if key.startswith("prototypes.")]
    return functional.normalize(torch.cat(sets)).numpy() if sets else None


def _require_memory(found: FoundModel, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
    needed = sum(weight.numel() for weight in checkpoint.trunk.values()) * PRECISIONS[precision].itemsize
    free = measure_free(device)
    if free is not None and needed > free:
        raise DeviceError(
            f"{found.name} needs {needed / 1e9:.1f} GB in {precision} on {device}, where {free / 1e9:.1f} GB are free. "
            "Take another device, --precision fp16 if it is not that already, or a smaller model."
        )


def _prepare_readout(found: FoundModel, checkpoint: Checkpoint, output: Output) -> Readout:
    if output.layer and not take_weights(checkpoint.heads, output):
        raise CheckpointError(
            f"{found.name}: the model has no projection. timm's and Hugging Face's files leave it out; take the file "
            f"that VISSL published, or leave {BEHIND}{PROJECTED} out."
        )
    return Readout(checkpoint, output)


def _prepare_network(checkpoint: Checkpoint, device: torch.device, precision: torch.dtype) -> RegNet:
    network = build_network(checkpoint).eval().requires_grad_(False)
    # One convolution after the other goes to the device: the file's own bytes are mapped, and never all in memory.
    network.fold_norms(lambda folded: folded.to(device=device, dtype=precision, memory_format=torch.channels_last))
    network.to(device=device, dtype=precision, memory_format=torch.channels_last)
    _leave_file(network, checkpoint)
    return network


def _resize(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Pictures (B, 3, H, W) with sides times `scale`, antialiased; as they are for 1."""
    if scale == 1:
        return x
    sides = [max(1, round(side * scale)) for side in x.shape[2:]]
    # In fp32: not every device resizes in half precision.
    resized = functional.interpolate(x.float(), size=sides, mode="bilinear", antialias=True)
    return resized.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _leave_file(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights that are still the file's own bytes, mapped: who changes or cuts the file would change them."""
    mapped = {weight.untyped_storage().data_ptr() for weight in checkpoint.trunk.values()}
    for weight in network.parameters():
        if weight.untyped_storage().data_ptr() in mapped:
            weight.data = weight.data.clone()


def _group_places(pixels: Sequence[np.ndarray]) -> list[list[int]]:
    """Places in `pixels`, those of one shape together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pixels):
        groups.setdefault(picture.shape, []).append(place)
    return list(groups.values())


@contextmanager
def _memory_as_device_error(device: torch.device) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(_explain_memory(device)) from error


def _explain_memory(device: torch.device) -> str:
    return f"The memory of {device} does not hold this model with batches of 1. Use --device cpu, or a smaller model."
