"""Kill and resume, round after round, on the 699 photos: the rows of each round end as those of an undisturbed build,
to the byte.

    pytest tests/danger/test_rounds.py --long -s -o faulthandler_timeout=0

200 rounds with the pixel backbone, minutes on two cores, and 20 with the bundled model, about an hour;
`SEER_ROUNDS=5,1` makes it 5 and 1.

A round begins with an empty collection, kills its build at a random moment, kills the one that goes on from there at
another, and lets the third come to its end.

Rule: moments follow from the seed and the round alone.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.danger.forked import Ended, Forker
from tests.danger.oracle import count_committed, list_files
from tests.danger.tally import add

SEED = 699
KILLED = 9
ROWS = ("rows.f16", "norms.f32", "crc.u32")


def count_rounds() -> tuple[int, int]:
    """With the pixel backbone, and with the real one."""
    pixels, real = os.environ.get("SEER_ROUNDS", "200,20").split(",")
    return int(pixels), int(real)


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["pixels", "real"])
def test_rounds_of_kill_and_resume_end_with_the_rows_of_an_undisturbed_build(
    backbone: str, photos_folder: Path, tmp_path: Path
):
    rounds = count_rounds()[backbone == "real"]
    chance = random.Random(f"{SEED} {backbone}")
    with Forker(tmp_path, backbone) as forker:
        undisturbed = tmp_path / "undisturbed"
        told = run(forker, undisturbed, photos_folder)
        assert told.told["embedded"] == len(list(photos_folder.glob("*.jpg"))), told
        rows = read_rows(undisturbed)
        print(f"seed {SEED}, {rounds} rounds, an undisturbed build takes {told.seconds:.1f} s", flush=True)
        for number in range(rounds):
            place = tmp_path / "round"
            kills = [kill(forker, place, photos_folder, chance.random() * told.seconds) for _ in range(2)]
            ended = run(forker, place, photos_folder).told
            assert (ended["images"], ended["failed"], ended["pending"]) == (told.told["images"], 0, 0)
            assert read_rows(place) == rows, f"round {number} ended with other rows"
            add("kills survived", sum(was_killed for was_killed, _ in kills))
            print(f"round {number}: committed when killed {[committed for _, committed in kills]}", flush=True)
            shutil.rmtree(place)


def run(forker: Forker, place: Path, photos: Path) -> Ended:
    return forker.run("build", place, photos, batch_size=16, workers=None)


def kill(forker: Forker, place: Path, photos: Path, moment: float) -> tuple[bool, int]:
    """Returns: whether the kill came before the end of the build, and what was committed by then."""
    change = forker.start("build", place, photos, batch_size=16, workers=None)
    time.sleep(moment)
    change.kill()
    was_killed = change.wait().signal == KILLED
    add("faults injected", was_killed)
    return was_killed, count_committed(place)


def read_rows(place: Path) -> dict[str, bytes]:
    """The files of the only store."""
    assert len(list((place / "stores").iterdir())) == 1
    return {file.name: file.read_bytes() for file in list_files(place / "stores") if file.name in ROWS}
