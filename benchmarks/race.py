"""Several ways to do one thing, measured in turn in one process, and what the rounds say.

Rule: raw rounds are kept; a ratio is the median of the ratios of rounds that stood side by side, never of two medians
taken at different times.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, kw_only=True)
class Round:
    """One contender's part of one round."""

    images: float
    """Pictures; of a ceiling, as many as could have been done with the work that it did."""
    seconds: float
    waiting_share: float = 0.0
    """Part of the time in which no batch was ready to be handed to the device."""

    @property
    def rate(self) -> float:
        """Images/s."""
        return self.images / self.seconds

    def describe(self) -> dict:
        """As JSON-able values."""
        return asdict(self) | {"images_per_second": self.rate}


class Contender(Protocol):
    """One way to do it."""

    name: str

    def take_round(self, steps: int) -> Round:
        """Reach the steady state, untimed; then take so many steps against the clock; then rest."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What several rounds gave."""

    median: float
    least: float
    most: float


def race(
    contenders: Sequence[Contender], *, rounds: int, steps: int, tell: Callable[[str], None] = lambda text: None
) -> dict[str, list[Round]]:
    """Let all contenders take their rounds, one at a time; every second round in reverse order."""
    found: dict[str, list[Round]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            taken = contender.take_round(steps)
            found[contender.name].append(taken)
            tell(f"round {number + 1} of {rounds}: {contender.name} {taken.rate:,.1f} images/s")
    return found


def spread(values: Iterable[float]) -> Spread:
    """The median of some values, and how far they reach."""
    values = list(values)
    return Spread(median=statistics.median(values), least=min(values), most=max(values))


def spread_ratio(above: Sequence[Round], below: Sequence[Round]) -> Spread:
    """How many times faster one is than another, round by round."""
    return spread(one.rate / other.rate for one, other in zip(above, below, strict=True))


def summarise(rounds: Sequence[Round]) -> dict[str, float]:
    """Images/s of some rounds and the share that was waited, as JSON-able values."""
    waiting = spread(one.waiting_share for one in rounds).median
    return asdict(spread(one.rate for one in rounds)) | {"waiting_share": waiting}


def show_rate(name: str, rate: dict[str, float]) -> str:
    """One line of what `summarise` gives; waiting is only told where there was any."""
    extent = f"({rate['least']:,.1f} to {rate['most']:,.1f})"
    waiting = f"waiting {rate['waiting_share']:.0%}" if rate["waiting_share"] else ""
    return f"  {name:<36} {rate['median']:>9,.1f} images/s  {extent:<24} {waiting}".rstrip()


def show_ratio(name: str, ratio: dict[str, float]) -> str:
    """One line of a ratio, as `Spread` has it."""
    return f"  {name:<52} {ratio['median']:.2f}  ({ratio['least']:.2f} to {ratio['most']:.2f})"


def read_clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
