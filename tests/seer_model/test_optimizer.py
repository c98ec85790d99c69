"""LARC against its formula, and the learning rate over a run."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from seer_model.errors import SettingsError
from seer_model.optimizer import Larc, OptimizerSettings, Plateau, find_rate

# --- LARC --------------------------------------------------------------------------------------------------------


def step_by_the_formula(parameter, gradient, velocity, *, rate, decay, momentum):
    """One step of LARC around SGD for one tensor, in float64; returns parameter and velocity."""
    length, steepness = np.linalg.norm(parameter), np.linalg.norm(gradient)
    if length != 0 and steepness != 0:
        trust = 0.001 * length / (steepness + decay * length + 1e-8)
        gradient = (gradient + decay * parameter) * trust
    velocity = gradient if velocity is None else momentum * velocity + gradient
    return parameter - rate * velocity, velocity


@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
def test_three_steps_with_momentum_are_those_of_the_formula(decay: float):
    generator = np.random.default_rng(0)
    starts = [generator.normal(size=(5, 4)) * 3, generator.normal(size=7) * 1e-3, generator.normal(size=(2, 3, 1, 1))]
    gradients = [[generator.normal(size=start.shape) * scale for start in starts] for scale in (1, 1e-4, 50)]
    parameters = [torch.nn.Parameter(torch.tensor(start, dtype=torch.float32)) for start in starts]
    optimizer = Larc(parameters, OptimizerSettings(rate=4.8, momentum=0.9, weight_decay=decay))
    expected, velocities = list(starts), [None] * 3
    for rate, of_one_step in zip((4.8, 300.0, 1.0), gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for place, gradient in enumerate(of_one_step):
            parameters[place].grad = torch.tensor(gradient, dtype=torch.float32)
            expected[place], velocities[place] = step_by_the_formula(
                expected[place], gradient, velocities[place], rate=rate, decay=decay, momentum=0.9
            )
        optimizer.step()
    for parameter, one in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), one, rtol=1e-5, atol=1e-6)


def take_one_step(start: list[float], gradient: list[float] | None, **settings) -> list[float]:
    parameter = torch.nn.Parameter(torch.tensor(start))
    parameter.grad = None if gradient is None else torch.tensor(gradient)
    Larc([parameter], OptimizerSettings(rate=2.0, **settings)).step()
    return parameter.tolist()


def test_the_length_of_a_step_depends_on_the_parameter_not_on_the_gradient():
    once = take_one_step([3.0, 4.0], [1.0, 0.0], weight_decay=0.0)
    assert once == pytest.approx([3.0 - 2.0 * 0.001 * 5.0, 4.0])
    assert take_one_step([3.0, 4.0], [1e4, 0.0], weight_decay=0.0) == pytest.approx(once)
    # Not clipped: a small gradient is stretched to the same length.
    assert take_one_step([3.0, 4.0], [1e-4, 0.0], weight_decay=0.0) == pytest.approx(once, rel=1e-3)


def test_a_gradient_of_zero_leaves_the_parameter_alone_decay_included():
    assert take_one_step([3.0, 4.0], [0.0, 0.0], weight_decay=0.5) == [3.0, 4.0]


def test_a_parameter_of_zero_takes_the_plain_step():
    assert take_one_step([0.0, 0.0], [1.0, -2.0], weight_decay=0.5) == [-2.0, 4.0]


def test_a_frozen_parameter_does_not_move_nor_gather_momentum():
    frozen, free = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = Larc([frozen, free], OptimizerSettings(rate=1.0, weight_decay=0.1))
    for _ in range(3):
        free.grad, frozen.grad = torch.ones(3), None
        optimizer.step()
    assert torch.equal(frozen, torch.ones(3))
    assert not torch.equal(free, torch.ones(3))
    assert frozen not in optimizer.state


def test_lengths_are_those_of_the_measure_given():
    # As for a tensor of which the other half lies on another rank.
    parameter = torch.nn.Parameter(torch.tensor([3.0, 0.0]))
    parameter.grad = torch.tensor([1.0, 0.0])
    Larc(
        [parameter],
        OptimizerSettings(rate=1.0, weight_decay=0.0),
        measure=lambda tensors: torch.stack([(tensor.square().sum() * 2).sqrt() for tensor in tensors]),
    ).step()
    assert parameter.tolist() == pytest.approx([3.0 - 0.001 * 3.0, 0.0])


# --- the rate ----------------------------------------------------------------------------------------------------

COSINE = OptimizerSettings(rate=4.8, warmup_start_rate=0.3, final_rate=0.0048, warmup_share=0.1)


def test_the_rate_begins_rises_in_a_line_peaks_and_ends_where_it_should():
    assert find_rate(0, 1000, COSINE) == 0.3
    assert find_rate(50, 1000, COSINE) == pytest.approx((0.3 + 4.8) / 2)
    assert find_rate(100, 1000, COSINE) == 4.8
    assert find_rate(99, 1000, COSINE) == pytest.approx(4.8 - 4.5 / 100)
    assert find_rate(999, 1000, COSINE) == pytest.approx(0.0048)


def test_between_peak_and_end_the_rate_is_half_a_cosine():
    # 1001 steps, 101 - 1 of them warm-up: step 550 is half way from 100 to 1000.
    assert find_rate(550, 1001, COSINE) == pytest.approx((4.8 + 0.0048) / 2)
    quarter = 0.0048 + (4.8 - 0.0048) * (1 + math.cos(math.pi / 4)) / 2
    assert find_rate(325, 1001, COSINE) == pytest.approx(quarter)


@pytest.mark.parametrize("steps", [2, 3, 10, 11, 157, 1000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_the_rate_rises_up_to_the_peak_and_falls_from_there(steps: int, share: float):
    settings = OptimizerSettings(rate=4.8, warmup_start_rate=0.3, final_rate=0.0048, warmup_share=share)
    rates = [find_rate(step, steps, settings) for step in range(steps)]
    peak = rates.index(max(rates))
    assert peak == round(share * steps)
    assert max(rates) == 4.8
    assert all(a < b for a, b in itertools.pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[peak:]))
    assert len(rates[peak:]) == 1 or rates[-1] == pytest.approx(0.0048)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.999])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_run_of_one_step_has_a_rate(share: float, schedule: str):
    settings = OptimizerSettings(warmup_share=share, schedule=schedule)
    assert find_rate(0, 1, settings) in (settings.rate, settings.warmup_start_rate)


def test_a_constant_rate_stays_after_its_warm_up():
    settings = OptimizerSettings(rate=2.0, warmup_start_rate=1.0, warmup_share=0.5, schedule="constant")
    assert [find_rate(step, 8, settings) for step in range(8)] == [1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 2.0, 2.0]


# --- the plateau -------------------------------------------------------------------------------------------------


def test_the_rate_is_halved_each_time_the_loss_stays_where_it_is():
    plateau = Plateau(10)
    factors = [plateau.update(5.0) for _ in range(40)]
    assert factors == [1.0] * 19 + [0.5] * 10 + [0.25] * 10 + [0.125]


def test_the_rate_stays_while_the_loss_falls_however_much_single_steps_differ():
    plateau = Plateau(500)
    noise = np.random.default_rng(0).normal(0, 0.3, 5000)
    assert {plateau.update(8 - step / 1000 + noise[step]) for step in range(5000)} == {1.0}


def test_noise_around_a_level_is_a_plateau():
    plateau = Plateau(50)
    for loss in 5 + np.random.default_rng(0).normal(0, 0.3, 1000):
        factor = plateau.update(loss)
    assert factor < 1 / 100


def test_a_loss_that_falls_again_keeps_the_rate_that_it_has_come_to():
    plateau = Plateau(5)
    for loss in [5.0] * 10 + [4.0] * 5 + [3.0] * 5:
        factor = plateau.update(loss)
    assert factor == 0.5


def test_what_counts_is_the_best_loss_so_far_not_the_one_before():
    plateau = Plateau(5)
    assert [plateau.update(loss) for loss in [4.0] * 5 + [6.0] * 5 + [5.0] * 5][-6::5] == [0.5, 0.25]


@pytest.mark.parametrize("cut", [0, 3, 10, 14, 25])
def test_a_plateau_taken_up_from_json_goes_on_as_if_nothing_had_been(cut: int):
    losses = [5.0] * 12 + [4.0] * 6 + [4.2] * 22
    whole, before, after = Plateau(10), Plateau(10), Plateau(10)
    expected = [whole.update(loss) for loss in losses]
    found = [before.update(loss) for loss in losses[:cut]]
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert found + [after.update(loss) for loss in losses[cut:]] == expected
    assert after.state_dict() == whole.state_dict()


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"rate": -1},
        {"rate": math.nan},
        {"rate": math.inf},
        {"final_rate": -1},
        {"warmup_start_rate": -0.1},
        {"weight_decay": -1e-6},
        {"warmup_share": 1.0},
        {"warmup_share": -0.1},
        {"momentum": 1.0},
        {"schedule": "linear"},
        {"plateau_steps": 0},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingsError, match=r"must|allowed"):
        OptimizerSettings(**wrong)
