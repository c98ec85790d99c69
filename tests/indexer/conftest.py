"""Fixtures: pictures to build from, and the pixel backbone for tests that are not about the network."""

from pathlib import Path

import pytest

from indexer import fitting
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw


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
def approximate(place: Path, pictures: Path, by_pixels: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection of 49 pictures that answers from an approximate index."""
    monkeypatch.setattr(fitting, "LEAST_ROWS", 16)
    for seed in range(100, 140):
        draw(pictures / f"more-{seed}.png", seed)
    assert build(place, pictures, exact_ms=0.0, batch_size=16).images == 49
    assert (place / "generations" / "000001" / "index.faiss").is_file()
    return place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the collection goes."""
    return tmp_path / "collection"
