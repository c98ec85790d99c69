"""What the tests of danger have done and found, counted as it happens and told at the end of the run.

Rule: a number here was counted by a test that did the thing, never written down.
"""

from collections import Counter

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
