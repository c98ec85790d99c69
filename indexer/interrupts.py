"""Being asked to stop: Ctrl-C, or the SIGTERM of a system that shuts down.

Rule: the first asks, the second insists; what listened before listens again afterwards.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit status of a command that was asked to stop."""


@contextmanager
def watch_interrupt(sentence: str) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether a stop was asked for; the first request says `sentence`, the second stops at once.

    Raises: KeyboardInterrupt, in the body, at the second request. In a thread other than the main one nobody asks.
    """
    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print(f"\n{sentence}; once more to stop at once.", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
