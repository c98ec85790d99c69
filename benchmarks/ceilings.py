"""What no network can be faster than: on the same device, the rate of a matrix product and that of copying memory.

Rule: the network's work is counted from its own layers, a multiplication and its addition as two; and the ceilings take
their rounds beside the network, for a clock that falls falls for all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.race import Round, read_clock
from seer_model.regnet import Architecture, RegNet

SIZES = {
    "cpu": ((1024, 1024, 1024), (4096, 2048, 2048), (4096, 1024, 1024), (4096, 4096, 1024)),
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192), (16384, 16384, 16384), (32768, 4096, 4096)),
}
"""(m, n, k) that are tried, in each of the ways; the fastest is the ceiling. m is a square number."""
PRODUCT, CONVOLUTION = "torch.mm", "1x1 convolution"
WAYS = {"cpu": (PRODUCT, CONVOLUTION), "cuda": (PRODUCT,)}
"""On a CPU `torch.mm` may be another library's than the convolutions', and on some processors half as fast."""
TRIAL_SECONDS = 0.3
LEAD_PRODUCTS = 3
LEAD_COPIES = 3
COPIED_BYTES = 1 << 30
"""Far more than any cache holds."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The least that one convolution has to do for one picture; what stands between two of them costs nothing."""

    flops: int
    bytes: float
    """To read its map and its part of the weights, which a batch shares, and to write a map."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a ceiling is a ceiling of."""

    layers: tuple[Layer, ...]
    batch_size: int

    @property
    def flops(self) -> int:
        """Of one picture."""
        return sum(layer.flops for layer in self.layers)

    @property
    def bytes(self) -> float:
        """Of one picture."""
        return sum(layer.bytes for layer in self.layers)


def count_work(architecture: Architecture, side_px: int, batch_size: int, dtype: torch.dtype) -> Work:
    """Of batches of side_px x side_px through the trunk, maps and weights in dtype."""
    layers: list[Layer] = []

    def note(layer: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        weights = layer.weight.numel()
        numbers = given[0].numel() + made.numel() + weights / batch_size
        flops = 2 * made.numel() * weights // layer.out_channels
        layers.append(Layer(flops=flops, bytes=numbers * dtype.itemsize))

    with torch.device("meta"):
        network, picture = RegNet(architecture).eval(), torch.empty(1, 3, side_px, side_px)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(picture)
    return Work(layers=tuple(layers), batch_size=batch_size)


class Gemm:
    """Products of two matrices, as many in a step as have the work of a batch."""

    name = "GEMM"

    def __init__(self, device: torch.device, dtype: torch.dtype, work: Work) -> None:
        self._device, self._dtype, self._work = device, dtype, work
        tried = [(way, size) for way in WAYS[device.type] for size in SIZES[device.type]]
        self.way, self.size = max(tried, key=self._try)
        self._take_matrices(self.way, self.size)
        self._count = max(1, round(work.flops * work.batch_size / self._flops))

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it."""
        self._multiply(LEAD_PRODUCTS)
        started = read_clock(self._device)
        self._multiply(steps * self._count)
        seconds = read_clock(self._device) - started
        return Round(images=steps * self._count * self._flops / self._work.flops, seconds=seconds)

    def _try(self, tried: tuple[str, tuple[int, int, int]]) -> float:
        """Products' FLOPs a second in this way, at this size."""
        self._take_matrices(*tried)
        self._multiply(LEAD_PRODUCTS)
        count, started = 0, read_clock(self._device)
        while (now := read_clock(self._device)) - started < TRIAL_SECONDS:
            self._multiply(LEAD_PRODUCTS)
            count += LEAD_PRODUCTS
        return count * self._flops / (now - started)

    def _take_matrices(self, way: str, size: tuple[int, int, int]) -> None:
        m, n, k = size
        self._flops = 2 * m * n * k
        if way == CONVOLUTION:
            side = math.isqrt(m)
            x = torch.randn(1, k, side, side).to(self._dtype).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(n, k, 1, 1).to(self._dtype).contiguous(memory_format=torch.channels_last)
            self._run = lambda: functional.conv2d(x, weight)
            return
        left = torch.randn(m, k, device=self._device).to(self._dtype)
        right = torch.randn(k, n, device=self._device).to(self._dtype)
        product = torch.empty(m, n, device=self._device, dtype=self._dtype)
        self._run = lambda: torch.mm(left, right, out=product)

    @torch.inference_mode()
    def _multiply(self, count: int) -> None:
        for _ in range(count):
            self._run()


class Copy:
    """Copies from one place of the device's memory to another, as many in a step as a batch's maps and weights have."""

    name = "copy"

    def __init__(self, device: torch.device, work: Work) -> None:
        self._device, self._work = device, work
        self._source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
        self._target = torch.zeros_like(self._source)
        self._moved = 2 * COPIED_BYTES
        self._count = max(1, round(work.bytes * work.batch_size / self._moved))

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it."""
        self._copy(LEAD_COPIES)
        started = read_clock(self._device)
        self._copy(steps * self._count)
        seconds = read_clock(self._device) - started
        return Round(images=steps * self._count * self._moved / self._work.bytes, seconds=seconds)

    def _copy(self, count: int) -> None:
        for _ in range(count):
            self._target.copy_(self._source)


def join_ceilings(work: Work, products: Sequence[Round], copies: Sequence[Round]) -> list[Round]:
    """Rounds of a network each of whose layers takes as long as its products or its copies, whichever take longer."""
    return [Round(images=1, seconds=_add_layers(work, *pair)) for pair in zip(products, copies, strict=True)]


def _add_layers(work: Work, product: Round, copy: Round) -> float:
    flops, moved = product.rate * work.flops, copy.rate * work.bytes  # Of a second.
    return sum(max(layer.flops / flops, layer.bytes / moved) for layer in work.layers)
