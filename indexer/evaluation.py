"""What may be chosen about an evaluation, and what it found: plain data, and its JSON.

Rule: a figure is never without its interval, the number of its queries, and what it was measured on.
"""

import re
from dataclasses import asdict, dataclass, field

from indexer.settings import require

LABELS_FROM_FOLDERS = "folders"
BY_MODEL, BY_PIXELS = "model", "pixels 16 x 16"
"""What a figure's rows are: embeddings; or the reference, the pixels that the model sees averaged to 16 x 16."""
PRECISION_AT_1, PRECISION_AT_5, MEAN_AVERAGE_PRECISION = "P@1", "P@5", "mAP"
NEIGHBOUR_VOTE, LINEAR_PROBE, FEW_1, FEW_10 = "neighbour vote", "linear probe", "1 % of labels", "10 % of labels"
RECALL_AT_1 = "recall@1"
ALL_EDITS = "all edits"


@dataclass(frozen=True)
class SideRange:
    """Pictures whose short side has `least` to `most` pixels, both included; None: no bound."""

    least: int | None = None
    most: int | None = None

    def __contains__(self, short_side_px: int) -> bool:
        return (self.least or 0) <= short_side_px and (self.most is None or short_side_px <= self.most)

    def __str__(self) -> str:
        if self.least is None and self.most is None:
            return "any size"
        if self.most is None:
            return f"{self.least} px and more"
        return f"up to {self.most} px" if self.least is None else f"{self.least} to {self.most} px"


def read_side_range(text: str) -> SideRange:
    """What `128-`, `-64` and `64-127` mean.

    Raises: SettingsError.
    """
    found = re.fullmatch(r"(\d{0,9})-(\d{0,9})", text.strip())
    least, most = (int(number) if number else None for number in found.groups()) if found else (None, None)
    require(
        found is not None and (least, most) != (None, None) and (least or 0) <= (least or 0 if most is None else most),
        f"--distractors-px is {text!r}; allowed are LEAST-MOST, LEAST- and -MOST, in pixels of the short side.",
    )
    return SideRange(least, most)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How to measure a model on pictures.

    Raises: SettingsError when a value is outside its range.
    """

    model: str = "seer-mini"
    """A model's name, or the path of a checkpoint."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    batch_size: int = 16
    """Pictures in one pass of the backbone."""
    workers: int | None = None
    """Processes that read and edit pictures; None: one for each processor."""
    max_megapixels: float = 200.0
    """Larger pictures are left out, before they are decoded."""
    seed: int = 0
    """Of the draw of pictures, of the edits, the folds, the draws of few labels, and the intervals."""
    limit: int | None = None
    """Evaluate at most this many pictures, drawn at random."""
    copies: int = 1000
    """Make edited copies of at most this many of them, drawn at random; 0: no copy detection."""
    edits: tuple[str, ...] = ()
    """Kinds of edit ("crop") or single ones ("crop 60 %"); none: all."""
    distractor_sides: tuple[SideRange, ...] = ()
    """A crowd of distractors for each, with figures of its own; none: one crowd of all."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be 1 or more.")
        require(self.workers is None or self.workers >= 1, f"workers is {self.workers}; it must be 1 or more.")
        require(self.max_megapixels > 0, f"--max-megapixels is {self.max_megapixels:g}; it must be above 0.")
        require(self.seed >= 0, f"--seed is {self.seed}; it must be 0 or more.")
        require(self.limit is None or self.limit >= 2, f"--limit is {self.limit}; it must be 2 or more.")
        require(self.copies >= 0, f"--copies is {self.copies}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One mean over queries, with its 95 % bootstrap interval. Its definition stands in `indexer.metrics`."""

    measure: str
    rows: str
    """BY_MODEL or BY_PIXELS."""
    value: float
    low: float
    high: float
    queries: int
    edit: str | None = None
    """Of copy detection: the kind of edit, or ALL_EDITS."""
    strength: str | None = None
    crowd: str | None = None
    """Of copy detection: what the originals were searched among; see `Crowd`."""


@dataclass(frozen=True)
class Crowd:
    """What copies were searched in: the originals, and this many distractors."""

    name: str
    distractors: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A picture that could not be evaluated, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found."""

    model: dict
    """As the backbone describes itself."""
    pictures: int
    """That were embedded, and searched among."""
    edited: int
    """Of them, those that copies were made of."""
    same: int
    """Files left out because a picture of the same content stands before them."""
    labelled: int = 0
    labels: int = 0
    chance: float | None = None
    """P@1 if the order were left to chance."""
    crowds: tuple[Crowd, ...] = ()
    passed_over: int = 0
    """Distractors of other sizes than asked for, or with the content of an original."""
    figures: tuple[Figure, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of the figures, in sentences."""
    seconds: float = 0.0
    settings: EvaluateSettings = field(default_factory=EvaluateSettings)

    def list_figures(self, **values: object) -> list[Figure]:
        """The figures with these values, in order."""
        return [
            figure for figure in self.figures if all(getattr(figure, name) == value for name, value in values.items())
        ]

    def find_figure(self, **values: object) -> Figure | None:
        """The first figure with these values; None if there is none."""
        return next(iter(self.list_figures(**values)), None)

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer evaluate --json` prints."""
        return {"schema_version": 1, **asdict(self)}
