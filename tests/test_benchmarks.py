"""The benchmarks: what ours is measured against does the same work, and the race is fair. No speed is asserted."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from benchmarks import adaptation
from benchmarks.race import Round, race, spread_ratio
from benchmarks.reference_crops import (
    Pictures,
    cut_crop,
    distort_colours,
    make_loader,
    require_shared_memory,
    to_tensor,
)
from benchmarks.reference_step import ReferenceStep
from benchmarks.training_step import main
from seer_model.checkpoint import write_checkpoint
from seer_model.crops import CHANCES, CropKind, cut_crops
from seer_model.errors import SettingsError
from seer_model.learner import Learner, start_learner
from seer_model.optimizer import OptimizerSettings
from seer_model.preprocess import PREPROCESSINGS
from seer_model.presets import PretrainSettings
from seer_model.ranks import Ranks
from seer_model.swav import SwavSettings
from tests.conftest import REPOSITORY
from tests.indexer.making import draw
from tests.seer_model import making_weights
from tests.seer_model.making_pictures import encode, make_scene

RATE = 0.05
CROPS = 2000
CPU = torch.device("cpu")
RECIPE = PretrainSettings(
    architecture="200MF",
    crops=(CropKind(count=2, side_px=64, scale=(0.5, 1.0)), CropKind(count=2, side_px=48, scale=(0.1, 0.5))),
    swav=SwavSettings(projection=(24, 16), prototypes=12, queue=32, frozen_steps=0),
    optimizer=OptimizerSettings(weight_decay=0.01),
    batch_size=16,
    picture_px=64,
)
STILL = CropKind(count=1, side_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0, jitter=0, grey=0, blur=0)


@pytest.fixture(autouse=True)
def same_chance() -> Iterator[None]:
    """Each test draws the same, and leaves chance as it was."""
    state = random.getstate()
    random.seed(0)
    yield
    random.setstate(state)


# --- the reference's step ----------------------------------------------------------------------------------------


def make_pair() -> tuple[Learner, ReferenceStep]:
    """Ours and the reference, with the same weights and the same full queue."""
    learner, step = start_learner(RECIPE, Ranks(device=CPU)), ReferenceStep(RECIPE, CPU)
    learner.queue.push(step.queue)
    step.trunk.load_state_dict(learner.student.trunk.state_dict())
    step.head.load_state_dict(learner.student.head.state_dict())
    return learner, step


def take_both(learner: Learner, step: ReferenceStep, number: int, layout: torch.memory_format) -> tuple[float, float]:
    """One step of each on the same crops; the two losses."""
    heard: list[Tensor] = []
    hook = learner.student.register_forward_pre_hook(lambda module, given: heard.extend(given[0]))
    pictures = torch.randint(
        0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(number)
    )
    ours = learner.step(pictures, torch.ones(16), number, RATE).loss
    hook.remove()
    crops = [crop.contiguous(memory_format=layout) for group in heard for crop in group.split(16)]
    return float(ours), float(step.step(crops, RATE))


def test_the_reference_as_it_is_measured_has_our_loss():
    ours, reference = take_both(*make_pair(), 0, torch.contiguous_format)
    assert reference == pytest.approx(ours, rel=1e-4)


def test_the_reference_learns_what_ours_learns_step_after_step():
    learner, step = make_pair()
    # In our layout: from the other's rounding each step makes a difference a hundred times larger.
    step.trunk.to(memory_format=torch.channels_last)
    ours = dict(learner.student.trunk.named_parameters()) | dict(learner.student.head.named_parameters())
    theirs = dict(step.trunk.named_parameters()) | dict(step.head.named_parameters())
    before = {name: weight.detach().clone() for name, weight in theirs.items()}
    for number in range(4):
        found, expected = take_both(learner, step, number, torch.channels_last)
        assert found == pytest.approx(expected, rel=1e-3)
    moved = {name: float((theirs[name] - before[name]).detach().norm()) for name in theirs}
    apart = {name: float((theirs[name] - ours[name]).detach().norm()) / moved[name] for name in theirs}
    assert max(apart.values()) < 0.1, max(apart, key=apart.get)


# --- the reference's crops ---------------------------------------------------------------------------------------


def cut_ours(picture: Image.Image, kind: CropKind, count: int) -> Tensor:
    """(count, 3, side, side) crops of a square picture, as the learner has them."""
    how = PREPROCESSINGS["vissl"]
    pixels = to_pixels(picture).repeat(count, 1, 1, 1)
    chances = torch.rand(count, CHANCES, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor(how.mean), torch.tensor(how.std)
    return cut_crops(pixels, torch.ones(count), chances, kind, mean=mean, std=std)


def to_pixels(picture: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(*picture.size, 3).permute(2, 0, 1)


def test_a_whole_picture_undistorted_is_the_same_crop_for_both():
    picture = make_scene(64, 64)
    found = to_tensor(cut_crop(picture, STILL))
    assert found.shape == (3, 32, 32) and found.is_contiguous()
    # One level of 255, over the smallest std.
    torch.testing.assert_close(found, cut_ours(picture, STILL, 1)[0], atol=1 / 255 / 0.22, rtol=0)


def make_detail() -> Image.Image:
    """A picture of fine and coarse detail: a scene under coloured grain."""
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return Image.blend(make_scene(64, 64), grain.resize((64, 64), Image.Resampling.BILINEAR), 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 0.5},
        {"jitter": 0.8},
        {"jitter": 1.0, "strength": 0.5},
        {"grey": 0.2},
        {"blur": 0.5},
        {"scale": (0.14, 1.0), "ratio": (3 / 4, 4 / 3)},
        {"scale": (0.05, 0.14), "ratio": (3 / 4, 4 / 3)},
    ],
    ids=str,
)
def test_both_change_a_picture_as_much(change: dict):
    picture, kind = make_detail(), replace(STILL, **change)
    still = cut_ours(picture, STILL, 1)
    ours = (cut_ours(picture, kind, CROPS) - still).abs().mean()
    theirs = (torch.stack([to_tensor(cut_crop(picture, kind)) for _ in range(CROPS)]) - still).abs().mean()
    assert ours > 0.01
    assert theirs == pytest.approx(float(ours), rel=0.1)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_reference_turns_hue_by_up_to_a_fifth_of_a_circle(strength: float):
    # Of one colour, so dark that nothing is clipped: only the hue's own turn changes its hue.
    picture = Image.new("RGB", (8, 8), (100, 40, 40))
    hues = [distort_colours(picture, strength).convert("HSV").getpixel((0, 0))[0] / 255 for _ in range(500)]
    turns = np.array([hue - round(hue) for hue in hues])
    assert turns.std() == pytest.approx(0.2 * strength / 3**0.5, rel=0.1)
    assert abs(turns.mean()) < 0.02 and np.abs(turns).max() < 0.2 * strength + 0.03


def test_decoded_and_encoded_pictures_give_the_same_crops_in_the_recipes_order():
    pictures = [make_scene(96, 64), make_scene(40, 80)]
    kinds = (replace(STILL, count=2), replace(STILL, side_px=16))
    encoded = Pictures([encode(one, "PNG") for one in pictures], kinds)
    decoded = Pictures([one.tobytes() for one in pictures], kinds, [one.size for one in pictures])
    for number in range(2):
        assert [crop.shape[-1] for crop in encoded[number]] == [32, 32, 16]
        for one, other in zip(encoded[number], decoded[number], strict=True):
            assert torch.equal(one, other)


def test_a_loader_gives_as_many_batches_as_are_asked_for_whatever_the_epoch():
    kinds = (replace(STILL, count=2),)
    pictures = Pictures([encode(make_scene(40, 40), "PNG")] * 3, kinds)
    batches = list(make_loader(pictures, 2, 5, 0, CPU))
    assert len(batches) == 5
    for batch in batches:
        assert [crop.shape for crop in batch] == [(2, 3, 32, 32)] * 2
        assert all(crop.is_contiguous() and crop.dtype == torch.float32 for crop in batch)


def test_workers_that_could_not_hand_over_their_batches_are_refused():
    with pytest.raises(SettingsError, match=r"--batch-size or fewer --workers"):
        require_shared_memory((STILL,), 10**9, 64)
    require_shared_memory((STILL,), 2, 1)


# --- the race ----------------------------------------------------------------------------------------------------


class Runner:
    """Takes as long as it is told."""

    def __init__(self, name: str, seconds: list[float], order: list[str]) -> None:
        self.name, self._seconds, self._order = name, iter(seconds), order

    def take_round(self, steps: int) -> Round:
        self._order.append(self.name)
        return Round(images=steps, seconds=next(self._seconds))


def test_contenders_take_turns_and_a_ratio_is_of_rounds_that_stood_side_by_side():
    order: list[str] = []
    # A machine that is ten times slower in the second round, and the first contender alone in the third.
    runners = Runner("a", [1, 10, 5], order), Runner("b", [2, 20, 1], order)
    found = race(runners, rounds=3, steps=4)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [one.rate for one in found["a"]] == [4, 0.4, 0.8]
    ratio = spread_ratio(found["a"], found["b"])
    assert (ratio.median, ratio.least, ratio.most) == (2, 0.2, 2)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(9):
        draw(tmp_path / f"{number}.png", number)
    return tmp_path


def measure(pictures: Path, *arguments: object) -> object:
    common = ("--preset", "tiny", "--device", "cpu", "--rounds", 1, "--steps", 1, "--workers", 1)
    return CliRunner().invoke(main, ["--pictures", str(pictures), *map(str, (*common, *arguments))])


def test_the_command_prints_both_rates_their_ratio_and_all_rounds(pictures: Path):
    done = measure(pictures, "--batch-size", 4, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert "8 pictures" in done.stderr, "whole batches alone"
    names = {"ours", "ours, first epoch", "reference", "reference, pictures decoded"}
    names |= {"network alone, ours", "network alone, reference"}
    assert set(report["rounds"]) == set(report["images_per_second"]) == names
    ours, reference = (report["rounds"][name][0] for name in ("ours", "reference"))
    assert ours["images"] == reference["images"] == 4 and report["rounds"]["ours, first epoch"][0]["images"] == 8
    ratio = report["ratios"]["ours / reference"]["median"]
    assert ratio == pytest.approx(ours["images_per_second"] / reference["images_per_second"])
    assert report["machine"]["cores"] >= 1 and report["recipe"]["batch_size"] == 4


def test_fewer_pictures_than_a_batch_are_refused(pictures: Path):
    refused = measure(pictures, "--batch-size", 16)
    assert refused.exit_code == 1 and "A batch has 16 pictures, and there are 9" in refused.stderr


def test_a_gpu_host_needs_little_more_than_torch():
    # In a process of its own: what other tests have imported does not count.
    absent = {"faiss", "streamlit", "torchvision", "sklearn", "matplotlib", "huggingface_hub", "filelock", "rich"}
    script = f"import sys, benchmarks.contenders, benchmarks.machine; print({absent} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "set()", done.stderr


# --- what adaptation gains ---------------------------------------------------------------------------------------


def test_the_difference_is_after_less_before_query_by_query():
    before, after = np.array([0.0, 1.0, 1.0, 0.0] * 50), np.array([1.0, 1.0, 1.0, 0.0] * 50)
    found = adaptation.compare("P@1", before, after)
    assert (found["before"], found["after"], found["difference"]) == (0.5, 0.75, 0.25)
    assert 0.15 < found["low"] < 0.25 < found["high"] < 0.35
    # Paired: what both have in common does not widen it.
    assert adaptation.compare("P@1", before, before + 0.1)["high"] == pytest.approx(0.1)
    assert "0.5000 -> 0.7500   +0.2500 (+0.1" in adaptation.show([found])


def test_two_models_are_compared_on_labelled_pictures(tmp_path):
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        draw(tmp_path / name, number)
    table = "".join(f"{name},{'ab'[number % 2]}\n" for number, name in enumerate(names))
    (tmp_path / "labels.csv").write_text(f"file,label\n{table}", encoding="utf-8")
    write_checkpoint(making_weights.make_checkpoint(), tmp_path / "m.safetensors")
    model = str(tmp_path / "m.safetensors")
    given = ["--before", model, "--after", model, "--labels", str(tmp_path / "labels.csv"), "--json"]
    done = CliRunner().invoke(adaptation.main, given)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["pictures"] == 6
    assert [(row["measure"], row["difference"]) for row in report["figures"]] == [("P@1", 0.0), ("mAP", 0.0)]
