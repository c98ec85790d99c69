"""Outputs: the readouts that a model can be opened with, by name.

    MODEL                what its file says: whitened if it brings a whitening, else the average of its last map
    MODEL#NAME           a line of `POOLINGS` without any layer behind it; or `projection`, which is SwAV's
    MODEL#NAME+scales    the same at three sizes of the picture; `MODEL#scales`: what its file says, at three sizes

Rule: names and what they stand for, no numbers: these are computed in `poolings` and `readout`. What is spelled here is
in fingerprints and in the names of weights, and is never changed.
"""

from dataclasses import dataclass
from typing import Literal

from seer_model.errors import ModelUnknown


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How maps become a row: one reading of each, side by side."""

    spelled: str
    """In manifests, fingerprints and the names of weights."""
    kind: Literal["average", "gem", "rmac"]
    stages: tuple[int, ...] = (-1,)
    """Whose maps, counted from the last."""


POOLINGS = {
    "average": Pooling(spelled="res5-avgpool", kind="average"),
    "average-res4": Pooling(spelled="res4-avgpool", kind="average", stages=(-2,)),
    "gem": Pooling(spelled="res5-gem3", kind="gem"),
    "gem-res4": Pooling(spelled="res4-gem3", kind="gem", stages=(-2,)),
    "gem-both": Pooling(spelled="res4-res5-gem3", kind="gem", stages=(-2, -1)),
    "rmac": Pooling(spelled="res5-rmac3", kind="rmac"),
    "rmac-res4": Pooling(spelled="res4-rmac3", kind="rmac", stages=(-2,)),
}
"""By the name that a person gives."""
UNNAMED = POOLINGS["gem-both"]
"""What a whitening stands on whose weights' names do not say it: the bundled model's, and all that `pretrain` fits."""
PROJECTED = "projection"
READOUTS = (*POOLINGS, PROJECTED)
"""What may be asked for behind a model's name."""
SCALED = "scales"
SCALES = (0.7, 1.0, 1.4)
"""Sides of the three pictures that are looked at, as parts of the one that the backbone is given."""


@dataclass(frozen=True)
class Asked:
    """What stands behind the `#` of a model's name."""

    readout: str | None = None
    """A name of `POOLINGS`, or PROJECTED; None: what the model's file says."""
    is_scaled: bool = False


OWN = Asked()


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a model's embedding is: maps, pooled, through a layer or none, at one size or several."""

    pooling: Pooling
    layer: Literal["", "whitened", "projection"] = ""
    is_scaled: bool = False

    @property
    def scales(self) -> tuple[float, ...]:
        """Sizes of the picture, as parts of the one that is given."""
        return SCALES if self.is_scaled else (1.0,)

    def __str__(self) -> str:
        """The name in manifests and fingerprints."""
        pooled = "" if self.layer == "projection" else self.pooling.spelled
        sizes = (f"x{scale:g}" for scale in self.scales if self.is_scaled)
        return "-".join(filter(None, (pooled, self.layer, *sizes, "l2")))


def read_asked(text: str) -> Asked | None:
    """What `rmac`, `scales` and `rmac+scales` ask for; None if it is nothing that is known."""
    names = text.split("+")
    is_scaled = names[-1] == SCALED
    names = names[: len(names) - is_scaled]
    if len(names) > 1 or not {*names} <= {*READOUTS}:
        return None
    return Asked(*names, is_scaled=is_scaled)


def require_asked(text: str) -> Asked:
    """As `read_asked`. Raises: ModelUnknown, with the names that are known."""
    if asked := read_asked(text):
        return asked
    raise ModelUnknown(
        f"There is no readout {text!r}; behind a model's # may stand {', '.join(READOUTS)}, each also "
        f"with +{SCALED}, or {SCALED} alone. One that has to be fitted, as copies has, comes in a file: seer whiten."
    )
