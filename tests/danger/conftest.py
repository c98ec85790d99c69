"""Fixtures of the tests of danger, and the lines that say at the end what was done and found."""

from collections.abc import Iterator

import pytest

from tests.danger.forked import Forker
from tests.danger.tally import COUNTED, TALLY
from tests.indexer.conftest import by_pixels, pictures, place  # noqa: F401 - fixtures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tally, if anything was counted."""
    if TALLY:
        terminalreporter.section("danger")
        for name in COUNTED:
            terminalreporter.write_line(f"{name}: {TALLY[name]:,}")


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Changes in processes of their own, with the pixel backbone."""
    with Forker(tmp_path_factory.mktemp("forker")) as forker:
        yield forker
