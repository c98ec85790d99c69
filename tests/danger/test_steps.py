"""Danger: a kill at each named step of a build, a prune, a repair and a change of model loses nothing, and the next
run ends as if undisturbed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import generations
from indexer.check import check_collection
from indexer.collection import Collection
from indexer.errors import CollectionEmpty
from indexer.report import Watchers
from indexer.upkeep import prune_collection
from tests.danger.forked import Forker
from tests.danger.oracle import count_committed, read_truth, require_equal, require_no_wrong
from tests.danger.tally import add
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

KILLED = 9
PUBLISHED = ("generation written", "generation renamed", "generation published", "old generations removed")
STEPS = [
    ("walk recorded", 1, 0),
    ("store opened", 1, 0),
    ("batch embedded", 2, 4),
    ("thumbnails written", 2, 4),
    ("rows appended", 2, 4),
    ("batch recorded", 2, 8),
    *((step, 1, 9) for step in PUBLISHED),
]
"""Step of a build, how often it is done before the kill, and how many images must be committed by then."""
PRUNED = ("living rows written", "store replaced", *PUBLISHED, "gone images forgotten", "thumbnails removed")
REPAIRED = (
    *("files", "living rows written", "store replaced", "stores", *PUBLISHED, "generations", "graphs", "thumbnails"),
)
OTHER = "regnety-400mf"


def test_the_steps_listed_here_are_all_there_are(place: Path, pictures: Path):
    told = []
    build(place, pictures, watchers=Watchers(on_step=told.append))
    assert set(told) == {step for step, _, _ in STEPS}
    remove_some(place, pictures)
    told.clear()
    prune_collection(place, on_step=told.append)
    assert tuple(told) == PRUNED
    damage(place, pictures)
    told.clear()
    check_collection(place, repair=True, on_step=told.append)
    assert tuple(dict.fromkeys(told)) == REPAIRED


# Builds


@pytest.mark.parametrize(("step", "times", "committed"), STEPS)
def test_a_build_killed_at_a_step_goes_on_and_ends_as_if_undisturbed(
    step: str, times: int, committed: int, forker: Forker, place: Path, pictures: Path, tmp_path: Path
):
    undisturbed = tmp_path / "undisturbed"
    build(undisturbed, pictures)
    truth = read_truth(undisturbed, pictures)
    die(forker, "build", place, pictures, step, times)
    assert count_committed(place) == committed
    require_no_wrong(place, truth, pictures)
    report = build(place, pictures)
    assert (report.embedded, report.images) == (9 - committed, 9)
    for name in ("rows.f16", "norms.f32", "crc.u32"):
        assert read_store(place, name) == read_store(undisturbed, name), name
    require_equal(place, truth, pictures)
    add("kills survived")


@pytest.mark.parametrize(("step", "times"), [(step, times) for step, times, _ in STEPS])
def test_readers_answer_from_the_old_generation_after_a_kill(
    step: str, times: int, forker: Forker, place: Path, pictures: Path, tmp_path: Path
):
    build(place, pictures)
    with Collection(place) as reader:
        known = next((pictures / "a").iterdir())
        reader.find_similar(known.read_bytes())
        for seed in range(20, 29):
            draw(pictures / f"new-{seed}.png", seed)
        build(tmp_path / "undisturbed", pictures)
        truth = read_truth(tmp_path / "undisturbed", pictures)
        die(forker, "build", place, pictures, step, times)
        require_no_wrong(place, truth, pictures)
        assert reader.find_similar(known.read_bytes())[0].path == known
    assert forker.run("build", place).told["images"] == 18
    require_equal(place, truth, pictures)
    add("kills survived")


def test_a_kill_before_the_first_generation_leaves_a_collection_that_says_so(
    forker: Forker, place: Path, pictures: Path
):
    die(forker, "build", place, pictures, "batch recorded", 1)
    with Collection(place) as collection:
        assert collection.read_status().pending == 5 + 4
        with pytest.raises(CollectionEmpty, match="seer build"):
            collection.find_similar((pictures / "a" / "picture-1.png").read_bytes())


@pytest.mark.parametrize(("step", "times"), [(step, times) for step, times, _ in STEPS])
def test_a_change_of_model_killed_at_a_step_answers_from_the_old_one_and_goes_on(
    step: str, times: int, forker: Forker, place: Path, pictures: Path
):
    build(place, pictures)
    truth = read_truth(place, pictures)
    die(forker, "build", place, pictures, step, times, model=OTHER)
    require_no_wrong(place, truth, pictures)
    told = forker.run("build", place, model=OTHER).told
    assert (told["images"], told["pending"]) == (9, 0)
    require_equal(place, truth, pictures)  # The pixels of both models are the same.
    manifest = generations.open_generation(place).manifest
    assert (manifest["settings"]["model"], manifest["rows"]) == (OTHER, 9)
    assert build(place).generation == told["generation"], "the model that was chosen last is the collection's"
    add("kills survived")


# Upkeep


def remove_some(place: Path, pictures: Path) -> None:
    """Four pictures, the first rows, go."""
    shutil.rmtree(pictures / "a")
    build(place)


def damage(place: Path, pictures: Path) -> None:
    """A row of the newest store, a generation, and all thumbnails."""
    rows = max((place / "stores").iterdir()) / "rows.f16"
    for file in (rows, max((place / "generations").iterdir()) / "image_ids.npy"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)
    (place / "thumbnails.sqlite").unlink()


@pytest.mark.parametrize(
    ("kind", "prepare", "step"),
    [*(("prune", remove_some, step) for step in PRUNED), *(("repair", damage, step) for step in REPAIRED)],
)
def test_upkeep_killed_at_a_step_loses_nothing_and_runs_to_its_end_again(
    kind: str, prepare: Callable, step: str, forker: Forker, place: Path, pictures: Path, tmp_path: Path
):
    build(place, pictures)
    prepare(place, pictures)
    build(tmp_path / "undisturbed", pictures)
    truth = read_truth(tmp_path / "undisturbed", pictures)
    die(forker, kind, place, pictures, step, 1)
    require_no_wrong(place, truth, pictures, is_damaged=kind == "repair")
    told = forker.run(kind, place).told
    assert "raised" not in told, told
    report = build(place)
    assert report.embedded == (0 if kind == "prune" else 1)
    require_equal(place, truth, pictures)
    assert check_collection(place).is_sound
    add("kills survived")


def die(forker: Forker, kind: str, place: Path, pictures: Path, step: str, times: int, **settings: object) -> None:
    given = (pictures,) if kind == "build" else ()
    ended = forker.start(kind, place, *given, die_at=(step, times), **settings).wait()
    assert ended.signal == KILLED, ended
    add("faults injected")


def read_store(place: Path, name: str) -> bytes:
    return (place / "stores" / "000001" / name).read_bytes()
