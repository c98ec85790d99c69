"""Danger: a build killed at any step loses nothing that was committed, and the next one ends as if undisturbed."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.catalog import Catalog
from indexer.collection import Collection
from indexer.errors import CollectionEmpty
from indexer.layout import CATALOG
from indexer.report import Watchers
from tests.indexer.killed_build import DIED
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")

STEPS = [
    ("walk recorded", 1, 0),
    ("store opened", 1, 0),
    ("batch embedded", 2, 4),
    ("thumbnails written", 2, 4),
    ("rows appended", 2, 4),
    ("batch recorded", 2, 8),
    ("generation written", 1, 9),
    ("generation renamed", 1, 9),
    ("generation published", 1, 9),
    ("old generations removed", 1, 9),
]
"""Step, how often it is done before the kill, and how many images must be committed by then."""


def test_the_steps_listed_here_are_all_there_are(place: Path, pictures: Path):
    told = []
    build(place, pictures, watchers=Watchers(on_step=told.append))
    assert set(told) == {step for step, _, _ in STEPS}


@pytest.mark.parametrize(("step", "times", "committed"), STEPS)
def test_a_build_killed_at_a_step_goes_on_and_ends_as_if_undisturbed(
    step: str, times: int, committed: int, place: Path, pictures: Path, tmp_path: Path
):
    kill(place, pictures, step, times)
    assert count_committed(place) == committed
    report = build(place, pictures)
    assert (report.embedded, report.images) == (9 - committed, 9)
    undisturbed = tmp_path / "undisturbed"
    build(undisturbed, pictures)
    for name in ("rows.f16", "norms.f32", "crc.u32"):
        assert read_store(place, name) == read_store(undisturbed, name), name
    assert answers(place, pictures) == answers(undisturbed, pictures)


@pytest.mark.parametrize(("step", "times"), [(step, times) for step, times, _ in STEPS])
def test_readers_answer_from_the_old_generation_after_a_kill(step: str, times: int, place: Path, pictures: Path):
    build(place, pictures)
    for seed in range(20, 29):
        draw(pictures / f"new-{seed}.png", seed)
    kill(place, pictures, step, times)
    for file, first in answers(place, pictures).items():
        assert first == file or file.startswith("new")


def test_a_kill_before_the_first_generation_leaves_a_collection_that_says_so(place: Path, pictures: Path):
    kill(place, pictures, "batch recorded", 1)
    with Collection(place) as collection:
        assert collection.read_status().pending == 5 + 4
        with pytest.raises(CollectionEmpty, match="seer build"):
            collection.find_similar((pictures / "a" / "picture-1.png").read_bytes())


def kill(place: Path, pictures: Path, step: str, times: int) -> None:
    command = [sys.executable, "-m", "tests.indexer.killed_build", str(place), str(pictures), step, str(times)]
    died = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert died.returncode == DIED, died.stderr


def count_committed(place: Path) -> int:
    catalog = Catalog(place / CATALOG)
    try:
        return catalog.count_rows(1)
    finally:
        catalog.close()


def read_store(place: Path, name: str) -> bytes:
    return (place / "stores" / "000001" / name).read_bytes()


def answers(place: Path, pictures: Path) -> dict[str, str]:
    """File name -> name of the first neighbour, asked with the bytes of each file."""
    with Collection(place) as collection:
        files = sorted(pictures.rglob("*.png"))
        return {file.name: collection.find_similar(file.read_bytes(), count=1)[0].path.name for file in files}
