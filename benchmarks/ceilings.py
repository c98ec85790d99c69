"""What no network can be faster than: the rate of a matrix product on the same device, in the same precision.

Rule: the network's work is counted from its own layers, a multiplication and its addition as two; and the ceiling takes
its rounds beside the network, for a clock that falls falls for both.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

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


def count_flops(architecture: Architecture, side_px: int) -> int:
    """Of one picture of side_px x side_px through the trunk."""
    with torch.device("meta"):
        network, picture = RegNet(architecture).eval(), torch.empty(1, 3, side_px, side_px)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(picture)
    return counter.get_total_flops()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a ceiling is a ceiling of."""

    flops: int
    """Of one picture."""
    batch_size: int


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
