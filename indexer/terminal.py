"""How a build looks in a terminal: a bar with rate and time left, or plain lines where nobody watches.

Rule: progress goes to stderr, so that stdout holds the answer alone.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from indexer.report import Progress

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
        BarColumn(bar_width=30),
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
            self._bars.reset(self._task, description=progress.stage, total=progress.total, rate="", count="")
        rate = show_rate(progress, time.monotonic() - self._started)
        self._bars.update(
            self._task, completed=progress.done, total=progress.total, rate=rate, count=show_done(progress)
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
    return f"{progress.stage} {show_done(progress)} {show_rate(progress, seconds)}{left}"


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
