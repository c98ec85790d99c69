"""SwAV: crops of one picture must agree on the prototypes that they are assigned to.

    head        (R, D) pooled maps -> projection (R, P), length 1 -> scores (R, K): cosines with the prototypes
    assign      scores of one large crop -> assignments (B, K): the batch shared out evenly (Sinkhorn-Knopp)
    swap        each crop must predict the assignment of every other's large crop, not its own

Rule: the loss takes scores, not a model; scores and all that follows are float32, whatever the network computes in.
Source: SwAV, arXiv:2006.09882; SEER, arXiv:2103.01988, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seer_model.errors import SettingsError
from seer_model.key_tables import is_counter

Reduce = Callable[[Tensor], Tensor]


def _alone(tensor: Tensor) -> Tensor:
    """The sum, or the maximum, over one rank."""
    return tensor


@dataclass(frozen=True, kw_only=True)
class SwavSettings:
    """The numbers of the method."""

    projection: tuple[int, ...] = (2048, 128)
    """Widths of the projection's layers; the last is P."""
    projection_norms: bool = True
    """Batch normalisation after each layer but the last."""
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    """Softness of the assignments."""
    sinkhorn_rounds: int = 3
    assigned_crops: int = 2
    """Crops, from the first on, whose assignments are to be predicted."""
    queue: int = 0
    """Projections of earlier pictures, for each assigned crop, that take part in sharing out a small batch."""
    queue_start_step: int = 0
    frozen_steps: int = 313
    """Steps in the beginning in which the prototypes stay as they were drawn."""

    def __post_init__(self) -> None:
        if not self.projection or min(self.projection) < 1 or self.prototypes < 2:
            raise SettingsError(f"projection {self.projection} and prototypes {self.prototypes} must be 1, 2 or more.")
        if self.temperature <= 0 or self.epsilon <= 0 or self.sinkhorn_rounds < 1:
            raise SettingsError(
                f"temperature {self.temperature}, epsilon {self.epsilon} and sinkhorn_rounds {self.sinkhorn_rounds} "
                "must all be above 0."
            )
        if self.assigned_crops < 1 or min(self.queue, self.queue_start_step, self.frozen_steps) < 0:
            raise SettingsError(f"assigned_crops must be 1 or more, counts 0 or more: {self}.")


class Head(nn.Module):
    """Projection and prototypes, with the names that checkpoints give them."""

    def __init__(self, dimension: int, settings: SwavSettings, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.projection = _build_projection(dimension, settings)
        self.prototypes = nn.ModuleList([nn.Linear(settings.projection[-1], settings.prototypes, bias=False)])
        self._draw_weights(generator)

    def forward(self, pooled: Tensor, queued: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Project and score.

        Args:
            pooled: (R, D).
            queued: (A, Q, P) earlier projections.
        Returns: float32 projections (R, P) of length 1, scores (R, K), and scores (A, Q, K) of the queue.
        """
        projections = F.normalize(self.projection(pooled).float(), dim=1)
        # Scores are cosines only in full precision: half of it would merge neighbouring ones.
        with torch.autocast(pooled.device.type, enabled=False):
            queued_scores = None if queued is None else self.prototypes[0](queued).detach()
            return projections, self.prototypes[0](projections), queued_scores

    @torch.no_grad()
    def is_normalised(self) -> bool:
        """Whether the prototypes have length 1, but for rounding."""
        lengths = torch.linalg.vector_norm(self.prototypes[0].weight, dim=1)
        return bool(((lengths - 1).abs() < 1e-6).all())

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        """Bring each prototype back to length 1; to be called after every step of the optimiser."""
        weight = self.prototypes[0].weight
        weight.copy_(F.normalize(weight, dim=1))

    @torch.no_grad()
    def _draw_weights(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
        self.normalise_prototypes()


def _build_projection(dimension: int, settings: SwavSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = (dimension, *settings.projection)
    for layer, (width_in, width) in enumerate(zip(widths, widths[1:], strict=False)):
        if layer:
            layers += [nn.BatchNorm1d(width_in)] if settings.projection_norms else []
            layers += [nn.ReLU(inplace=True)]
        layers.append(nn.Linear(width_in, width))
    return nn.Sequential(*layers)


def build_projection(heads: Mapping[str, Tensor]) -> nn.Sequential:
    """The projection of a checkpoint, with its weights in it, on the CPU: (R, D) -> (R, P), not of length 1 yet.

    Args:
        heads: as `Checkpoint.heads`; other heads are passed over. A layer's number that no weight has is a ReLU's.
    Raises: ValueError when there is no projection.
    """
    weights = {key.split(".", 1)[1]: weight for key, weight in heads.items() if key.startswith("projection.")}
    numbers = {int(key.split(".")[0]) for key in weights}
    with torch.device("meta"):
        layers = (
            _build_layer(weights, number) if number in numbers else nn.ReLU() for number in range(max(numbers) + 1)
        )
        projection = nn.Sequential(*layers)
    counters = {key: torch.zeros((), dtype=torch.long) for key in projection.state_dict() if is_counter(key)}
    projection.load_state_dict(counters | weights, assign=True)
    return projection


def _build_layer(weights: Mapping[str, Tensor], number: int) -> nn.Module:
    weight = weights[f"{number}.weight"]
    if weight.ndim == 1:
        return nn.BatchNorm1d(len(weight))
    return nn.Linear(weight.shape[1], weight.shape[0], bias=f"{number}.bias" in weights)


@torch.no_grad()
def assign(
    scores: Tensor, *, epsilon: float = 0.05, rounds: int = 3, sum_over: Reduce = _alone, max_over: Reduce = _alone
) -> Tensor:
    """Share a batch out over the prototypes, an equal part to each (Sinkhorn-Knopp).

    Args:
        scores: (B, K) cosines of B crops with K prototypes.
        epsilon: softness, no unit; towards 0 every row becomes one-hot.
        rounds: alternations between equal columns and equal rows.
        sum_over, max_over: reduce a tensor over the ranks, each of which has its own B crops.
    Returns: float32 (B, K); each row sums to 1, each column to about B / K of the whole batch.
    Source: SwAV, arXiv:2006.09882, section 3.
    """
    scores = scores.detach().float()
    # Without a shift exp(1 / epsilon) would overflow. Each prototype has its own: the first round makes their columns
    # equal anyway, and so one that nobody prefers does not underflow.
    shares = ((scores - max_over(scores.max(0).values)) / epsilon).exp()
    tiny = torch.finfo(shares.dtype).tiny
    for _ in range(rounds):
        shares = shares / (sum_over(shares.sum(0)).clamp(min=tiny) * shares.shape[1])
        shares = shares / shares.sum(1, keepdim=True).clamp(min=tiny)
    return shares


def swapped_loss(scores: Tensor, assignments: Tensor, *, temperature: float = 0.1) -> Tensor:
    """How badly each crop predicts the assignments of the picture's other large crops.

    Args:
        scores: (C, B, K) cosines of C crops of each of B pictures, the assigned crops first.
        assignments: (A, B, K) of the first A crops.
    Returns: the mean cross-entropy over all pairs of an assigned crop and another crop; ln K for a blind guess.
    """
    guesses = F.log_softmax(scores.float() / temperature, dim=2)
    crops, assigned = len(scores), len(assignments)
    pairs = torch.einsum("cbk,abk->ca", guesses, assignments) / scores.shape[1]
    others = 1 - torch.eye(crops, assigned, device=pairs.device)
    return -(pairs * others).sum() / (assigned * (crops - 1))


class Queue:
    """The last projections of each assigned crop, kept so that a small batch can be shared out among more."""

    def __init__(self, settings: SwavSettings, device: torch.device) -> None:
        self.rows = torch.zeros(settings.assigned_crops, settings.queue, settings.projection[-1], device=device)
        self.filled = 0

    @property
    def is_full(self) -> bool:
        """Whether every place has been taken; before that the queue is not used."""
        return self.filled >= self.rows.shape[1] > 0

    def push(self, projections: Tensor) -> None:
        """Put in (A, B, P) projections, the oldest leave."""
        projections = projections.detach()[:, : self.rows.shape[1]]
        self.rows = torch.cat([projections, self.rows], 1)[:, : self.rows.shape[1]]
        self.filled = min(self.filled + projections.shape[1], self.rows.shape[1])


def assign_crops(
    scores: Tensor,
    settings: SwavSettings,
    queued_scores: Tensor | None = None,
    *,
    sum_over: Reduce = _alone,
    max_over: Reduce = _alone,
) -> Tensor:
    """Assignments of the first crops; the queue's projections take part in the sharing out, if there are any.

    Args:
        scores: (C, B, K).
        queued_scores: (A, Q, K), of the same crops of earlier pictures.
    Returns: (A, B, K).
    """
    found = []
    for crop in range(settings.assigned_crops):
        rows = scores[crop] if queued_scores is None else torch.cat([scores[crop], queued_scores[crop]])
        shares = assign(
            rows, epsilon=settings.epsilon, rounds=settings.sinkhorn_rounds, sum_over=sum_over, max_over=max_over
        )
        found.append(shares[: scores.shape[1]])
    return torch.stack(found)


def group_by_side(crops: Sequence[Tensor]) -> list[Tensor]:
    """Neighbouring crops of one size, joined: each group is one pass through the backbone."""
    groups: list[list[Tensor]] = []
    for crop in crops:
        if groups and groups[-1][0].shape[-1] == crop.shape[-1]:
            groups[-1].append(crop)
        else:
            groups.append([crop])
    return [torch.cat(group) if len(group) > 1 else group[0] for group in groups]
