"""The vigil: runs that have gone wrong are stopped in time, healthy ones never."""

import math

import pytest
import torch

from seer_model.errors import TrainingError
from seer_model.vigil import Figures, Vigil, read_spread

K = 300
BLIND = math.log(K)
PATIENCE, GRACE, EVERY = 300, 400, 20


def make_vigil(prototypes: int = K) -> Vigil:
    return Vigil(prototypes, patience_steps=PATIENCE, grace_steps=GRACE)


def spread(choices: int = 5120, prototypes: int = K, *, used: int | None = None, seed: int = 0) -> torch.Tensor:
    """First choices spread by chance over some of the prototypes."""
    chosen = torch.randint(used or prototypes, (choices,), generator=torch.Generator().manual_seed(seed))
    return torch.bincount(chosen, minlength=prototypes).float()


def find_stop(vigil: Vigil, looks: list[tuple[float, torch.Tensor]], *, every: int = EVERY) -> tuple[int, str] | None:
    """The step at which the vigil stops a run that gives this loss and these choices at its looks; and what it says."""
    for number, (loss, counts) in enumerate(looks, 1):
        try:
            vigil.look(number * every, loss, counts)
        except TrainingError as error:
            return number * every, str(error)
    return None


# --- what is not finite ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_and_says_what_to_change(loss: float):
    with pytest.raises(TrainingError, match=r"became .* at step 20\..*--rate.*--precision"):
        make_vigil().look(20, loss, spread())


# --- collapse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [1, 2, 5])
@pytest.mark.parametrize("loss", [BLIND, 0.5])
def test_a_run_on_constant_pictures_stops_within_patience_and_one_look(used: int, loss: float):
    step, message = find_stop(make_vigil(), [(loss, spread(used=used))] * 100)
    assert step == EVERY + PATIENCE
    assert f"about {used} of {K} prototypes" in message
    assert f"{loss:.3f}" in message and f"{BLIND:.3f}" in message
    assert f"for {PATIENCE} steps up to step {step}" in message
    for advice in ("pictures", "fewer prototypes", "smaller epsilon", "larger batch", "lower rate"):
        assert advice in message


def test_a_healthy_run_that_collapses_stops_as_long_after():
    looks = [(6 - number / 50, spread(seed=number)) for number in range(50)] + [(3.0, spread(used=1))] * 50
    step, _ = find_stop(make_vigil(), looks)
    assert step == 50 * EVERY + EVERY + PATIENCE


def test_a_run_that_stays_blind_after_the_grace_stops():
    # The choices alone look healthy: noise spread over all prototypes.
    step, message = find_stop(make_vigil(), [(BLIND - 0.001, spread(seed=number)) for number in range(200)])
    assert step == GRACE + EVERY + PATIENCE
    assert f"{BLIND:.3f}" in message


def test_looks_far_apart_stop_at_the_first_look_after_the_patience():
    step, _ = find_stop(make_vigil(), [(BLIND, spread(used=1))] * 10, every=200)
    assert step == 200 + 400


# --- health ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prototypes", [2, 10, 300, 3000, 16000])
@pytest.mark.parametrize("choices", [64, 5120])
def test_a_healthy_run_is_never_stopped_also_with_a_blind_beginning(prototypes: int, choices: int):
    blind = math.log(prototypes)
    losses = [blind] * (GRACE // EVERY) + [blind * (0.98 - 0.5 * number / 200) for number in range(200)]
    looks = [(loss, spread(choices, prototypes, seed=number)) for number, loss in enumerate(losses)]
    assert find_stop(make_vigil(prototypes), looks) is None


def test_a_run_that_uses_a_tenth_of_its_prototypes_is_healthy():
    assert find_stop(make_vigil(), [(3.0, spread(used=30, seed=number)) for number in range(100)]) is None


def test_a_few_narrow_looks_are_forgiven_however_often():
    narrow, wide = (3.0, spread(used=1)), (3.0, spread())
    patient = PATIENCE // EVERY
    assert find_stop(make_vigil(), ([narrow] * patient + [wide]) * 10) is None
    assert find_stop(make_vigil(), [narrow] * (patient + 1)) is not None


def test_one_step_of_a_tiny_batch_is_not_taken_for_a_collapse():
    # Two pictures with two crops each; each picture's crops agree.
    counts = torch.zeros(K)
    counts[[3, 200]] = 2
    assert find_stop(make_vigil(), [(3.0, counts)] * 1000, every=1) is None


# --- figures -----------------------------------------------------------------------------------------------------


def test_the_spread_is_entropy_and_largest_share():
    assert read_spread(torch.tensor([4.0, 4, 4, 4])) == pytest.approx((math.log(4), 0.25))
    assert read_spread(torch.tensor([0.0, 8, 0])) == (0.0, 1.0)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert read_spread(torch.tensor([6.0, 2.0])) == pytest.approx((entropy, 0.75))
    assert read_spread(torch.zeros(5)) == (0.0, 0.0)


def test_a_look_gives_back_the_spread():
    counts = spread()
    assert make_vigil().look(20, 3.0, counts) == read_spread(counts)


def test_figures_become_a_line_of_the_log():
    figures = Figures(
        step=20,
        steps=1000,
        epoch=0.1,
        loss=5.123456789,
        blind_loss=BLIND,
        entropy=1.0,
        largest_share=0.1,
        rate=0.3,
        images_per_second=12.0,
        waiting_share=0.0,
        seconds=1.0,
        remaining_seconds=49.0,
        bad=3,
    )
    described = figures.describe()
    assert (described["step"], described["bad"], described["loss"]) == (20, 3, 5.123457)
    assert isinstance(described["step"], int)
