"""Batch normalisation over the crops of several ranks, on any device.

Each rank measures its own crops; the ranks of a group share count, mean and variance, and all normalise by the same
figures, as if their batches were one. torch's own `SyncBatchNorm` gives the same, but refuses tensors on the CPU.

Rule: a `SyncNorm` has the weights and buffers of the `BatchNorm` that it was, under the same names, and in evaluation
it is one. A checkpoint does not show how many ranks made it.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def synchronise_norms(network: nn.Module, group: "dist.ProcessGroup | None") -> None:
    """Let every BatchNorm1d and BatchNorm2d of a network measure with the other ranks of a group, from now on.

    In place: weights, buffers and hooks stay the objects that they are. Before `sharding`, which changes the classes.

    Args:
        group: as `Ranks.make_groups` returns it; None or a group of one changes nothing.
    """
    if group is None or group.size() == 1:
        return
    for module in network.modules():
        if type(module) in _SYNCHRONISED:
            module.__class__ = _SYNCHRONISED[type(module)]
            module.group = group


class _SyncNorm(nn.modules.batchnorm._BatchNorm):
    group: "dist.ProcessGroup"

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        count, mean, variance = measure_together(x, self.group)
        if self.track_running_stats:
            self._track(count, mean, variance)
        return _Normalise.apply(x, self.weight, self.bias, count, mean, variance, self.eps, self.group)

    @torch.no_grad()
    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        # Without a momentum the statistics are the plain average over all batches.
        rate = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.add_((new.to(running.dtype) - running) * rate)


class SyncNorm1d(_SyncNorm, nn.BatchNorm1d):
    """BatchNorm1d over a group of ranks: (B, C) or (B, C, L); B may differ between ranks, and be 0 on some."""


class SyncNorm2d(_SyncNorm, nn.BatchNorm2d):
    """BatchNorm2d over a group of ranks: (B, C, H, W); B, H and W may differ between ranks, and B be 0 on some."""


_SYNCHRONISED = {nn.BatchNorm1d: SyncNorm1d, nn.BatchNorm2d: SyncNorm2d}


@torch.no_grad()
def measure_together(x: Tensor, group: "dist.ProcessGroup") -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance of each channel over all ranks of a group; collective.

    Args:
        x: (B, C, ...); any float dtype, the figures are float32 or finer.
    Returns: (), (C,), (C,), the same on every rank.
    """
    own = torch.cat(_measure(x))
    gathered = [torch.empty_like(own) for _ in range(group.size())]
    dist.all_gather(gathered, own, group=group)
    counts, means, variances = torch.stack(gathered).split((1, x.shape[1], x.shape[1]), dim=1)
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    # From centred figures: the mean of the squares less the square of the mean would cancel in float32.
    variance = (shares * (variances + (means - mean).square())).sum(0)
    return count, mean, variance


def _measure(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    wide = x.to(_widen(x.dtype))
    count = wide.new_full((1,), x.numel() // channels)
    if not x.numel():
        return count, wide.new_zeros(channels), wide.new_zeros(channels)
    variance, mean = torch.var_mean(wide, _list_axes(x), correction=0)
    return count, mean, variance


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias; backward knows that x made mean and variance, on all ranks.

    A rank's gradient of weight and bias is the part from its own crops, as with every other weight.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, count: Tensor, mean: Tensor, variance: Tensor,
        eps: float, group: "dist.ProcessGroup",
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, count, mean, torch.rsqrt(variance + eps))
        ctx.group, ctx.has_bias = group, bias is not None
        # Sharding may hand over weights in half precision; torch takes those only beside figures in half precision.
        weight, bias = (None if one is None else one.to(mean.dtype) for one in (weight, bias))
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, inverse = ctx.saved_tensors
        axes, shape = _list_axes(x), (1, -1, *[1] * (x.dim() - 2))
        wide = gradient.to(mean.dtype)
        standard = (x.to(mean.dtype) - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([wide.sum(axes), (wide * standard).sum(axes)])
        everyone = own.clone()
        dist.all_reduce(everyone, group=ctx.group)
        shift, slope = (everyone / count).view(2, *shape)
        scale = inverse if weight is None else inverse * weight.to(mean.dtype)
        through = (wide - shift - standard * slope) * scale.view(shape)
        of_weight = None if weight is None else own[1].to(weight.dtype)
        of_bias = own[0].to(mean.dtype if weight is None else weight.dtype) if ctx.has_bias else None
        return through.to(x.dtype), of_weight, of_bias, None, None, None, None, None


def _list_axes(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _widen(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
