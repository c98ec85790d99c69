"""`kill -9` at any moment of a build: what was committed stays, nothing wrong is answered, the next build ends it."""

import random
import time
from pathlib import Path

import pytest

from tests.danger.forked import Ended, Forker
from tests.danger.oracle import Truth, count_committed, read_truth, require_equal, require_no_wrong
from tests.danger.tally import add
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

SEED = 20
KILLS, LONG_KILLS = 50, 300
PICTURES = 40
KILLED = 9


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty pictures, one of them twice, and two files that are none."""
    folder = tmp_path / "many"
    for seed in range(PICTURES):
        draw(folder / f"{seed % 4}" / f"{seed}.png", seed)
    (folder / "copy.png").write_bytes((folder / "0" / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (folder / "empty.png").touch()
    return folder


def test_a_build_killed_at_random_moments_ends_as_if_undisturbed(
    forker: Forker, many: Path, tmp_path: Path, pytestconfig: pytest.Config
):
    kills = LONG_KILLS if pytestconfig.getoption("--long") else KILLS
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    undisturbed = tmp_path / "undisturbed"
    forker.run("build", undisturbed, many)
    length = forker.run("build", tmp_path / "timed", many).seconds
    truth = read_truth(undisturbed, many)
    died = 0
    for number in range(kills):
        # One in each equal part of the build's time, so that its ends are not left out.
        moment, group = length * (number + chance.random()) / kills, chance.random() < 0.5
        ended = kill_and_resume(forker, tmp_path / f"killed-{number}", many, truth, moment, group)
        died += ended.signal == KILLED
        if not ended.signal:
            length = min(length, ended.seconds)  # The computer had been busier when it was measured.
    assert died >= kills * 2 // 3, "most of the builds had ended before they were killed"


def kill_and_resume(forker: Forker, place: Path, pictures: Path, truth: Truth, moment: float, group: bool) -> Ended:
    """Returns: how the build ended that was to be killed; it may have been faster."""
    change = forker.start("build", place, pictures)
    time.sleep(moment)
    change.kill(group=group)
    ended = change.wait()
    was_killed = ended.signal == KILLED
    add("faults injected", was_killed)
    require_no_wrong(place, truth, pictures)
    committed = count_committed(place)
    told = forker.run("build", place, pictures).told
    assert told.get("embedded") == PICTURES - committed, (moment, group, told)
    require_equal(place, truth, pictures)
    add("kills survived", was_killed)
    return ended


def test_builds_killed_again_and_again_still_come_to_an_end(forker: Forker, many: Path, tmp_path: Path):
    build(tmp_path / "undisturbed", many)
    truth, place = read_truth(tmp_path / "undisturbed", many), tmp_path / "place"
    for step in ("rows appended", "batch recorded", "batch embedded", "thumbnails written") * 3:
        assert forker.run("build", place, many, die_at=(step, 1)).signal == KILLED
        require_no_wrong(place, truth, many)
        add("faults injected")
    assert forker.run("build", place, many).told["images"] == PICTURES
    require_equal(place, truth, many)
    add("kills survived", 12)
