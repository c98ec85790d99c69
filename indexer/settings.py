"""What a person may choose about a build, checked once, saved in the manifest.

Rule: settings are frozen and keyword-only; a wrong one is refused before any work begins.
"""

import re
from dataclasses import asdict, dataclass

from seer_model.errors import SettingsError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = LOCAL, RAY = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How to turn folders into a collection.

    Raises: SettingsError when a value is outside its range.
    """

    model: str | None = None
    """A model's name, or the path of a checkpoint; None: the collection's own, `seer-mini` for a new one."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N`, or several: `cuda:0,1`, `cpu,cpu`."""
    batch_size: int | None = None
    """Pictures in one pass of the backbone, which are then recorded together. None: as fits the device; 32 or more."""
    precision: str = "auto"
    """`fp32`, `bf16` or `fp16`, of the network; `auto`: fp16 on a GPU, fp32 on a CPU."""
    is_compiled: bool = False
    """Let torch.compile make the network faster: minutes before the first picture."""
    workers: int | None = None
    """Decoding processes; None: one for each processor."""
    max_megapixels: float = 200.0
    """Larger pictures are listed as not searchable, before they are decoded."""
    max_seconds: float = 60.0
    """Pictures that take longer to read and decode are listed as not searchable."""
    thumbnail_px: int = 320
    """Side of the square that a thumbnail fits in."""
    exclude: tuple[str, ...] = ()
    """Globs on the path below its folder, or on the bare name: what they match is not looked at, in later builds too.
    None given: those that the collection has; an empty one, alone: none from now on."""
    recall: float | None = None
    """What an approximate index must reach. None: as the collection has it, 0.98 for a new one."""
    memory_bytes: int | None = None
    """What an index may take. None: as the collection has it; for a new one a quarter of the machine's memory, and no
    limit where its lists are mapped (`parts`)."""
    exact_ms: float | None = None
    """An exact answer that takes no longer is kept. None: as the collection has it, 20 for a new one."""
    limit: int | None = None
    """Embed at most this many files in this run; the rest stays pending."""
    retry_failed: bool = False
    """Try the files again that could not be read before."""
    accept_removals: bool = False
    """Believe a folder that has become empty."""
    engine: str = LOCAL
    """`local`, or `ray`: on the nodes of a Ray cluster."""
    address: str | None = None
    """Of the cluster; None: RAY_ADDRESS, or one that is started here."""
    outputs: str | None = None
    """Where the cluster's nodes leave what they have made: a folder that they share, or a URL. None: in the
    collection."""

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"auto|cpu(,cpu)*|cuda|cuda:\d+(,\d+)*", self.device) is not None,
            f"--device is {self.device}; allowed are auto, cpu, cuda, cuda:N, or several: cuda:0,1 or cpu,cpu.",
        )
        require(self.engine in ENGINES, f"--engine is {self.engine}; allowed are {', '.join(ENGINES)}.")
        is_spread = self.engine == RAY
        for name, value in (("address", self.address), ("outputs", self.outputs)):
            require(is_spread or value is None, f"--{name} is of --engine ray; give both, or neither.")
        require(
            not is_spread or self.device in ("auto", "cpu", "cuda"),
            f"--device is {self.device}; with --engine ray it is auto, cpu or cuda: each GPU of the cluster is used.",
        )
        allowed = ", ".join(PRECISIONS)
        require(self.precision in PRECISIONS, f"--precision is {self.precision}; allowed are {allowed}.")
        for name, value in (("batch_size", self.batch_size), ("workers", self.workers)):
            require(value is None or value >= 1, f"{name} is {value}; it must be 1 or more.")
        require(self.max_megapixels > 0, f"--max-megapixels is {self.max_megapixels:g}; it must be above 0.")
        require(self.max_seconds > 0, f"--max-seconds is {self.max_seconds:g}; it must be above 0.")
        require(16 <= self.thumbnail_px <= 2048, f"thumbnail_px is {self.thumbnail_px}; allowed are 16 to 2048.")
        recall, memory_bytes, exact_ms = self.recall, self.memory_bytes, self.exact_ms
        require(recall is None or 0 < recall <= 1, f"--recall is {recall}; allowed are above 0, up to 1.")
        require(memory_bytes is None or memory_bytes > 0, f"--memory is {memory_bytes} bytes; it must be above 0.")
        require(exact_ms is None or exact_ms >= 0, f"--exact-ms is {exact_ms}; it must be 0 or more.")
        require(self.limit is None or self.limit >= 0, f"--limit is {self.limit}; it must be 0 or more.")

    @property
    def devices(self) -> list[str]:
        """The devices one by one."""
        kind, colon, numbers = self.device.partition(":")
        return [f"{kind}:{number}" for number in numbers.split(",")] if colon else self.device.split(",")

    def describe(self) -> dict:
        """The settings as JSON-able values, for the manifest; who did the work is nothing that a reader asks."""
        return {name: value for name, value in asdict(self).items() if name not in ("engine", "address", "outputs")}


def require(condition: bool, sentence: str) -> None:
    """Raise SettingsError with this sentence unless the condition holds."""
    if not condition:
        raise SettingsError(sentence)
