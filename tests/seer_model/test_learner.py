"""What one step changes, and whose weights the first step begins with."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seer_model.checkpoint import Checkpoint, read_checkpoint
from seer_model.crops import CropKind
from seer_model.errors import CheckpointError
from seer_model.learner import Learner, StepFigures, _split_batches, fit_group, has_heads, start_learner
from seer_model.presets import PretrainSettings
from seer_model.ranks import Ranks
from seer_model.swav import SwavSettings
from tests.device import DEVICE
from tests.seer_model import making_weights as making

ALONE = Ranks(device=torch.device(DEVICE))
RECIPE = PretrainSettings(
    architecture="200MF",
    crops=(CropKind(count=2, side_px=32, scale=(0.5, 1.0)), CropKind(count=1, side_px=16, scale=(0.1, 0.5))),
    swav=SwavSettings(projection=(6, 5), prototypes=7, frozen_steps=2),
    batch_size=8,
    picture_px=32,
)
CLASSIFIER = {"classifier.weight": torch.ones(3, making.TINY.dimension), "classifier.bias": torch.zeros(3)}


def draw_pictures(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator).to(DEVICE)


def take_step(learner: Learner, step: int, rate: float = 1.0) -> StepFigures:
    return learner.step(draw_pictures(step), torch.ones(8), step, rate)


def copy_state(learner: Learner) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in learner.student.state_dict().items()}


@pytest.fixture
def vissl(tmp_path) -> Checkpoint:
    """A model with heads, as VISSL saves it."""
    checkpoint = making.make_checkpoint(heads=making.make_projection_heads())
    return read_checkpoint(making.save_vissl(checkpoint, tmp_path / "v.torch"))


# --- where the first weights come from ---------------------------------------------------------------------------


def test_a_model_with_heads_goes_on_with_them(vissl):
    learner = start_learner(RECIPE, ALONE, source=vissl)
    found = learner.settings.swav
    assert (found.projection, found.prototypes, found.projection_norms) == ((8, 4), 10, True)
    assert found == replace(RECIPE.swav, projection=(8, 4), prototypes=10), "the rest is the recipe's"
    state = learner.student.state_dict()
    making.assert_same_weights({key: state[f"trunk.{key}"] for key in vissl.trunk}, vissl.trunk)
    projection = {key: weight for key, weight in vissl.heads.items() if key.startswith("projection.")}
    making.assert_same_weights({key: state[f"head.{key}"] for key in projection}, projection)
    prototypes = vissl.heads["prototypes.0.weight"].to(DEVICE)
    torch.testing.assert_close(state["head.prototypes.0.weight"], F.normalize(prototypes, dim=1))


def test_the_first_scores_are_cosines_with_the_prototypes_of_the_model(vissl):
    learner = start_learner(RECIPE, ALONE, source=vissl)
    heard = []
    learner.student.register_forward_hook(lambda module, given, answer: heard.append(answer))
    take_step(learner, 0)
    projections, scores, _ = heard[0]
    assert scores.shape == (24, 10)
    prototypes = vissl.heads["prototypes.0.weight"].to(DEVICE)
    torch.testing.assert_close(scores, F.cosine_similarity(projections[:, None], prototypes[None], dim=2))


def test_a_model_without_heads_gets_new_ones_by_the_seed():
    source = making.make_checkpoint()
    state = copy_state(start_learner(RECIPE, ALONE, source=source))
    making.assert_same_weights({key: state[f"trunk.{key}"] for key in source.trunk}, source.trunk)
    assert state["head.prototypes.0.weight"].shape == (7, 5)
    making.assert_same_weights(copy_state(start_learner(RECIPE, ALONE, source=source)), state)
    other = copy_state(start_learner(replace(RECIPE, seed=1), ALONE, source=source))
    assert not torch.equal(other["head.prototypes.0.weight"], state["head.prototypes.0.weight"])


@pytest.mark.parametrize("heads", [CLASSIFIER, CLASSIFIER | making.make_projection_heads()], ids=["alone", "beside"])
def test_a_classifier_is_dropped(heads):
    learner = start_learner(RECIPE, ALONE, source=making.make_checkpoint(heads=heads))
    saved = learner.read_checkpoint()
    assert has_heads(saved) and not [key for key in saved.heads if key.startswith("classifier")]
    assert len(saved.heads["prototypes.0.weight"]) == (7 if heads is CLASSIFIER else 10)


def test_several_sets_of_prototypes_are_refused():
    heads = making.make_projection_heads()
    heads |= {"prototypes.1.weight": heads["prototypes.0.weight"]}
    with pytest.raises(CheckpointError, match="several sets of prototypes"):
        start_learner(RECIPE, ALONE, source=making.make_checkpoint(heads=heads))


def test_what_a_learner_saves_another_takes_up_to_the_last_bit():
    learner = start_learner(RECIPE, ALONE, source=making.make_checkpoint())
    for step in range(4):
        take_step(learner, step)
    saved = learner.read_checkpoint()
    again = start_learner(RECIPE, ALONE, source=saved).read_checkpoint()
    making.assert_same_weights(again.trunk, saved.trunk)
    making.assert_same_weights(again.heads, saved.heads)


WITH_QUEUE = replace(RECIPE, swav=replace(RECIPE.swav, queue=30))
"""24 places, three batches."""


def test_a_queue_is_saved_batch_by_batch_and_any_number_of_ranks_takes_its_part():
    source = making.make_checkpoint()
    learner = start_learner(WITH_QUEUE, ALONE, source=source)
    for step in range(2):
        take_step(learner, step)
    memory = learner.read_memory()
    assert torch.equal(memory["queue"], learner.queue.rows[:, :16].cpu()), "alone as it always was"
    for count in (1, 2, 4):
        # No process is started: a rank that only loads its queue speaks to nobody.
        parts = [_split_batches(memory["queue"], count, 8 // count)[rank] for rank in range(count)]
        for step in range(2):
            share = 8 // count
            found = torch.cat([part[:, share * step : share * (step + 1)] for part in parts], 1)
            assert torch.equal(found, memory["queue"][:, 8 * step : 8 * (step + 1)])


def test_a_queue_of_which_only_the_first_ranks_part_was_saved_is_taken_in_whole_batches():
    parts = _split_batches(torch.arange(12.0).view(1, 12, 1), 2, 4)
    assert parts.flatten().tolist() == [*range(8)]


# --- a step ------------------------------------------------------------------------------------------------------


def test_a_step_changes_the_trunk_its_statistics_and_the_projection():
    learner = start_learner(RECIPE, ALONE)
    before = copy_state(learner)
    take_step(learner, 0)
    after = copy_state(learner)
    # Bringing the frozen prototypes to length 1 may turn their last bit.
    still = [key for key in before if torch.allclose(before[key], after[key], rtol=0, atol=1e-6)]
    assert still == ["head.prototypes.0.weight"]


def test_prototypes_are_frozen_at_first_and_of_length_1_afterwards():
    learner = start_learner(RECIPE, ALONE, source=making.make_checkpoint())
    weight = learner.student.head.prototypes[0].weight
    drawn = weight.detach().clone()
    for step in range(2):
        take_step(learner, step, rate=100.0)
        torch.testing.assert_close(weight.detach(), drawn, rtol=0, atol=1e-6)
    for step in range(2, 4):
        take_step(learner, step, rate=100.0)
        assert (weight - drawn).abs().max() > 1e-3
        torch.testing.assert_close(weight.norm(dim=1).cpu(), torch.ones(7))


def test_a_rate_of_0_moves_no_weight():
    learner = start_learner(RECIPE, ALONE, source=making.make_checkpoint())
    before = [parameter.detach().clone() for parameter in learner.student.trunk.parameters()]
    take_step(learner, 5, rate=0.0)
    assert all(map(torch.equal, before, learner.student.trunk.parameters()))


def test_crops_are_drawn_by_seed_and_step():
    def cut(recipe: PretrainSettings, step: int) -> list[Tensor]:
        return start_learner(recipe, ALONE, source=making.make_checkpoint())._cut(draw_pictures(), torch.ones(8), step)

    crops = cut(RECIPE, 3)
    assert [tuple(of_kind.shape) for of_kind in crops] == [(2 * 8, 3, 32, 32), (8, 3, 16, 16)]
    assert all(map(torch.equal, crops, cut(RECIPE, 3)))
    for other in (cut(RECIPE, 4), cut(replace(RECIPE, seed=1), 3)):
        assert not any(map(torch.equal, crops, other))
    assert not torch.equal(*crops[0].chunk(2))


def test_each_rank_cuts_its_part_of_the_batch():
    pictures, whole = draw_pictures(), start_learner(RECIPE, ALONE, source=making.make_checkpoint())
    expected = whole._cut(pictures, torch.ones(8), 3)
    for rank in range(2):
        whole.ranks, mine = replace(ALONE, rank=rank, count=2), slice(4 * rank, 4 * rank + 4)
        for of_kind, all_of_kind in zip(whole._cut(pictures[mine], torch.ones(4), 3), expected, strict=True):
            torch.testing.assert_close(of_kind, all_of_kind.unflatten(0, (-1, 8))[:, mine].flatten(0, 1))


def test_figures_are_the_first_choices_of_the_assigned_crops():
    figures = take_step(start_learner(RECIPE, ALONE, source=making.make_checkpoint()), 0)
    assert figures.loss.ndim == 0 and not figures.loss.requires_grad
    assert figures.choices.shape == (16,) and figures.choices.min() >= 0 and figures.choices.max() < 7


@pytest.mark.parametrize(
    ("wanted", "ranks", "fit"),
    [(0, 2, 2), (0, 1, 1), (8, 1, 1), (8, 2, 2), (8, 16, 8), (8, 12, 12), (2, 9, 3), (64, 512, 64), (4, 7, 7)],
)
def test_a_group_that_does_not_divide_the_ranks_becomes_the_next_larger_that_does(wanted: int, ranks: int, fit: int):
    assert fit_group(wanted, ranks) == fit
