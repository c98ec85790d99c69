"""Fixtures: pictures to build from, and the pixel backbone for tests that are not about the network."""

from pathlib import Path

import pytest

from tests.indexer import pixel_backbone
from tests.indexer.making import draw


@pytest.fixture
def by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed without torch."""
    pixel_backbone.install(monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with nine pictures in two subfolders."""
    folder = tmp_path / "pictures"
    for seed in range(9):
        draw(folder / ("a" if seed % 2 else "b") / f"picture-{seed}.png", seed)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the collection goes."""
    return tmp_path / "collection"
