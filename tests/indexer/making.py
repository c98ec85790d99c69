"""Making pictures and collections for tests."""

from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from indexer.job import build_collection
from indexer.report import BuildReport
from indexer.settings import BuildSettings


def draw(path: Path, seed: int, **options: object) -> Path:
    """Save a picture of soft random colours; equal seeds give equal pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if options:
        _draw(seed).save(path, **options)
    else:
        path.write_bytes(_encode(seed, path.suffix.lower()))
    return path


@lru_cache(maxsize=1000)
def _encode(seed: int, suffix: str) -> bytes:
    # A tenth of what the tests of builds take would go into compressing the same pictures.
    stream = BytesIO()
    _draw(seed).save(stream, Image.registered_extensions()[suffix])
    return stream.getvalue()


def _draw(seed: int) -> Image.Image:
    cells = np.random.default_rng(seed).integers(20, 236, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((140, 120), Image.Resampling.BICUBIC)


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
