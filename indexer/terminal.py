"""How a build and a training run look in a terminal: a bar with figures, or plain lines where nobody watches.

Rule: progress goes to stderr, so that stdout holds the answer alone; a line that is redrawn fits into 80 columns.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from indexer.report import Progress

if TYPE_CHECKING:
    from seer_model.vigil import Figures

PLAIN_SECONDS = 5.0


@contextmanager
def show_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield what a build may call as `on_progress`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),  # what is left of the line
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bar(bars)


class _Bar:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None, rate="", count="")
        self._stage, self._started = "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage, self._started = progress.stage, time.monotonic()
            self._bars.reset(self._task, total=progress.total)
        self._bars.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            description=show_stage(progress),
            count=show_done(progress),
            rate=show_rate(progress, time.monotonic() - self._started),
        )


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._started, self._last = "", time.monotonic(), 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        is_new, is_last = progress.stage != self._stage, progress.done == progress.total
        if is_new:
            self._stage, self._started = progress.stage, now
        if is_new or is_last or now - self._last >= PLAIN_SECONDS:
            self._last = now
            self._console.print(show_line(progress, now - self._started), markup=False, highlight=False)


@contextmanager
def show_learning() -> "Iterator[LearningLines]":
    """Yield what a training run tells its figures and messages; what it told last stays on the screen."""
    console = Console(stderr=True)
    if not console.is_interactive:
        yield LearningLines(console)
        return
    block = _LearningBlock(console)
    try:
        yield block
    finally:
        block.stop()


class LearningLines:
    """A line for each look at the figures."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_figures(self, figures: "Figures") -> None:
        """Show how the run is doing."""
        self.on_message(f"step {show_course(figures)}  {show_figures(figures)}")

    def on_message(self, message: str) -> None:
        """Show a sentence."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)


class _LearningBlock(LearningLines):
    """A bar and a line of figures, drawn again at each look. It begins with the first word of the run: of several
    processes those that tell nothing draw nothing."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # What else goes to stdout is not for the console of stderr.
        self._bars = _BarOverLine(
            BarColumn(bar_width=20), TextColumn("{task.description}"), console=console, redirect_stdout=False
        )
        self._task = self._bars.add_task("starting", total=None)

    def on_figures(self, figures: "Figures") -> None:
        self._bars.start()
        self._bars.line = Text(show_figures(figures), no_wrap=True, overflow="ellipsis")
        self._bars.update(
            self._task, completed=figures.step, total=figures.steps, description=show_course(figures), refresh=True
        )

    def on_message(self, message: str) -> None:
        self._bars.start()
        super().on_message(message)

    def stop(self) -> None:
        """Leave the last figures on the screen, and nothing if there are none."""
        self._bars.live.transient = self._bars.line is None
        self._bars.stop()


class _BarOverLine(Bars):
    line: Text | None = None

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.line is not None:
            yield self.line


def show_course(figures: "Figures") -> str:
    """How far a run is."""
    bad = f"  {figures.bad:,} bad" if figures.bad else ""
    left = f"  {show_duration(figures.remaining_seconds)} left" if figures.step < figures.steps else ""
    return f"{figures.step:,}/{figures.steps:,}  epoch {figures.epoch:.2f}{left}{bad}"


def show_figures(figures: "Figures") -> str:
    """How well a run is doing, and how fast."""
    waiting = f"device waits {figures.waiting_share:.0%}" if figures.waiting_share >= 0.01 else "pictures wait"
    return (
        f"loss {figures.loss:.3f} (blind {figures.blind_loss:.2f})  entropy {figures.entropy:.2f}  "
        f"rate {figures.rate:.3g}  {figures.images_per_second:.0f} images/s  {waiting}"
    )


def show_done(progress: Progress) -> str:
    """How many of how many, as far as it is known."""
    if progress.total is None:
        return f"{progress.done:,} files" if progress.done else ""
    return f"{progress.done:,}/{progress.total:,}"


def show_line(progress: Progress, seconds: float) -> str:
    """One line on how far a build is."""
    if progress.total is None:
        return f"{progress.stage} {show_done(progress)}".rstrip()
    left = (
        f", {show_duration(seconds / progress.done * (progress.total - progress.done))} left" if progress.done else ""
    )
    return " ".join(filter(None, (show_stage(progress), show_done(progress), show_rate(progress, seconds)))) + left


def show_stage(progress: Progress) -> str:
    """What is being done, and what that waits for."""
    return f"{progress.stage} ({progress.limit} limits)" if progress.limit else progress.stage


def show_rate(progress: Progress, seconds: float) -> str:
    """Files a second, and how many failed."""
    rate = f"{progress.done / seconds:.1f}/s" if progress.total and progress.done and seconds > 0 else ""
    return f"{rate}, {progress.failed} failed" if progress.failed else rate


def show_duration(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
