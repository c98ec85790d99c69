"""What a build tells while it runs and when it ends.

Rule: plain data; who shows it, and how, is not decided here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

NO_EMBEDDING = "The network gave no finite embedding for it; another model may."
"""The reason of a picture that was read, and of which the network made a row that is zero or not finite."""


@dataclass(frozen=True)
class Progress:
    """How far a build is: files read in this run, of all it has to read."""

    stage: str
    done: int = 0
    total: int | None = None
    failed: int = 0
    limit: str | None = None
    """What it mostly waits for, where that is known."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did. All but `embedded`, `images`, `unreadable`, `absent` and `shards` count files: found =
    unchanged + moved + failed + pending + those whose content was embedded."""

    found: int
    ignored: int
    unreadable: int
    """Files and folders that may not be looked at, so that nobody knows what they hold."""
    unreadable_because: str
    """Why not, of the first of them; empty where there is none."""
    absent: int
    """Files that a list names and that are not there."""
    shards: int
    """Tar shards that lie in folders; they count as ignored, too."""
    embedded: int
    unchanged: int
    moved: int
    """Whose content was known when they came to a new path, or to a new date: moved, copied, back, or touched."""
    removed: int
    failed: int
    pending: int
    images: int
    generation: str | None
    chosen: str | None
    """Which index answers, and why, in a line."""
    unmatched: tuple[str, ...]
    """Globs given with this build that nothing was passed over for."""
    is_stopped: bool
    seconds: float
    images_per_second: float

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer build --json` ends with."""
        values = asdict(self)
        del values["is_stopped"]
        return {"schema_version": 1, **values}


@dataclass
class Tally:
    """Counts of one run while it goes on."""

    read: int = 0
    embedded: int = 0
    failed: int = 0
    moved: Counter = field(default_factory=Counter)
    """Image -> files found at a new path."""


@dataclass(frozen=True, kw_only=True)
class Watchers:
    """Who is told what during a build; all may be left out."""

    on_progress: Callable[[Progress], None] = lambda progress: None
    on_step: Callable[[str], None] = lambda name: None
    """Is told each step by name once it is done, before the next begins."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each batch; True ends the run with that batch committed."""
