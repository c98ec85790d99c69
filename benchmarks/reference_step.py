"""The reference's step: SwAV written down as the paper and its published code state it, eager, fp32, NCHW.

What is measured against, and an oracle for `seer_model.learner`: from the same weights and the same crops both have
the same losses, step after step (tests/test_benchmarks.py). The network's modules are ours, so that both compute the
same; layout, precision, loss, queue and optimiser are written here anew, and plainly.

Rule: nothing here is made fast, and nothing is made slow: what a careful person writes before measuring.
Source: SwAV, arXiv:2006.09882; LARC, arXiv:1708.03888; order of the step as in spec/seer.md, 3.4.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seer_model.presets import PretrainSettings
from seer_model.regnet import ARCHITECTURES, RegNet
from seer_model.swav import Head


class ReferenceStep:
    """Network, optimiser and queue. The prototypes learn from the first step on."""

    def __init__(self, recipe: PretrainSettings, device: torch.device) -> None:
        self.recipe = recipe
        self.trunk = RegNet(ARCHITECTURES[recipe.architecture]).to(device).train()
        self.head = Head(self.trunk.architecture.dimension, recipe.swav).to(device).train()
        self.parameters = [*self.trunk.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(self.parameters, lr=recipe.optimizer.rate, momentum=recipe.optimizer.momentum)
        length = recipe.swav.queue // recipe.batch_size * recipe.batch_size
        rows = torch.randn(recipe.swav.assigned_crops, length, recipe.swav.projection[-1], device=device)
        self.queue = F.normalize(rows, dim=2)
        """(A, Q, P) earlier projections of each assigned crop, random ones at first; Q may be 0."""

    def step(self, crops: list[Tensor], rate: float) -> Tensor:
        """Learn from one batch.

        Args:
            crops: C tensors (B, 3, side, side) on the device, large ones first.
        Returns: the loss before the update, still on the device.
        """
        projections, scores = self._forward(crops)
        loss = self._measure_loss(scores)
        self._push(projections)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        scale_gradients(self.parameters, self.recipe.optimizer.weight_decay)
        self.optimizer.step()
        self.head.normalise_prototypes()
        return loss.detach()

    def _forward(self, crops: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Projections (C, B, P) and scores (C, B, K)."""
        pooled = torch.cat([pool(self.trunk, group) for group in join_by_side(crops)])
        projections, scores, _ = self.head(pooled)
        shape = (len(crops), len(crops[0]), -1)
        return projections.view(shape), scores.view(shape)

    def _measure_loss(self, scores: Tensor) -> Tensor:
        how, count = self.recipe.swav, len(scores)
        with torch.no_grad():
            queued = self.head.prototypes[0](self.queue)
        loss = torch.zeros((), device=scores.device)
        for assigned in range(how.assigned_crops):
            rows = torch.cat([scores[assigned].detach(), queued[assigned]])
            shares = share_out(rows, how.epsilon, how.sinkhorn_rounds)[: scores.shape[1]]
            for crop in range(count):
                if crop != assigned:
                    guess = F.log_softmax(scores[crop] / how.temperature, dim=1)
                    loss = loss - (shares * guess).sum(1).mean() / (count - 1)
        return loss / how.assigned_crops

    def _push(self, projections: Tensor) -> None:
        length = self.queue.shape[1]
        self.queue = torch.cat([projections[: len(self.queue)].detach(), self.queue], 1)[:, :length]


def join_by_side(crops: list[Tensor]) -> list[Tensor]:
    """Crops of one size joined, in their order: each is one pass through the network."""
    sides = dict.fromkeys(crop.shape[-1] for crop in crops)
    return [torch.cat([crop for crop in crops if crop.shape[-1] == side]) for side in sides]


def pool(trunk: nn.Module, crops: Tensor) -> Tensor:
    """(R, D) means over the trunk's maps."""
    return F.adaptive_avg_pool2d(trunk(crops), 1).flatten(1)


@torch.no_grad()
def share_out(scores: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Sinkhorn-Knopp as the paper writes it: (B, K) cosines -> (B, K), each row sums to 1."""
    shares = torch.exp((scores - scores.max()) / epsilon).T
    shares = shares / shares.sum()
    prototypes, crops = shares.shape
    for _ in range(rounds):
        shares = shares / shares.sum(1, keepdim=True) / prototypes
        shares = shares / shares.sum(0, keepdim=True) / crops
    return (shares * crops).T


@torch.no_grad()
def scale_gradients(parameters: Iterable[Tensor], decay: float) -> None:
    """LARC with a trust of 0.001, not clipped, in place."""
    for parameter in parameters:
        if parameter.grad is None:
            continue
        length, steepness = parameter.norm(), parameter.grad.norm()
        if length > 0 and steepness > 0:
            trust = 0.001 * length / (steepness + decay * length + 1e-8)
            parameter.grad.add_(parameter, alpha=decay).mul_(trust)
