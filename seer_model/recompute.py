"""Less memory for more time: a block keeps its input only, and computes the rest again when the gradients need it.

Rule: computing again leaves no trace. Batch normalisation's running statistics and counters move with the first
computation only, and the network's weights keep their names.
Source: SEER, arXiv:2103.01988, which also leaves the last stage out.
"""

from contextlib import nullcontext
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seer_model.regnet import Block, RegNet


def recompute_blocks(network: RegNet, *, last_stage: bool = False) -> None:
    """Let each block of a network compute its inner values a second time in place of keeping them; in training only.

    In place, after `sync_norm` and before `sharding`, which changes the classes.

    Args:
        last_stage: the last stage's blocks too. Their values are small, and are the first that the gradients need.
    Raises: ValueError when the network is sharded already.
    """
    stages = list(network.stages) if last_stage else list(network.stages)[:-1]
    for block in (block for stage in stages for block in stage):
        if type(block) not in (Block, RecomputedBlock):
            raise ValueError(f"A {type(block).__name__} cannot be changed any more; call recompute_blocks first.")
        block.__class__ = RecomputedBlock


class RecomputedBlock(Block):
    """A block that keeps nothing for the backward pass but its input."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        # A block draws no random numbers, so their state need not be kept. Autocast is as it was the first time.
        return checkpoint(
            super().forward, x, use_reentrant=False, preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _StatisticsHeld(self)),
        )  # fmt: skip


class _StatisticsHeld:
    """While it is entered, what the normalisations of a block note down goes into copies that are thrown away.

    Telling them to note nothing would not do: batch normalisation then keeps fewer tensors than the first time, and
    torch refuses. A class, for a generator's context can be entered once only, and a graph that is kept is computed
    again each time.
    """

    def __init__(self, block: Block) -> None:
        self._norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
        self._held: list[dict[str, Tensor]] = []

    def __enter__(self) -> None:
        self._held = [dict(norm.named_buffers()) for norm in self._norms]
        self._put([{name: buffer.clone() for name, buffer in buffers.items()} for buffers in self._held])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put(self._held)

    def _put(self, statistics: list[dict[str, Tensor]]) -> None:
        for norm, buffers in zip(self._norms, statistics, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
