"""Following picture folders: when something in them has changed, and it has been quiet for a moment.

The system's events tell of a change at once. Where they do not come (network disks, no watches left, a name that is no
text, on which the watching library gives up), the folders are looked through every so often; what lies behind a URL,
where each look is many questions, more rarely.

Rule: only when to look again is decided here; what has changed the build finds out.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from indexer.kinds import LIST, is_source, read_list, recognise
from indexer.sources import FoundFile, Walk
from indexer.urls import is_remote
from seer_model.errors import UserError

QUIET_SECONDS = 2.0
"""A change is told when nothing more has come for so long: somebody who copies a thousand pictures wants one build."""
POLL_SECONDS = 30.0
POLL_ELSEWHERE_SECONDS = 600.0
"""Between two looks behind URLs."""
TICK_SECONDS = 0.5

log = logging.getLogger(__name__)

Watched = tuple[list[Path], tuple[str, ...]]
"""Folders, and globs of what is passed over in them."""


def follow_changes(
    list_watched: Callable[[], Watched],
    *,
    should_stop: Callable[[], bool],
    seen: set[FoundFile] | None = None,
    quiet_seconds: float = QUIET_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> Generator[None, bool | None]:
    """Yield when to build: each time that something below the folders is not as it was seen last, and is quiet again.

    What changes while the caller is at work is told when it asks again; send False to be told the same again later.

    Args:
        list_watched: asked at every look, as another command may have added a folder.
        seen: what the caller knows of already (`look`); None: nothing, and it is told at once.
    """
    elsewhere = _Elsewhere()
    while not should_stop():
        folders, exclude = watched = list_watched()
        near = [folder for folder in folders if not _is_elsewhere(folder)]
        for _ in _list_moments(near, should_stop, quiet_seconds, poll_seconds):
            if should_stop():
                return
            if list_watched() != watched:
                break
            try:
                now = look(near, exclude) | elsewhere.look(set(folders) - set(near), exclude)
            except UserError as error:  # A list that is away for a moment; a build would say the same.
                log.warning("%s", error)
                continue
            if now != seen:
                is_done = yield
                seen = None if is_done is False else now


def look(folders: list[Path], exclude: tuple[str, ...]) -> set[FoundFile]:
    """Every file that could be a picture, with its stamp; a folder that is gone has none."""
    there = [folder for folder in folders if is_source(folder)]
    return set(Walk(there, exclude))


def _is_elsewhere(folder: Path) -> bool:
    """Whether a look is many questions: behind a URL, and where a list names one."""
    try:
        return is_remote(folder) or (recognise(folder) == LIST and any(map(is_remote, read_list(folder))))
    except (UserError, OSError):  # A disk that is away is looked for like any other.
        return False


class _Elsewhere:
    """What lies behind URLs, as it was when it was last looked at."""

    def __init__(self) -> None:
        self._asked: tuple[set[Path], tuple[str, ...]] | None = None
        self._seen: set[FoundFile] = set()
        self._looked = 0.0

    def look(self, folders: set[Path], exclude: tuple[str, ...]) -> set[FoundFile]:
        if self._asked != (folders, exclude) or time.monotonic() - self._looked >= POLL_ELSEWHERE_SECONDS:
            self._asked, self._looked = (folders, exclude), time.monotonic()
            self._seen = look(sorted(folders), exclude)
        return self._seen


def _list_moments(
    folders: list[Path], should_stop: Callable[[], bool], quiet_seconds: float, poll_seconds: float
) -> Iterator[None]:
    """When to look: after events, and every `poll_seconds` in any case."""
    yield None
    try:
        if folders:
            yield from _wait_for_events(folders, should_stop, quiet_seconds, poll_seconds)
    except (ImportError, RuntimeError, OSError, ValueError) as error:  # ValueError: a folder's own name is no text.
        log.warning("the system's events cannot be followed (%s); looking every %g s", error, poll_seconds)
        yield None
    while not should_stop():
        yield from _wait(poll_seconds, should_stop)


def _wait_for_events(
    folders: list[Path], should_stop: Callable[[], bool], quiet_seconds: float, poll_seconds: float
) -> Iterator[None]:
    stopped, is_changed = threading.Event(), False
    looked = changed = time.monotonic()
    import watchfiles  # Here, for a computer that only embeds or trains and has none.

    watching = watchfiles.watch(
        *folders,
        watch_filter=None,
        debounce=200,
        rust_timeout=round(TICK_SECONDS * 1000),
        yield_on_timeout=True,
        stop_event=stopped,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    for changes in watching:
        now = time.monotonic()
        if should_stop():
            stopped.set()
            return
        if changes:
            is_changed, changed = True, now
        if (is_changed and now - changed >= quiet_seconds) or now - looked >= poll_seconds:
            yield None
            is_changed, looked = False, time.monotonic()


def _wait(seconds: float, should_stop: Callable[[], bool]) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if should_stop():
            return
        time.sleep(min(TICK_SECONDS, seconds))
    yield None
