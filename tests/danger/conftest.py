"""Fixtures of the tests of danger."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from indexer.decode import DecodedFile, DecodeSettings, DecodeTask, decode_file
from tests.danger.forked import Forker
from tests.indexer.conftest import approximate, by_pixels, pictures, place  # noqa: F401 - fixtures

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 512 << 20


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where that is possible: these tests wait for the disk thousands of times, and none is about a disk."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES):
        yield tmp_path_factory.mktemp("danger")
        return
    with tempfile.TemporaryDirectory(prefix="seer-danger-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class DecodeHere:
    """As `indexer.decode.DecodePool`, without processes: some tests build hundreds of times."""

    def __init__(self, settings: DecodeSettings, workers: int | None = None, total: int = 0) -> None:
        self._settings = settings

    def decode(self, tasks: Iterable[DecodeTask]) -> Iterator[DecodedFile]:
        """As the real one."""
        return (decode_file(task, self._settings) for task in tasks)

    def close(self) -> None:
        """As the real one."""


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of the test's own process decode there too."""
    monkeypatch.setattr("indexer.job.DecodePool", DecodeHere)


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Changes in processes of their own, with the pixel backbone."""
    with Forker(tmp_path_factory.mktemp("forker")) as forker:
        yield forker
