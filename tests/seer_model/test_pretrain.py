"""A run that was stopped, killed or cut off goes on as if nothing had been; one that goes wrong stops and says so."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from seer_model import pretrain as pretraining
from seer_model.checkpoint import read_checkpoint
from seer_model.crops import CropKind
from seer_model.errors import PileError, SettingsError, TrainingError
from seer_model.learner import Learner
from seer_model.optimizer import OptimizerSettings
from seer_model.presets import PretrainSettings
from seer_model.pretrain import PretrainReport, RunOptions, RunWatchers, pretrain
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder
from seer_model.squares import Square
from seer_model.swav import SwavSettings
from tests.conftest import REPOSITORY
from tests.device import CHOSEN, DEVICE
from tests.seer_model import making_weights as making
from tests.seer_model.making_piles import MadePile
from tests.seer_model.two_ranks import run_in_two_ranks

ALONE = Ranks(device=torch.device(DEVICE))
RECIPE = PretrainSettings(
    architecture="200MF",
    crops=(CropKind(count=2, side_px=32, scale=(0.5, 1.0)),),
    swav=SwavSettings(projection=(16, 8), prototypes=12, frozen_steps=2),
    optimizer=OptimizerSettings(rate=0.5, warmup_start_rate=0.1, final_rate=0.01),
    batch_size=8,
    epochs=3,
    picture_px=32,
)
"""9 steps over 24 pictures."""
STEPS = 9
EASY = replace(
    RECIPE,
    crops=(replace(RECIPE.crops[0], scale=(0.8, 1.0), jitter=0, grey=0, blur=0),),
    optimizer=OptimizerSettings(rate=2.0, warmup_start_rate=2.0, final_rate=0.01),
)
"""Crops that agree within some 30 steps."""
CALM = replace(RECIPE, optimizer=OptimizerSettings(rate=0.01, warmup_start_rate=0.01, final_rate=0.01))
"""Steps that do not make much of rounding: normalisation over 16 crops of one pixel does."""
WITH_QUEUE = replace(RECIPE, swav=replace(RECIPE.swav, queue=20, queue_start_step=1))
ON_A_PLATEAU = replace(RECIPE, optimizer=replace(RECIPE.optimizer, schedule="constant", plateau_steps=2))
EACH_STEP = RunOptions(look_every_steps=1)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Patches(MadePile):
    """Each picture is a board of coloured fields, or all are the same grey."""

    def __init__(self, pictures: int = 24, *, is_grey: bool = False, name: str = "", bad: Collection[int] = ()) -> None:
        super().__init__(pictures, side_px=32, bad=bad)
        self.fingerprint += name
        self._is_grey = is_grey

    def _decode(self, number: int) -> Square | None:
        if super()._decode(number) is None:
            return None
        fields = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        return Square(np.full((32, 32, 3), 128, np.uint8) if self._is_grey else fields.repeat(8, 0).repeat(8, 1), 1.0)


def stop_after(steps: int) -> RunWatchers:
    seen = []
    return RunWatchers(should_stop=lambda: seen.append(1) or len(seen) >= steps)


def run(output: Path, recipe: PretrainSettings = RECIPE, pile: MadePile | None = None, **how: object) -> PretrainReport:
    return pretrain(pile or Patches(), output, recipe, how.pop("ranks", ALONE), **{"options": EACH_STEP} | how)


def read_losses(output: Path) -> list[float]:
    lines = RunFolder(output).read_log()
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def read_all(output: Path) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(output)
    return checkpoint.trunk | checkpoint.heads


def assert_same_run(one: Path, other: Path, tolerance: dict = CLOSE) -> None:
    assert len(read_losses(one)) == STEPS
    torch.testing.assert_close(read_losses(one), read_losses(other), **tolerance)
    torch.testing.assert_close(read_all(one), read_all(other), **tolerance)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps of a millisecond: threads wait for each other longer than they compute, and most where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run from the start to the end in one piece."""
    output = tmp_path_factory.mktemp("undisturbed") / "model.safetensors"
    run(output)
    return output


# --- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [RECIPE, WITH_QUEUE, ON_A_PLATEAU], ids=["plain", "queue", "plateau"])
def test_a_run_in_three_pieces_is_the_run_in_one(tmp_path, undisturbed, recipe):
    if recipe is not RECIPE:
        undisturbed = tmp_path / "one.safetensors"
        run(undisturbed, recipe)
    output = tmp_path / "pieces.safetensors"
    # The first piece ends in the first epoch, with the queue still filling, the second in the midst of the next.
    assert run(output, recipe, watchers=stop_after(2)).step == 2
    assert not output.exists()
    assert run(output, recipe, watchers=stop_after(3), resume=True).output is None
    report = run(output, recipe, resume=True)
    assert (report.step, report.steps, report.output) == (STEPS, STEPS, output)
    assert_same_run(output, undisturbed)


def test_pieces_by_the_clock_are_saved_and_add_up(tmp_path, undisturbed):
    output = tmp_path / "m.safetensors"
    first = run(output, options=replace(EACH_STEP, piece_seconds=0))
    assert first.step == 1 and first.output is None
    report = run(output, resume=True)
    assert report.step == STEPS and report.output == output
    assert_same_run(output, undisturbed)


def test_a_finished_run_taken_up_again_changes_nothing(tmp_path):
    output = tmp_path / "m.safetensors"
    run(output)
    seconds = RunFolder(output).load_newest().state["seconds"]
    losses, weights = read_losses(output), read_all(output)
    output.unlink()
    report = run(output, resume=True)
    assert report.step == STEPS and report.loss == pytest.approx(losses[-1], abs=1e-6)
    assert report.seconds >= seconds, "all pieces are counted"
    assert read_losses(output) == losses
    making.assert_same_weights(read_all(output), weights)


KILLED = """
import sys, time
from pathlib import Path
from seer_model.pretrain import RunOptions, RunWatchers
from tests.device import begin
from tests.seer_model.test_pretrain import run
def wait(figures):
    print(figures.step, flush=True)
    time.sleep(60 if figures.step == 5 else 0)
with begin():
    run(Path(sys.argv[1]), options=RunOptions(look_every_steps=1, save_every_seconds=0),
        watchers=RunWatchers(on_figures=wait))
"""


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path, undisturbed):
    output = tmp_path / "m.safetensors"
    # As many threads as here: sums in another order are another run.
    as_here = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, output], cwd=REPOSITORY, env=as_here, stdout=subprocess.PIPE, text=True
    ) as process:
        assert [int(process.stdout.readline()) for _ in range(5)] == [1, 2, 3, 4, 5]
        process.send_signal(signal.SIGKILL)
    # The fifth step is in the log, but not saved: it is done and told again.
    assert len(read_losses(output)) == 5 and RunFolder(output).load_newest().step == 4
    run(output, resume=True)
    assert_same_run(output, undisturbed)


def test_losses_are_measured_for_a_plateau_once_the_rate_is_level(tmp_path):
    optimizer = replace(RECIPE.optimizer, schedule="constant", plateau_steps=99, warmup_share=4 / 9)
    output = tmp_path / "m.safetensors"
    run(output, replace(RECIPE, optimizer=optimizer), watchers=stop_after(3))
    assert RunFolder(output).load_newest().state["plateau"]["losses"] == []
    run(output, replace(RECIPE, optimizer=optimizer), resume=True)
    losses = RunFolder(output).load_newest().state["plateau"]["losses"]
    assert losses == pytest.approx(read_losses(output)[4:], abs=1e-6)


def test_bad_pictures_are_counted_over_the_pieces_and_each_once(tmp_path):
    bad = (3, 8, 9, 20)
    output = tmp_path / "m.safetensors"
    run(output, pile=Patches(bad=bad), watchers=stop_after(3))  # one epoch: all of them have been met
    report = run(output, pile=Patches(bad=bad), resume=True)
    assert report.bad == 4
    told = [line["bad"] for line in RunFolder(output).read_log()]
    assert told == sorted(told) and told[2:] == [4] * 7
    assert run(output, pile=Patches(bad=bad), resume=True).bad == 4, "a finished run reads no picture"


def test_a_run_from_before_bad_pictures_were_saved_goes_on(tmp_path):
    output = tmp_path / "m.safetensors"
    run(output, watchers=stop_after(2))
    state = RunFolder(output).folder / "step-00000002" / "state.json"
    values = json.loads(state.read_text())
    assert values.pop("bad") == []
    state.write_text(json.dumps(values))
    assert run(output, resume=True).step == STEPS


def test_a_run_from_before_there_was_a_whitening_gets_the_one_of_its_recipe(tmp_path):
    output = tmp_path / "m.safetensors"
    run(output, watchers=stop_after(2), source=making.make_checkpoint())
    told = RunFolder(output).folder / "settings.json"
    values = json.loads(told.read_text())
    assert values["settings"].pop("whitening_crops") == 0
    told.write_text(json.dumps(values))
    assert run(output, replace(RECIPE, whitening_crops=30), resume=True, source=making.make_checkpoint()).step == STEPS
    assert read_checkpoint(output).heads["whitening.weight"].shape == (7, 112)


# --- another run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run that has come to step 1."""
    output = tmp_path_factory.mktemp("begun") / "model.safetensors"
    run(output, watchers=stop_after(1))
    return output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": replace(RECIPE, seed=1)}, r"seed \(0 then, 1 now\)"),
        ({"recipe": replace(RECIPE, epochs=4, batch_size=4)}, r"batch_size \(8 then, 4 now\), epochs \(3 then, 4 now"),
        ({"recipe": WITH_QUEUE}, r"swav \(.*'queue': 0.* then, .*'queue': 20.* now\)"),
        ({"pile": Patches(name=", others")}, "another run: pile differ"),
        ({"pile": Patches(32)}, "pile, pictures differ"),
        ({"origin": "seer-32gf"}, "origin differ"),
    ],
)
def test_another_run_is_not_gone_on_with_and_what_differs_is_named(begun, change, named):
    before = read_losses(begun)
    with pytest.raises(TrainingError, match=named):
        run(begun, resume=True, **change)
    assert read_losses(begun) == before and RunFolder(begun).load_newest().step == 1


def test_a_run_is_not_begun_over_another(begun):
    before = read_losses(begun)
    with pytest.raises(TrainingError, match="come to step 1. Add --resume"):
        run(begun)
    assert read_losses(begun) == before and RunFolder(begun).load_newest().step == 1


def test_a_run_whose_torchrun_starts_it_again_goes_on_and_another_torchruns_does_not(tmp_path):
    output, one = tmp_path / "m.safetensors", replace(ALONE, launch="shoes")
    run(output, ranks=one, watchers=stop_after(1))
    for other in (ALONE, replace(ALONE, launch="hats")):
        with pytest.raises(TrainingError, match="Add --resume"):
            run(output, ranks=other)
    assert run(output, ranks=one, watchers=stop_after(1)).step == 2
    with pytest.raises(TrainingError, match="seed"):
        run(output, replace(RECIPE, seed=1), ranks=one)
    assert run(output, ranks=ALONE, resume=True, watchers=stop_after(1)).step == 3


def test_a_run_without_a_name_is_nobodys(tmp_path):
    # Every torchrun that was given no name could have begun it.
    run(tmp_path / "m.safetensors", watchers=stop_after(1))
    with pytest.raises(TrainingError, match="Add --resume"):
        run(tmp_path / "m.safetensors")


def test_resume_without_a_run_begins_one(tmp_path):
    assert run(tmp_path / "m.safetensors", resume=True, watchers=stop_after(1)).step == 1


@pytest.mark.parametrize(
    ("pictures", "ranks", "said"), [(7, ALONE, "--batch-size 7 or less"), (24, replace(ALONE, count=3), "over 3 ranks")]
)
def test_a_batch_that_cannot_be_made_is_refused(tmp_path, pictures, ranks, said):
    with pytest.raises(SettingsError, match=said):
        run(tmp_path / "m.safetensors", pile=Patches(pictures), ranks=ranks)


# --- gone wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_grey", [True, False])
def test_pictures_all_alike_stop_the_run_and_others_do_not(tmp_path, monkeypatch, is_grey):
    monkeypatch.setattr(pretraining, "PATIENCE_STEPS", 20)
    recipe, options = replace(EASY, epochs=20), RunOptions(look_every_steps=2)  # 60 steps, 12 of them of grace
    output, told = tmp_path / "m.safetensors", []
    again = {"options": options, "watchers": RunWatchers(on_figures=told.append)}
    if not is_grey:
        assert run(output, recipe, **again).output == output
        return
    with pytest.raises(TrainingError, match="collapsed"):
        run(output, recipe, Patches(is_grey=True), **again)
    # Grace, patience, and a look at either end.
    assert told[-1].step <= 12 + 20 + 4
    assert not output.exists()


def poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A weight becomes NaN in the update after a step, numbered from 1."""
    update = Learner._update

    def poisoned(self: Learner, loss: Tensor, step: int, rate: float) -> None:
        update(self, loss, step, rate)
        if step + 1 == at:
            next(self.student.parameters()).data[0] = torch.nan

    monkeypatch.setattr(Learner, "_update", poisoned)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_slow_steps_are_told_and_saved_one_by_one_unless_the_rate_hangs_on_when(tmp_path, monkeypatch, schedule):
    monkeypatch.setattr(pretraining, "LOOK_SECONDS", 0.0)
    told, saved = [], []
    monkeypatch.setattr(RunFolder, "save", lambda _, step: saved.append(step.step))
    recipe = RECIPE if schedule == "cosine" else ON_A_PLATEAU
    options, watchers = RunOptions(look_every_steps=3, save_every_seconds=0), RunWatchers(on_figures=told.append)
    run(tmp_path / "m.safetensors", recipe, options=options, watchers=watchers)
    looks = range(1, STEPS + 1) if schedule == "cosine" else [*range(3, STEPS, 3), STEPS]
    assert [figures.step for figures in told] == [*looks]
    assert saved[: len(looks) - 1] == [*looks][:-1]


@pytest.mark.parametrize("at", [3, 4, STEPS])
def test_a_run_with_nan_in_its_weights_stops_and_saves_nothing_more(tmp_path, monkeypatch, at):
    # Looked at and saved after steps 2, 4, ...: of a weight that breaks in step 4 the loss of step 4 knows nothing.
    output = tmp_path / "m.safetensors"
    poison(monkeypatch, at)
    with pytest.raises(TrainingError, match="What was saved before is good"):
        run(output, options=RunOptions(look_every_steps=2, save_every_seconds=0))
    assert not output.exists()
    saved = RunFolder(output).load_newest()
    assert saved.step == (at - 1) // 2 * 2
    assert all(weight.isfinite().all() for weight in saved.checkpoint.trunk.values())


def test_an_interrupt_in_a_step_leaves_what_was_saved_and_ends_the_feed(tmp_path, undisturbed):
    output, pile = tmp_path / "m.safetensors", Patches()

    def interrupt(figures: object) -> None:
        if figures.step == 4:
            raise KeyboardInterrupt

    options = replace(EACH_STEP, save_every_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run(output, pile=pile, options=options, watchers=RunWatchers(on_figures=interrupt))
    assert RunFolder(output).load_newest().step == 3
    run(output, resume=True)
    assert_same_run(output, undisturbed)


# --- on several ranks --------------------------------------------------------------------------------------------


def run_pieces(ranks: Ranks, output: Path, is_sharded: bool, steps: tuple[int, ...]) -> list[int]:
    """In pieces; only one rank is told to stop."""
    options = replace(EACH_STEP, is_sharded=is_sharded)
    done = []
    for place, count in enumerate(steps):
        watchers = stop_after(count) if ranks.rank == ranks.count - 1 else RunWatchers()
        how = {"options": options, "watchers": watchers, "resume": place > 0, "source": making.make_checkpoint()}
        done.append(run(output, CALM, ranks=ranks, **how).step)
    return done


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("calm") / "model.safetensors"
    run_pieces(ALONE, output, False, (99,))
    return output


OF_THE_CPU = pytest.mark.skipif(CHOSEN == "cuda", reason="Ranks of the tests are the CPU's, and round otherwise.")
BOTH_LAYOUTS = pytest.mark.parametrize(
    "is_sharded", [pytest.param(False, id="replicated", marks=pytest.mark.long), pytest.param(True, id="sharded")]
)


@OF_THE_CPU
@BOTH_LAYOUTS
def test_two_ranks_in_pieces_are_one(tmp_path, calm, is_sharded):
    output = tmp_path / "m.safetensors"
    assert run_in_two_ranks(run_pieces, output, is_sharded, (4, 99)) == [[4, STEPS]] * 2
    assert_same_run(output, calm, {"rtol": 1e-4, "atol": 1e-4})
    # The last checkpoint, which is in parts, is the model: without any rank it is read whole.
    saved = RunFolder(output).load_newest()
    assert len(list(saved.parts.glob("*.safetensors"))) == 2
    making.assert_same_weights(read_all(saved.parts.parent), read_all(output))


CALM_WITH_QUEUE = replace(CALM, swav=WITH_QUEUE.swav)


def run_with_queue(
    ranks: Ranks, output: Path, is_sharded: bool, steps: tuple[int, ...], resume: bool = False
) -> None:
    how = {"options": replace(EACH_STEP, is_sharded=is_sharded), "source": making.make_checkpoint()}
    for place, count in enumerate(steps):
        run(output, CALM_WITH_QUEUE, ranks=ranks, watchers=stop_after(count), resume=resume or place > 0, **how)


@pytest.mark.long
@pytest.mark.parametrize(("first", "is_sharded"), [(1, False), (3, True)], ids=["filling", "full, sharded"])
def test_two_ranks_take_up_the_queues_of_both(tmp_path, first, is_sharded):
    whole, pieces, other = (tmp_path / f"{name}.safetensors" for name in ("whole", "pieces", "other"))
    run_in_two_ranks(run_with_queue, whole, is_sharded, (99,))
    run_in_two_ranks(run_with_queue, pieces, is_sharded, (first, 99))
    making.assert_same_weights(read_all(pieces), read_all(whole))
    assert read_losses(pieces) == read_losses(whole), "to the bit, with as many ranks"
    # One rank goes on with what two have left, two with what one has left, and those whole with what lay in parts.
    run_in_two_ranks(run_with_queue, other, is_sharded, (first,))
    run_with_queue(Ranks(device=torch.device("cpu")), other, False, (2,), resume=True)
    run_in_two_ranks(run_with_queue, other, is_sharded, (1,), resume=True)
    run_in_two_ranks(run_with_queue, other, not is_sharded, (99,), resume=True)
    # Sums in another order make 0.001 of the losses here; a quarter of the queue that is not what it was, 0.035.
    torch.testing.assert_close(read_losses(other), read_losses(whole), rtol=0, atol=5e-3)


def test_a_collapse_is_counted_over_the_pieces_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "PATIENCE_STEPS", 1000)
    output = tmp_path / "m.safetensors"
    run(output, options=RunOptions(look_every_steps=1), watchers=RunWatchers(should_stop=lambda: True))
    folder = RunFolder(output)
    saved = folder.load_newest()
    assert saved.state["collapsed_since"] is None
    seen = []
    monkeypatch.setattr(pretraining.Vigil, "look", lambda self, *_: seen.append(self.collapsed_since) or (1.0, 1.0))
    (folder.folder / f"step-{saved.step:08d}" / "state.json").write_text(
        json.dumps(saved.state | {"collapsed_since": 7}), encoding="utf-8"
    )
    run(output, resume=True)
    assert seen and set(seen) == {7}


def count_bad(ranks: Ranks, output: Path, pictures: int, bad: list[int]) -> int | str:
    recipe = replace(CALM, batch_size=40, epochs=1)
    try:
        return run(output, recipe, Patches(pictures, bad=bad), ranks=ranks).bad
    except PileError as error:
        return str(error)


def test_bad_pictures_are_counted_over_all_ranks(tmp_path):
    assert run_in_two_ranks(count_bad, tmp_path / "m.safetensors", 80, [1, 2, 3, 50, 60]) == [5, 5]
    assert RunFolder(tmp_path / "m.safetensors").read_log()[-1]["bad"] == 5


def test_a_pile_that_is_mostly_bad_is_refused_by_all_ranks_together(tmp_path):
    # Neither rank meets 200 bad pictures: each sees half of the pile.
    said = run_in_two_ranks(count_bad, tmp_path / "m.safetensors", 400, list(range(260)))
    assert all("of 400 pictures cannot be read. The first was" in text for text in said), said


def begin_apart(ranks: Ranks, outputs: list[Path], seeds: tuple[int, int]) -> str:
    try:
        run(outputs[ranks.rank], replace(CALM, seed=seeds[ranks.rank]), ranks=ranks)
    except TrainingError as error:
        return str(error)
    return "nothing was said"


def test_ranks_with_other_recipes_or_folders_do_not_begin(tmp_path):
    shared = [tmp_path / "m.safetensors"] * 2
    said = run_in_two_ranks(begin_apart, shared, (0, 1))
    assert all("Ranks 1 have another recipe" in one for one in said), said
    assert not RunFolder(shared[0]).folder.exists()
    said = run_in_two_ranks(begin_apart, [shared[0], tmp_path / "other" / "m.safetensors"], (0, 0))
    assert all("Not all ranks see" in one for one in said), said


# --- the last layer ----------------------------------------------------------------------------------------------


WHITENED = replace(CALM, whitening_crops=30)
"""More crops than pictures, and fewer than four for each number of an embedding."""


def read_whitening(output: Path) -> dict[str, Tensor]:
    return {key: weight for key, weight in read_checkpoint(output).heads.items() if key.startswith("whitening.")}


@pytest.fixture(scope="module")
def whitened(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whitened") / "m.safetensors"
    run(output, WHITENED, source=making.make_checkpoint())
    return output


def test_a_run_ends_with_the_whitening_that_its_recipe_asks_for(whitened, calm):
    assert {key: tuple(weight.shape) for key, weight in read_whitening(whitened).items()} == {
        "whitening.weight": (7, 112),
        "whitening.bias": (7,),
    }
    making.assert_same_weights(read_checkpoint(whitened).trunk, read_checkpoint(calm).trunk)
    assert not read_whitening(calm)


def test_a_run_that_is_stopped_while_it_whitens_goes_on_from_there(tmp_path, whitened):
    output = tmp_path / "m.safetensors"
    # It is asked after each step but the last, and before each batch that it whitens on.
    report = run(output, WHITENED, source=making.make_checkpoint(), watchers=stop_after(STEPS))
    assert (report.step, report.output) == (STEPS, None)
    assert not output.exists()
    assert run(output, WHITENED, resume=True).output == output
    making.assert_same_weights(read_all(output), read_all(whitened))


class Counted(Ranks):
    """Counts how often the first says that it is still at it."""

    def keep_waiting(self) -> None:
        told.append(self.rank)
        super().keep_waiting()


told: list[int] = []


def run_whitened(ranks: Ranks, output: Path, is_sharded: bool) -> tuple[str, list[int]]:
    told.clear()
    counted = Counted(device=ranks.device, rank=ranks.rank, count=ranks.count)
    options = replace(EACH_STEP, is_sharded=is_sharded)
    report = run(output, WHITENED, ranks=counted, options=options, source=making.make_checkpoint())
    return str(report.output), told


def read_metric(output: Path) -> Tensor:
    """W'W, which is what cosines depend on; a direction's sign is rounding's to choose."""
    weight = read_whitening(output)["whitening.weight"]
    return weight.T @ weight


@OF_THE_CPU
@BOTH_LAYOUTS
def test_of_two_ranks_the_first_one_whitens(tmp_path, whitened, is_sharded):
    output = tmp_path / "m.safetensors"
    (first, heard), other = run_in_two_ranks(run_whitened, output, is_sharded)
    assert first == str(output) and other == (str(output), [])
    assert heard and set(heard) == {0}, "or the other would lose its patience"
    metric = read_metric(whitened)
    assert (read_metric(output) - metric).norm() < 0.01 * metric.norm()


def test_a_whitening_that_the_run_began_with_is_fitted_anew_whatever_the_recipe_says(tmp_path, whitened, monkeypatch):
    monkeypatch.setattr(pretraining, "CROPS_TO_WHITEN", 20)
    output = tmp_path / "m.safetensors"
    run(output, CALM, source=read_checkpoint(whitened))
    assert read_whitening(output)["whitening.weight"].shape == (5, 112)


def test_pictures_that_are_gone_when_the_last_layer_is_fitted_lose_nothing(tmp_path, whitened):
    pile, output = Patches(), tmp_path / "m.safetensors"
    watchers = RunWatchers(on_message=lambda text: setattr(pile, "_bad", range(24)) if "fitting" in text else None)
    with pytest.raises(TrainingError, match="30 of 30 pictures cannot be read any more.*--resume fits the layer again"):
        run(output, WHITENED, pile, source=making.make_checkpoint(), watchers=watchers)
    assert not output.exists()
    run(output, WHITENED, source=making.make_checkpoint(), resume=True)
    making.assert_same_weights(read_all(output), read_all(whitened))


# --- half precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_learns_as_one_in_full_and_goes_on_after_a_stop(tmp_path, calm, precision):
    recipe, how = replace(CALM, precision=precision), {"source": making.make_checkpoint()}
    whole, pieces = tmp_path / "whole.safetensors", tmp_path / "pieces.safetensors"
    run(whole, recipe, **how)
    # Normalised over 16 crops of one pixel, the 8 bits of bf16 make up to 5 % of a loss.
    torch.testing.assert_close(read_losses(whole), read_losses(calm), rtol=0.1, atol=0)
    assert read_losses(whole) != read_losses(calm)
    run(pieces, recipe, watchers=stop_after(4), **how)
    assert (RunFolder(pieces).load_newest().state["scaler"] != {}) == (precision == "fp16")
    run(pieces, recipe, resume=True, **how)
    assert_same_run(pieces, whole)
    assert {weight.dtype for weight in read_all(whole).values()} == {torch.float32}
