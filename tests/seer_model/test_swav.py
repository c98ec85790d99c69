"""SwAV's parts: sharing out, the swap, the head and the queue, against the textbook written out."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seer_model.checkpoint import Checkpoint, drop_counters, read_checkpoint, write_checkpoint
from seer_model.errors import SettingsError
from seer_model.swav import Head, Queue, SwavSettings, assign, assign_crops, group_by_side, swapped_loss
from tests.seer_model import making_weights as making


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_scores(*shape: int, seed: int = 0) -> Tensor:
    """Cosines that are spread as those of a trained network may be."""
    return torch.randn(shape, generator=make_generator(seed)).mul(0.3).clamp(-1, 1)


# --- sharing out -------------------------------------------------------------------------------------------------


def share_out_by_the_book(scores: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Sinkhorn-Knopp in float64 as the paper has it: prototypes x crops, a whole of 1, no shift."""
    shares = torch.exp(scores.double() / epsilon).T
    shares = shares / shares.sum()
    prototypes, crops = shares.shape
    for _ in range(rounds):
        shares = shares / shares.sum(1, keepdim=True) / prototypes
        shares = shares / shares.sum(0, keepdim=True) / crops
    return shares.T * crops


@pytest.mark.parametrize("epsilon", [0.01, 0.03, 0.05, 0.3])
@pytest.mark.parametrize("rounds", [1, 3, 10])
@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (37, 300)])
def test_assignments_are_those_of_the_textbook(shape: tuple[int, int], rounds: int, epsilon: float):
    scores = draw_scores(*shape)
    expected = share_out_by_the_book(scores, epsilon, rounds)
    found = assign(scores, epsilon=epsilon, rounds=rounds)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    # The input can tell: without any sharing out it would be far away.
    assert (F.softmax(scores.double() / epsilon, 1) - expected).abs().max() > 0.01


def test_a_crowd_on_one_prototype_is_spread_over_all():
    scores = draw_scores(64, 16)
    scores[:, 0] += 2
    assert (scores.argmax(1) == 0).all(), "before: a share of 1.0"
    share = assign(scores, rounds=10).sum(0) / 64
    torch.testing.assert_close(share, torch.full((16,), 1 / 16), atol=0.02, rtol=0)


@pytest.mark.parametrize("epsilon", [0.03, 0.05])
@pytest.mark.parametrize("shape", [(64, 16), (32, 256)])
def test_each_crop_is_shared_out_whole_and_each_prototype_gets_its_part(shape: tuple[int, int], epsilon: float):
    crops, prototypes = shape
    shares = assign(draw_scores(crops, prototypes), epsilon=epsilon, rounds=100)
    torch.testing.assert_close(shares.sum(1), torch.ones(crops))
    torch.testing.assert_close(shares.sum(0), torch.full((prototypes,), crops / prototypes), rtol=0.02, atol=0)
    assert (shares >= 0).all()


def test_towards_an_epsilon_of_zero_every_crop_goes_to_one_prototype():
    scores = torch.rand(8, 8, generator=make_generator())
    shares = assign(scores, epsilon=0.005, rounds=100)
    assert (shares.max(1).values > 0.95).all()
    assert sorted(shares.argmax(1).tolist()) == list(range(8)), "each prototype is taken"


@pytest.mark.parametrize("value", [-1000.0, -1.0, 0.5, 1000.0])
def test_a_shift_of_all_scores_changes_nothing(value: float):
    scores = draw_scores(32, 12)
    torch.testing.assert_close(assign(scores + value), assign(scores), rtol=0, atol=5e-3 if abs(value) > 1 else 1e-5)


def extreme_scores() -> dict[str, Tensor]:
    alone, dead, mixed = torch.ones(64, 16), draw_scores(64, 16), torch.ones(64, 16)
    alone[0] = -1
    dead[:, 3] = -1
    dead[:, 5] = 1
    mixed[::2, ::2] = -1
    return {"one crop is far from all": alone, "a prototype is far from all": dead, "both ends": mixed}


@pytest.mark.parametrize("rounds", [1, 3, 10])
@pytest.mark.parametrize("scores", extreme_scores().values(), ids=extreme_scores())
def test_extreme_scores_neither_overflow_nor_vanish(scores: Tensor, rounds: int):
    found = assign(scores, epsilon=0.03, rounds=rounds)
    torch.testing.assert_close(found.sum(1), torch.ones(64))
    torch.testing.assert_close(found.double(), share_out_by_the_book(scores, 0.03, rounds), rtol=0, atol=1e-5)


def test_a_prototype_that_underflows_beside_the_others_is_given_its_part_too():
    # exp(-180) is nothing in float32.
    scores = torch.full((64, 16), 0.9)
    scores[:, 3] = -0.9
    share = assign(scores, epsilon=0.01, rounds=3).sum(0) / 64
    torch.testing.assert_close(share, torch.full((16,), 1 / 16))


def test_scores_in_half_precision_are_shared_out_in_full():
    scores = draw_scores(32, 12).half()
    torch.testing.assert_close(assign(scores, epsilon=0.03), assign(scores.float(), epsilon=0.03), rtol=0, atol=0)
    assert assign(scores).dtype == torch.float32


def test_assignments_are_targets_no_gradient_goes_through_them():
    scores = draw_scores(8, 4).requires_grad_()
    assert not assign(scores).requires_grad


def in_ranks(function: Callable[[Tensor, Callable, Callable], Tensor], parts: list[Tensor]) -> list[Tensor]:
    """Call a function for each part in a thread of its own; sum and maximum wait until all threads have come."""
    barrier, posted = threading.Barrier(len(parts), timeout=20), [None] * len(parts)

    def run(rank: int) -> Tensor:
        def reduce(how: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def over(tensor: Tensor) -> Tensor:
                posted[rank] = tensor
                barrier.wait()
                reduced = how(torch.stack(posted))
                barrier.wait()
                return reduced

            return over

        return function(parts[rank], reduce(lambda all_: all_.sum(0)), reduce(lambda all_: all_.amax(0)))

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(run, range(len(parts))))


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_ranks_share_out_as_one(ranks: int):
    scores = draw_scores(64, 24)
    # The ranks' own maxima differ by far: a shift by each one's own would show.
    scores[:16] = scores[:16].clamp(max=-0.4)
    found = in_ranks(
        lambda part, sum_over, max_over: assign(part, epsilon=0.03, rounds=5, sum_over=sum_over, max_over=max_over),
        list(scores.chunk(ranks)),
    )
    torch.testing.assert_close(torch.cat(found), assign(scores, epsilon=0.03, rounds=5), rtol=0, atol=1e-6)
    alone = torch.cat([assign(part, epsilon=0.03, rounds=5) for part in scores.chunk(ranks)])
    assert (alone - torch.cat(found)).abs().max() > 0.1


# --- the swap ----------------------------------------------------------------------------------------------------


def find_loss_by_the_book(scores: Tensor, assignments: Tensor, temperature: float) -> float:
    """The double loop over assigned crops and all others, picture by picture, in float64."""
    total = 0.0
    for assigned in range(len(assignments)):
        of_this_one = 0.0
        for other in range(len(scores)):
            if other == assigned:
                continue
            of_pair = 0.0
            for picture in range(scores.shape[1]):
                logits = scores[other, picture].double().numpy() / temperature
                guesses = logits - np.log(np.exp(logits).sum())
                of_pair -= float((assignments[assigned, picture].double().numpy() * guesses).sum())
            of_this_one += of_pair / scores.shape[1]
        total += of_this_one / (len(scores) - 1)
    return total / len(assignments)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize(("crops", "assigned"), [(2, 2), (6, 2), (4, 1), (3, 3)])
def test_the_loss_is_the_published_double_loop(crops: int, assigned: int, temperature: float):
    scores = draw_scores(crops, 8, 12)
    assignments = torch.stack([assign(scores[crop]) for crop in range(assigned)])
    found = swapped_loss(scores, assignments, temperature=temperature)
    assert float(found) == pytest.approx(find_loss_by_the_book(scores, assignments, temperature), rel=1e-5)


def test_no_crop_is_asked_for_its_own_assignment():
    scores = draw_scores(4, 8, 12).requires_grad_()
    assignments = torch.zeros(2, 8, 12)
    assignments[0] = assign(scores[0])
    swapped_loss(scores, assignments).backward()
    assert not scores.grad[0].any()
    assert all(scores.grad[crop].any() for crop in (1, 2, 3))


def test_a_crop_that_predicts_the_others_is_rewarded_one_that_predicts_itself_is_not():
    # Crop 0 of each picture goes to one half of the prototypes, crop 1 to the other.
    assignments = torch.zeros(2, 8, 8)
    assignments[0, range(8), [0, 1, 2, 3] * 2] = 1
    assignments[1, range(8), [4, 5, 6, 7] * 2] = 1
    assert float(swapped_loss(assignments.flip(0), assignments)) < 0.01
    assert float(swapped_loss(assignments, assignments)) > 5


@pytest.mark.parametrize("prototypes", [3000, 16000])
def test_a_blind_guess_costs_the_logarithm_of_the_number_of_prototypes(prototypes: int):
    assignments = F.softmax(draw_scores(2, 4, prototypes) * 20, dim=2)
    found = swapped_loss(torch.full((3, 4, prototypes), 0.2), assignments)
    assert float(found) == pytest.approx(math.log(prototypes), rel=1e-5)
    assert round(math.log(prototypes), 3) in (8.006, 9.680)


def test_the_loss_of_half_precision_scores_is_computed_in_full():
    scores = draw_scores(3, 8, 12).half()
    assignments = torch.stack([assign(scores[crop]) for crop in range(2)])
    assert swapped_loss(scores, assignments).dtype == torch.float32
    torch.testing.assert_close(swapped_loss(scores, assignments), swapped_loss(scores.float(), assignments))


# --- the head ----------------------------------------------------------------------------------------------------

SMALL = SwavSettings(projection=(24, 20, 8), prototypes=30)
WITHOUT_NORMS = SwavSettings(projection=(24, 20, 8), prototypes=30, projection_norms=False)


def make_head(settings: SwavSettings = SMALL, *, dimension: int = making.TINY.dimension, seed: int = 0) -> Head:
    return Head(dimension, settings, generator=make_generator(seed))


def list_layers(head: Head) -> dict[int, str]:
    return {number: type(layer).__name__ for number, layer in enumerate(head.projection)}


def test_layers_are_numbered_as_in_the_published_files():
    with_norms = {0: "Linear", 1: "BatchNorm1d", 2: "ReLU", 3: "Linear", 4: "BatchNorm1d", 5: "ReLU", 6: "Linear"}
    assert list_layers(make_head()) == with_norms
    assert list_layers(make_head(WITHOUT_NORMS)) == {0: "Linear", 1: "ReLU", 2: "Linear", 3: "ReLU", 4: "Linear"}
    assert list_layers(make_head(SwavSettings(projection=(8,), prototypes=30))) == {0: "Linear"}


def test_linears_have_biases_and_prototypes_have_none():
    shapes = {name: tuple(weight.shape) for name, weight in make_head(WITHOUT_NORMS).state_dict().items()}
    assert shapes == {
        "projection.0.weight": (24, 64),
        "projection.0.bias": (24,),
        "projection.2.weight": (20, 24),
        "projection.2.bias": (20,),
        "projection.4.weight": (8, 20),
        "projection.4.bias": (8,),
        "prototypes.0.weight": (30, 8),
    }


@pytest.mark.parametrize("settings", [SMALL, WITHOUT_NORMS])
@pytest.mark.parametrize("is_published", [False, True], ids=["our file", "a published file"])
def test_a_head_comes_back_from_a_file(settings: SwavSettings, is_published: bool, tmp_path):
    head, other = make_head(settings), make_head(settings, seed=1)
    trunk = making.make_checkpoint()
    saved = Checkpoint(
        architecture=trunk.architecture, trunk=trunk.trunk, heads=drop_counters(head.state_dict()), layout="made"
    )
    path = tmp_path / "weights"
    making.save_vissl(saved, path) if is_published else write_checkpoint(saved, path)
    loaded = read_checkpoint(path).heads
    assert loaded.keys() == drop_counters(head.state_dict()).keys()
    missing, unexpected = other.load_state_dict(loaded, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    pooled = torch.randn(6, 64, generator=make_generator(2))
    for ours, theirs in zip(other.eval()(pooled), head.eval()(pooled), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_scores_are_cosines_of_projections_and_prototypes():
    head = make_head()
    projections, scores, queued = head(torch.randn(16, 64, generator=make_generator()) * 50)
    assert queued is None
    torch.testing.assert_close(projections.norm(dim=1), torch.ones(16))
    prototypes = head.prototypes[0].weight
    expected = F.cosine_similarity(projections[:, None], prototypes[None], dim=2)
    torch.testing.assert_close(scores, expected)
    assert scores.abs().max() <= 1 + 1e-6


def test_prototypes_stay_of_length_1_when_they_are_normalised_after_a_step():
    head = make_head()
    torch.testing.assert_close(head.prototypes[0].weight.norm(dim=1), torch.ones(30))
    directions = head.prototypes[0].weight.detach().clone()
    with torch.no_grad():
        head.prototypes[0].weight.mul_(torch.linspace(0.1, 9, 30)[:, None])
    head.normalise_prototypes()
    torch.testing.assert_close(head.prototypes[0].weight.detach(), directions)
    assert head.prototypes[0].weight.requires_grad


def test_under_autocast_scores_are_as_exact_as_the_projections():
    head = make_head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projections, scores, queued = head(torch.randn(16, 64, generator=make_generator()), torch.ones(2, 5, 8))
    assert {projections.dtype, scores.dtype, queued.dtype} == {torch.float32}
    torch.testing.assert_close(scores, projections @ head.prototypes[0].weight.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(projections.norm(dim=1), torch.ones(16))


def test_all_of_the_head_learns_from_the_loss():
    head = make_head()
    pooled = torch.randn(3 * 8, 64, generator=make_generator()).requires_grad_()
    scores = head(pooled)[1].view(3, 8, -1)
    swapped_loss(scores, assign_crops(scores, SMALL)).backward()
    assert pooled.grad.any()
    # A bias before a normalisation has nothing to say.
    assert all(weight.grad.any() for name, weight in head.named_parameters() if not name.endswith("bias"))


def test_a_seed_is_a_head():
    same, other = make_head().state_dict(), make_head(seed=1).state_dict()
    torch.testing.assert_close(same, make_head().state_dict(), rtol=0, atol=0)
    assert not torch.equal(same["prototypes.0.weight"], other["prototypes.0.weight"])
    assert not torch.equal(same["projection.3.weight"], other["projection.3.weight"])


# --- the queue ---------------------------------------------------------------------------------------------------

QUEUED = SwavSettings(projection=(2,), prototypes=6, queue=6)


def make_batch(*numbers: int) -> Tensor:
    """(2, B, 2) projections; a number in the first place says which picture it is, one in the second which crop."""
    return torch.tensor([[[float(number), float(crop)] for number in numbers] for crop in range(2)])


def list_queued(queue: Queue) -> list[int]:
    assert queue.rows[0, : queue.filled, 1].eq(0).all() and queue.rows[1, : queue.filled, 1].eq(1).all()
    assert queue.rows[0, : queue.filled, 0].equal(queue.rows[1, : queue.filled, 0])
    return sorted(map(int, queue.rows[0, : queue.filled, 0]))


def test_the_oldest_leave_the_queue():
    queue = Queue(QUEUED, torch.device("cpu"))
    seen = []
    for batch in ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10)):
        queue.push(make_batch(*batch))
        seen.append((list_queued(queue), queue.is_full))
    assert seen == [
        ([1, 2], False),
        ([1, 2, 3, 4], False),
        ([1, 2, 3, 4, 5, 6], True),
        ([3, 4, 5, 6, 7, 8], True),
        ([5, 6, 7, 8, 9, 10], True),
    ]


def test_a_queue_that_no_batch_divides_drops_no_more_than_it_must():
    queue = Queue(QUEUED, torch.device("cpu"))
    for batch in ((1, 2, 3, 4), (5, 6, 7, 8)):
        queue.push(make_batch(*batch))
    found = list_queued(queue)
    assert len(found) == 6 and set(found) > {5, 6, 7, 8}


def test_a_batch_larger_than_the_queue_fills_it():
    queue = Queue(QUEUED, torch.device("cpu"))
    queue.push(make_batch(*range(10)))
    assert queue.is_full and len(set(list_queued(queue))) == 6


def test_no_queue_is_never_full():
    queue = Queue(SwavSettings(projection=(2,), prototypes=6), torch.device("cpu"))
    queue.push(make_batch(1, 2))
    assert not queue.is_full


def test_what_is_read_from_a_queue_half_full_fills_another_as_far():
    queue, again = Queue(QUEUED, torch.device("cpu")), Queue(QUEUED, torch.device("cpu"))
    queue.push(make_batch(1, 2))
    queue.push(make_batch(3, 4))
    again.push(queue.rows[:, : queue.filled].clone())
    assert again.filled == 4
    for one in (queue, again):
        one.push(make_batch(5, 6, 7))
    assert torch.equal(queue.rows, again.rows)


def test_no_gradient_goes_into_the_queue_nor_comes_out_of_it():
    head = make_head(SwavSettings(projection=(8,), prototypes=30, queue=4))
    queue = Queue(SwavSettings(projection=(8,), prototypes=30, queue=4), torch.device("cpu"))
    projections, _, _ = head(torch.randn(8, 64, generator=make_generator()))
    queue.push(projections.view(2, 4, 8))
    assert not queue.rows.requires_grad
    assert not head(torch.randn(8, 64), queue.rows)[2].requires_grad


def test_the_queue_takes_part_in_sharing_out_but_only_the_batch_is_assigned():
    settings = SwavSettings(projection=(8,), prototypes=6, queue=50, sinkhorn_rounds=10)
    scores, queued = draw_scores(4, 5, 6), draw_scores(2, 50, 6, seed=1)
    found = assign_crops(scores, settings, queued)
    assert found.shape == (2, 5, 6)
    for crop in range(2):
        together = share_out_by_the_book(torch.cat([scores[crop], queued[crop]]), 0.05, 10)
        torch.testing.assert_close(found[crop].double(), together[:5], rtol=0, atol=1e-5)
    assert (found - assign_crops(scores, settings)).abs().max() > 0.1


def test_each_assigned_crop_is_shared_out_on_its_own():
    settings = SwavSettings(projection=(8,), prototypes=6, assigned_crops=3, epsilon=0.03, sinkhorn_rounds=7)
    scores = draw_scores(5, 16, 6)
    found = assign_crops(scores, settings)
    assert len(found) == 3
    for crop in range(3):
        torch.testing.assert_close(found[crop], assign(scores[crop], epsilon=0.03, rounds=7), rtol=0, atol=0)


def test_assigning_crops_over_ranks_is_assigning_them_in_one():
    settings = SwavSettings(projection=(8,), prototypes=6, queue=10)
    scores, queued = draw_scores(2, 16, 6), draw_scores(2, 20, 6, seed=1)
    parts = [torch.cat([scores[:, :8], queued[:, :10]], 1), torch.cat([scores[:, 8:], queued[:, 10:]], 1)]
    found = in_ranks(
        lambda part, sum_over, max_over: assign_crops(
            part[:, :8], settings, part[:, 8:], sum_over=sum_over, max_over=max_over
        ),
        parts,
    )
    torch.testing.assert_close(torch.cat(found, 1), assign_crops(scores, settings, queued), rtol=0, atol=1e-6)


# --- groups ------------------------------------------------------------------------------------------------------


def test_neighbours_of_one_size_are_joined_and_the_order_is_kept():
    crops = [torch.full((2, 3, side, side), float(number)) for number, side in enumerate((16, 16, 8, 8, 8, 16))]
    groups = group_by_side(crops)
    assert [tuple(group.shape) for group in groups] == [(4, 3, 16, 16), (6, 3, 8, 8), (2, 3, 16, 16)]
    order = [float(picture.mean()) for group in groups for picture in group]
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_joined_crops_stay_in_the_memory_format_that_convolutions_want():
    crops = [torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    assert group_by_side(crops)[0].is_contiguous(memory_format=torch.channels_last)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"projection": ()},
        {"projection": (8, 0)},
        {"prototypes": 1},
        {"temperature": 0.0},
        {"epsilon": -0.05},
        {"sinkhorn_rounds": 0},
        {"assigned_crops": 0},
        {"queue": -1},
        {"queue_start_step": -1},
        {"frozen_steps": -1},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingsError, match="must"):
        SwavSettings(**wrong)
