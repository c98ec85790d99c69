"""What the tests of danger have done and found, counted as it happens and told at the end of the run.

A plugin of pytest: where tests run in several processes (pytest-xdist), each hands its counts to the one that tells.

Rule: a number here was counted by a test that did the thing, never written down.
"""

from collections import Counter

import pytest

COUNTED = (
    "faults injected",
    "kills survived",
    "mutated pictures tried",
    "wrong answers",
    "files unaccounted for",
)
TALLY: Counter = Counter()


def add(name: str, count: int = 1) -> None:
    """Count something under one of the names in COUNTED."""
    if name not in COUNTED:
        raise ValueError(f"{name!r} is not counted; COUNTED is {COUNTED}.")
    TALLY[name] += count


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands over what it has counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["danger"] = dict(TALLY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add up; a worker that was killed has handed over nothing, and its tests have failed."""
    TALLY.update(getattr(node, "workeroutput", {}).get("danger", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tally, if anything was counted."""
    if TALLY:
        terminalreporter.section("danger")
        for name in COUNTED:
            terminalreporter.write_line(f"{name}: {TALLY[name]:,}")
