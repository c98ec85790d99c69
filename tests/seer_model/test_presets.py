"""The recipes that have a name, each figure against the published one, and what a recipe may be changed to."""

import json
import math
from dataclasses import replace

import pytest

from seer_model.crops import CropKind
from seer_model.errors import SettingsError
from seer_model.presets import PRESETS, PretrainSettings, change_recipe, find_preset, read_settings

IMAGENET, A_BILLION = 1_281_167, 1_000_000_000


def describe_crops(name: str) -> list[tuple]:
    return [(kind.count, kind.side_px, kind.scale, kind.ratio) for kind in find_preset(name).crops]


def count_warmup_steps(name: str, pictures: int) -> float:
    recipe = find_preset(name)
    return recipe.optimizer.warmup_share * recipe.epochs * pictures / recipe.batch_size


# --- SwAV on ImageNet, 800 epochs --------------------------------------------------------------------------------


def test_swav_is_the_published_run():
    recipe = find_preset("swav")
    assert describe_crops("swav") == [(2, 224, (0.14, 1.0), (3 / 4, 4 / 3)), (6, 96, (0.05, 0.14), (3 / 4, 4 / 3))]
    # 2048-2048-128: the first is what the trunk puts out.
    assert (recipe.swav.projection, recipe.swav.projection_norms) == ((2048, 128), True)
    assert (recipe.swav.prototypes, recipe.swav.temperature, recipe.swav.epsilon) == (3000, 0.1, 0.05)
    assert (recipe.swav.sinkhorn_rounds, recipe.swav.assigned_crops, recipe.swav.queue) == (3, 2, 0)
    assert recipe.swav.frozen_steps == 313
    assert (recipe.batch_size, recipe.epochs) == (4096, 800)
    rates = recipe.optimizer
    assert (rates.rate, rates.warmup_start_rate, rates.final_rate) == (4.8, 0.3, 0.0048)
    assert (rates.schedule, rates.momentum, rates.weight_decay) == ("cosine", 0.9, 1e-6)
    assert count_warmup_steps("swav", IMAGENET) == pytest.approx(10 * IMAGENET / 4096)
    assert (recipe.precision, recipe.norm_group, recipe.recompute) == ("fp16", 8, False)


def test_swav_with_a_small_batch_has_a_queue_from_epoch_15_on():
    recipe = find_preset("swav-small-batch")
    assert (recipe.batch_size, recipe.epochs) == (256, 200)
    assert (recipe.swav.queue, recipe.swav.queue_start_step, recipe.swav.frozen_steps) == (3840, 15 * 5005, 5005)
    assert (recipe.optimizer.rate, recipe.optimizer.final_rate, recipe.optimizer.warmup_share) == (0.6, 0.0006, 0)
    assert (recipe.swav.projection, recipe.swav.prototypes) == ((2048, 128), 3000)


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith(("swav", "seer"))])
def test_published_runs_distort_crops_as_published(name: str):
    for kind in find_preset(name).crops:
        assert (kind.flip, kind.jitter, kind.strength, kind.grey) == (0.5, 0.8, 1.0, 0.2)
        assert (kind.blur, kind.blur_px) == (0.5, (0.1, 2.0))


# --- SEER --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "architecture", "width", "norms", "batch_size", "start_rate", "rate", "steps"),
    [
        # 32GF: its file is of step 244,000 of 244,140. 128GF: bs32 on 16 nodes of 8; a node's 256 begin at 0.3.
        ("seer-32gf", "32GF", 4096, True, 4096, 0.3, 4.8, 244_140),
        ("seer-64gf", "64GF", 8192, False, 8192, 0.15, 9.6, 122_070),
        ("seer-128gf", "128GF", 8192, False, 4096, 0.3, 4.8, 244_140),
        ("seer-256gf", "256GF", 8192, False, 8192, 0.15, 9.6, 122_070),
    ],
)
def test_seer_of_2021_is_the_published_run(
    name: str, architecture: str, width: int, norms: bool, batch_size: int, start_rate: float, rate: float, steps: int
):
    recipe = find_preset(name)
    assert recipe.architecture == architecture
    assert describe_crops(name) == [(2, 224, (0.14, 1.0), (3 / 4, 4 / 3)), (4, 96, (0.05, 0.14), (3 / 4, 4 / 3))]
    assert (recipe.swav.projection, recipe.swav.projection_norms) == ((width, width, 256), norms)
    assert (recipe.swav.prototypes, recipe.swav.temperature, recipe.swav.epsilon) == (16000, 0.1, 0.05)
    assert (recipe.swav.sinkhorn_rounds, recipe.swav.assigned_crops, recipe.swav.queue) == (10, 2, 0)
    assert recipe.swav.frozen_steps == 313
    assert (recipe.batch_size, recipe.epochs) == (batch_size, 1)
    assert A_BILLION // recipe.batch_size == steps
    assert count_warmup_steps(name, A_BILLION) == pytest.approx(8000)
    rates = recipe.optimizer
    assert (rates.rate, rates.warmup_start_rate) == (pytest.approx(rate), pytest.approx(start_rate))
    assert rates.final_rate == pytest.approx(rate / 1000)
    assert rates.schedule == ("constant" if name == "seer-128gf" else "cosine")
    assert (rates.momentum, rates.weight_decay) == (0.9, 1e-5)
    assert (recipe.precision, recipe.norm_group, recipe.recompute) == ("fp16", 64, True)


def test_seer_10b_is_the_published_run():
    recipe = find_preset("seer-10b")
    assert recipe.architecture == "10B"
    assert describe_crops("seer-10b") == [(2, 160, (0.14, 1.0), (3 / 4, 4 / 3)), (4, 96, (0.05, 0.14), (3 / 4, 4 / 3))]
    assert (recipe.swav.projection, recipe.swav.projection_norms) == ((8192, 8192, 256), False)
    assert (recipe.swav.prototypes, recipe.swav.temperature, recipe.swav.epsilon) == (16000, 0.1, 0.03)
    assert (recipe.swav.sinkhorn_rounds, recipe.swav.queue, recipe.swav.frozen_steps) == (10, 0, 313)
    assert (recipe.batch_size, recipe.epochs) == (16 * 496, 1)
    rates = recipe.optimizer
    assert (rates.rate, rates.warmup_start_rate, rates.final_rate) == (9.3, 0.15, 0.0093)
    assert (rates.schedule, rates.momentum, rates.weight_decay) == ("cosine", 0.9, 1e-5)
    assert count_warmup_steps("seer-10b", A_BILLION) == pytest.approx(5500, abs=1)
    assert (recipe.precision, recipe.norm_group, recipe.recompute) == ("fp16", 8, True)


# --- to JSON and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_survives_json(name: str):
    recipe = change_recipe(find_preset(name), seed=7, epochs=2.5)
    again = read_settings(json.loads(json.dumps(recipe.describe())))
    assert again == recipe
    assert again.describe() == recipe.describe()


def test_a_name_that_no_preset_has_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match=r"no preset 'huge'; allowed are .*swav, .*tiny"):
        find_preset("huge")


# --- changes -----------------------------------------------------------------------------------------------------


def test_another_batch_size_changes_all_rates_in_proportion_and_nothing_else():
    recipe = find_preset("swav")
    changed = change_recipe(recipe, batch_size=1024)
    rates = changed.optimizer
    assert (rates.rate, rates.warmup_start_rate, rates.final_rate) == pytest.approx((1.2, 0.075, 0.0012))
    assert replace(changed, batch_size=4096, optimizer=recipe.optimizer) == recipe
    assert replace(rates, rate=4.8, warmup_start_rate=0.3, final_rate=0.0048) == recipe.optimizer


def test_a_rate_that_is_given_is_the_peak_whatever_the_batch_and_the_others_keep_their_distance():
    for changed in (
        change_recipe(find_preset("swav"), rate=2.4),
        change_recipe(find_preset("swav"), rate=2.4, batch_size=64),
    ):
        rates = changed.optimizer
        assert (rates.rate, rates.warmup_start_rate, rates.final_rate) == pytest.approx((2.4, 0.15, 0.0024))


def test_nothing_given_is_nothing_changed_and_zero_is_something():
    recipe = replace(find_preset("tiny"), seed=3)
    assert change_recipe(recipe) == recipe
    assert change_recipe(recipe, seed=0).seed == 0
    changed = change_recipe(recipe, precision="bf16", epochs=0.5)
    assert (changed.precision, changed.epochs) == ("bf16", 0.5)


def test_published_recipes_fit_no_whitening_and_ours_do():
    ours = {name for name, recipe in PRESETS.items() if recipe.whitening_crops}
    assert ours == {"mini", "tiny", "cpu", "cpu-large"}


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_size": 0}, "batch_size 0 must be 2 or more"),
        ({"batch_size": 1}, "batch_size 1 must be 2 or more"),
        ({"epochs": 0}, "epochs 0 a number above 0"),
        ({"epochs": -1.0}, "epochs -1.0"),
        ({"epochs": math.nan}, "epochs nan"),
        ({"epochs": math.inf}, "epochs inf"),
        ({"rate": 0.0}, "must be above 0"),
        ({"rate": -1.0}, "rate -1.0 must be above 0"),
        ({"rate": math.nan}, "must be above 0"),
        ({"precision": "fp8"}, "'fp8'; allowed are fp32, bf16, fp16"),
        ({"seed": -1}, "seed -1 0 or more"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(wrong: dict, said: str):
    with pytest.raises(SettingsError, match=said.replace(".", r"\.")):
        change_recipe(find_preset("tiny"), **wrong)


ONE_CROP = (CropKind(count=1, side_px=64, scale=(0.2, 1.0)),)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"architecture": "ResNet-50"}, r"no architecture 'ResNet-50'; allowed are .*400MF"),
        ({"picture_px": 31}, "picture_px is 31; it must be 32 or more"),
        ({"norm_group": -1}, "norm_group -1"),
        ({"whitening_crops": -4}, "whitening_crops is -4; allowed are 0, or 4 or more"),
        ({"whitening_crops": 3}, "whitening_crops is 3"),
        ({"crops": ONE_CROP}, "2 assigned crops of 1: there must be 2 crops or more"),
        ({"crops": ()}, "2 assigned crops of 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict, said: str):
    with pytest.raises(SettingsError, match=said):
        replace(find_preset("tiny"), **wrong)


def test_more_crops_assigned_than_cut_are_refused():
    recipe = find_preset("tiny")
    with pytest.raises(SettingsError, match="5 assigned crops of 2"):
        replace(recipe, swav=replace(recipe.swav, assigned_crops=5))
    assert PretrainSettings(crops=ONE_CROP * 2).count_crops() == 2
