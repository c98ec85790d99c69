"""LARC around SGD, and the learning rate over a run.

Rule: nothing here knows what is being trained; a schedule is a function of the step alone, or of the losses so far.
Source: LARC, arXiv:1708.03888, as apex states it; schedules: SEER, arXiv:2103.01988, section 4.1.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from seer_model.errors import SettingsError

TRUST = 0.001
TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Learning rate, its course, and what keeps weights small. Rates are for the whole batch over all ranks."""

    rate: float = 4.8
    warmup_start_rate: float = 0.3
    final_rate: float = 0.0048
    """Where the cosine ends; not used by `constant`."""
    warmup_share: float = 0.1
    """Part of the run's steps in which the rate rises in a line."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """cosine: falls to `final_rate` at the last step. constant: for data without an end, halved on a plateau."""
    plateau_steps: int = 2000
    """Steps without a better mean loss before `constant` halves the rate."""
    momentum: float = 0.9
    weight_decay: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf or min(self.warmup_start_rate, self.final_rate, self.weight_decay) < 0:
            raise SettingsError(
                f"rate {self.rate} must be above 0, warmup_start_rate {self.warmup_start_rate}, final_rate "
                f"{self.final_rate} and weight_decay {self.weight_decay} 0 or more."
            )
        if not 0 <= self.warmup_share < 1 or not 0 <= self.momentum < 1:
            raise SettingsError(f"warmup_share {self.warmup_share} and momentum {self.momentum} must lie in [0, 1).")
        if self.schedule not in ("cosine", "constant") or self.plateau_steps < 1:
            raise SettingsError(f"The schedule is {self.schedule!r}; allowed are cosine and constant, with a plateau.")


@torch.no_grad()
def measure_lengths(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norms of n tensors, or of this rank's parts of them: (n,) float32 or finer."""
    parts = [take_part(tensor) for tensor in tensors]
    # Squares of float16 overflow from 256 on.
    dtype = torch.promote_types(parts[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(parts, 2, dtype=dtype))


def take_part(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank: all of it, or a part that changes with it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Larc(torch.optim.SGD):
    """SGD in which each parameter's gradient is scaled to the parameter's own length.

    g <- (g + weight_decay * p) * 0.001 * |p| / (|g| + weight_decay * |p| + 1e-8), for non-zero |p| and |g|; then
    momentum. Not clipped: the scale may exceed 1.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        settings: OptimizerSettings,
        *,
        measure: Callable[[Sequence[Tensor]], Tensor] = measure_lengths,
    ) -> None:
        """`measure` gives the lengths of n whole tensors, (n,), also of those that are spread over ranks."""
        super().__init__(parameters, lr=settings.rate, momentum=settings.momentum)
        self._decay, self._measure = settings.weight_decay, measure

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Scale the gradients, in place, and take SGD's step."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                self._scale(moved, [parameter.grad for parameter in moved])
        super().step(closure)

    def _scale(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """All in a few calls of torch; one by one it is twenty for each parameter, longer than the work itself."""
        lengths, steepness = self._measure(parameters), self._measure(gradients)
        trust = TRUST * lengths / (steepness + self._decay * lengths + TINY)
        # No branch on the numbers, for which a GPU would have to be waited for. A gradient of zero stays zero, decay
        # and all; a parameter of zero has no decay.
        trust = torch.where(lengths > 0, trust, 1.0).where(steepness > 0, 0.0)
        parts = [take_part(gradient) for gradient in gradients]
        torch._foreach_add_(parts, [take_part(parameter) for parameter in parameters], alpha=self._decay)
        torch._foreach_mul_(parts, list(trust.unbind()))


def find_rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """The learning rate of a step, from 0, of a run of `steps`: a line up, then half a cosine down or level."""
    warmup = round(settings.warmup_share * steps)
    if step < warmup:
        return settings.warmup_start_rate + (settings.rate - settings.warmup_start_rate) * step / warmup
    if settings.schedule == "constant":
        return settings.rate
    course = (step - warmup) / max(1, steps - 1 - warmup)
    return settings.final_rate + (settings.rate - settings.final_rate) * (1 + math.cos(math.pi * min(course, 1))) / 2


class Plateau:
    """Halves the rate each time that the mean loss has stopped falling: the schedule for data without an end."""

    def __init__(self, patience_steps: int) -> None:
        self.patience_steps = patience_steps
        self.factor = 1.0
        self._losses: list[float] = []
        self._best = math.inf

    def update(self, loss: float) -> float:
        """Take in the loss of one more step; returns the factor on the rate from now on."""
        self._losses.append(loss)
        if len(self._losses) >= self.patience_steps:
            mean = sum(self._losses) / len(self._losses)
            # Less than one part in a thousand is noise.
            if mean > self._best * 0.999:
                self.factor /= 2
            self._best = min(self._best, mean)
            self._losses.clear()
        return self.factor

    def state_dict(self) -> dict:
        """What a resumed run needs."""
        return {"factor": self.factor, "losses": list(self._losses), "best": self._best}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.factor, self._losses, self._best = state["factor"], list(state["losses"]), state["best"]
