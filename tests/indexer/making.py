"""Making pictures and collections for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from indexer.job import build_collection
from indexer.report import BuildReport
from indexer.settings import BuildSettings


def draw(path: Path, seed: int, **options: object) -> Path:
    """Save a picture of soft random colours; equal seeds give equal pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(20, 236, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(cells).resize((140, 120), Image.Resampling.BICUBIC).save(path, **options)
    return path


def build(place: Path, *pictures: Path, watchers=None, **settings: object) -> BuildReport:
    """One build with small batches and one worker."""
    chosen = BuildSettings(**{"batch_size": 4, "workers": 1, **settings})
    report = build_collection(place, list(pictures), chosen, watchers)
    accounted = report.unchanged + report.moved + report.failed + report.pending + report.embedded
    assert report.found == accounted, report
    return report


def draw_pile(folder: Path, count: int) -> Path:
    """A folder with so many pictures, called by their numbers. Returns: it."""
    for number in range(count):
        draw(folder / f"{number}.png", number)
    return folder
