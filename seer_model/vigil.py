"""The vigil over a run: it reads the figures of the steps now and then, and stops a run that has gone wrong.

Two things go wrong in SwAV. The loss becomes infinite or NaN. Or the run collapses: all pictures get the same
projection, so that the crops agree for nothing; then the prototypes that pictures go to first are a few, or the loss
stays at ln K, the guess of one who knows nothing.

Rule: nothing but figures comes in here; a healthy run is never stopped.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from seer_model.errors import TrainingError

COLLAPSED_SHARE = 0.02
"""Prototypes in use, as a part of those that the steps looked at could have used, below which a run has collapsed."""
BLIND = 0.005
"""A loss this little below ln K, as a part of ln K, says that nothing has been learnt."""
BEGIN_AGAIN = (
    "What was saved before is good. Begin another run from there (--from with the newest step-... folder in the run's "
    "own, and another --output) with half the rate (--rate), or in fp32 or bf16 instead of fp16 "
    "(--precision)."
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What some consecutive steps gave, over all ranks."""

    step: int
    """Steps done in the whole run."""
    steps: int
    epoch: float
    loss: float
    """Mean; a blind guess gives `blind_loss`."""
    blind_loss: float
    """ln K."""
    entropy: float
    """Of the shares of the prototypes among the assigned crops' first choices, in nats; ln K at most."""
    largest_share: float
    rate: float
    images_per_second: float
    waiting_share: float
    """Part of the time in which the device had no batch."""
    seconds: float
    """Of training so far, over all pieces of the run."""
    remaining_seconds: float
    bad: int
    """Pictures that could not be read so far, over all pieces of the run."""

    def describe(self) -> dict:
        """As JSON-able values, a line of the log."""
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}


def read_spread(counts: Tensor) -> tuple[float, float]:
    """Entropy in nats and the largest share, of (K,) counts of first choices."""
    shares = counts / counts.sum().clamp(min=1)
    return float(torch.special.entr(shares).sum()), float(shares.max())


class Vigil:
    """Looks at each reading. A collapse must last for `patience_steps` before it counts."""

    def __init__(self, prototypes: int, *, patience_steps: int, grace_steps: int) -> None:
        """`grace_steps`: in the beginning, when a run may still be blind."""
        self._prototypes, self._patience, self._grace = prototypes, patience_steps, grace_steps
        self.collapsed_since: int | None = None
        """The step since which every look has found a collapse; a resumed run takes it over."""

    @property
    def last_blind_step(self) -> int:
        """By when a run that learns nothing has been stopped, but for the steps to the next look."""
        return self._grace + self._patience

    def look(self, step: int, loss: float, counts: Tensor) -> tuple[float, float]:
        """Take in the mean loss up to `step` and the (K,) first choices since the last look.

        Returns: their entropy and largest share.
        Raises: TrainingError when the loss is not finite or the run has collapsed.
        """
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {step}. {BEGIN_AGAIN}"
            )
        entropy, largest = read_spread(counts)
        self._look_for_collapse(step, loss, entropy, int(counts.sum()))
        return entropy, largest

    def _look_for_collapse(self, step: int, loss: float, entropy: float, choices: int) -> None:
        used, could = math.exp(entropy), min(self._prototypes, choices)
        is_narrow = used < max(1.5, COLLAPSED_SHARE * could)
        is_blind = loss > (1 - BLIND) * math.log(self._prototypes)
        if not is_narrow and not (is_blind and step > self._grace):
            self.collapsed_since = None
            return
        self.collapsed_since = step if self.collapsed_since is None else self.collapsed_since
        if step - self.collapsed_since >= self._patience:
            raise TrainingError(self._describe_collapse(step, loss, used, could))

    def _describe_collapse(self, step: int, loss: float, used: float, could: int) -> str:
        return (
            f"The run has collapsed: for {step - self.collapsed_since} steps up to step {step} the pictures went to "
            f"about {used:.0f} of {could} prototypes, and the loss is {loss:.3f}, where knowing nothing gives "
            f"{math.log(self._prototypes):.3f}. Look at the pictures (are they all alike?), then begin again with a "
            "lower rate (--rate), a larger batch (--batch-size), or a recipe (--preset) with fewer prototypes or a "
            "smaller epsilon."
        )
