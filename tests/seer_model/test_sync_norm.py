"""Batch normalisation over two ranks is that of one rank over both batches; on CUDA it is torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from seer_model.ranks import Ranks
from seer_model.regnet import Architecture, RegNet
from seer_model.sync_norm import SyncNorm1d, SyncNorm2d, measure_together, synchronise_norms
from tests.seer_model.two_ranks import run_in_two_ranks

CHANNELS = 6
BATCHES = {"even": (4, 4), "uneven": (3, 5), "one row": (1, 1), "empty": (0, 7)}


def draw(*shape: int, seed: int, **options) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **options)


def make_norm(kind: type[nn.Module] = nn.BatchNorm2d, **options) -> nn.Module:
    norm = kind(CHANNELS, **options)
    for seed, parameter in enumerate(norm.parameters()):
        parameter.data = 1 + draw(CHANNELS, seed=seed) / 3
    return norm


def take_steps(norm: nn.Module, batches: list[Tensor]) -> dict[str, list[Tensor]]:
    """Forward and backward over each batch; a place weighs by what stands there, so a rank needs no row numbers."""
    found: dict[str, list[Tensor]] = {"y": [], "dx": []}
    for x in batches:
        x = x.clone().requires_grad_()
        y = norm(x)
        found["y"].append(y.detach())
        (y * x.detach().sin()).sum().backward()
        found["dx"].append(x.grad)
    found["weights"] = [parameter.grad for parameter in norm.parameters()]
    found["buffers"] = [buffer.clone() for buffer in norm.buffers()]
    return found


def take_steps_synchronised(ranks: Ranks, norm: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict:
    synchronise_norms(norm, ranks.make_groups(0))
    return take_steps(norm, [pair[ranks.rank] for pair in batches])


def assert_same_as_one_rank(norm: nn.Module, batches: list[tuple[Tensor, Tensor]], **tolerance: float) -> None:
    expected = take_steps(copy.deepcopy(norm), [torch.cat(pair) for pair in batches])
    first, second = run_in_two_ranks(take_steps_synchronised, norm, batches)
    for name in ("y", "dx"):
        for one, two, both in zip(first[name], second[name], expected[name], strict=True):
            torch.testing.assert_close(torch.cat([one, two]), both, **tolerance)
    for one, two, both in zip(first["weights"], second["weights"], expected["weights"], strict=True):
        torch.testing.assert_close(one + two, both, **tolerance)
    for one, two, both in zip(first["buffers"], second["buffers"], expected["buffers"], strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, both, **tolerance)


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_two_ranks_normalise_as_one_over_both_batches(sizes):
    shapes = [((3, 2), (3, 2)), ((1, 4), (1, 4))]
    batches = [
        tuple(
            draw(size, CHANNELS, *side, seed=7 * step + size) * 3 + 1 for size, side in zip(sizes, sides, strict=True)
        )
        for step, sides in enumerate(shapes)
    ]
    assert_same_as_one_rank(make_norm(), batches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, CHANNELS), (5, CHANNELS, 3)])
def test_vectors_are_normalised_too(shape):
    batches = [(draw(*shape, seed=1), draw(*shape, seed=2) + 1)]
    assert_same_as_one_rank(make_norm(nn.BatchNorm1d), batches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_every_kind_of_norm_is_as_it_was(options):
    batches = [(draw(2, CHANNELS, 2, 2, seed=step), draw(3, CHANNELS, 2, 2, seed=9 + step)) for step in range(3)]
    assert_same_as_one_rank(make_norm(**options), batches, rtol=1e-4, atol=1e-5)


def test_in_float64_it_is_the_same_to_the_last_digits():
    batches = [(draw(3, CHANNELS, 4, 4, seed=1).double(), draw(5, CHANNELS, 4, 4, seed=2).double() * 2)]
    assert_same_as_one_rank(make_norm().double(), batches, rtol=1e-12, atol=1e-12)


def test_channels_last_changes_nothing():
    batches = [tuple(draw(4, CHANNELS, 5, 3, seed=s).to(memory_format=torch.channels_last) for s in (1, 2))]
    assert_same_as_one_rank(make_norm(), batches, rtol=1e-4, atol=1e-5)


def measure(ranks: Ranks, halves: list[Tensor]) -> list[Tensor]:
    return list(measure_together(halves[ranks.rank], ranks.make_groups(0)))


def test_a_large_mean_does_not_eat_the_variance():
    # The ranks' means differ too: a sum of squares in float32 would keep nothing of a variance of 1e-4.
    halves = [(draw(64, 1, 8, 8, seed=s, dtype=torch.float64) / 100 + 1000 + s / 50).float() for s in (0, 1)]
    both = torch.cat(halves).double()
    for count, mean, variance in run_in_two_ranks(measure, halves):
        assert count == both.numel()
        torch.testing.assert_close(mean.double(), both.mean().view(1), rtol=1e-6, atol=0)
        torch.testing.assert_close(variance.double(), both.var(correction=0).view(1), rtol=1e-2, atol=0)


def normalise_in_bf16(ranks: Ranks, halves: list[Tensor]) -> dict[str, Tensor]:
    norm = make_norm()
    synchronise_norms(norm, ranks.make_groups(0))
    x = halves[ranks.rank].bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    (y.float() * y.detach().float().sin()).sum().backward()
    return {"y": y.detach(), "dx": x.grad, "dw": norm.weight.grad, "mean": norm.running_mean, "var": norm.running_var}


def test_under_autocast_the_figures_are_float32():
    halves = [draw(64, CHANNELS, 8, 8, seed=s) + 30 for s in (1, 2)]
    first, second = run_in_two_ranks(normalise_in_bf16, halves)
    assert (first["y"].dtype, first["dx"].dtype, first["dw"].dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    x = torch.cat(halves).bfloat16().double().requires_grad_()
    norm = make_norm().double()
    y = norm(x)
    rounded = torch.cat([first["y"], second["y"]])
    (y * rounded.double().sin()).sum().backward()
    torch.testing.assert_close(rounded.double(), y.detach(), rtol=2**-7, atol=1e-2)
    torch.testing.assert_close(first["mean"].double(), norm.running_mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(first["var"].double(), norm.running_var, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.cat([first["dx"], second["dx"]]).double(), x.grad, rtol=2**-6, atol=1e-2)
    torch.testing.assert_close((first["dw"] + second["dw"]).double(), norm.weight.grad, rtol=1e-2, atol=0)


def describe_conversion(ranks: Ranks, network: nn.Module) -> dict:
    before = {name: id(tensor) for name, tensor in network.named_parameters()}
    keys = list(network.state_dict())
    synchronise_norms(network, ranks.make_groups(0))
    same = {name: id(tensor) for name, tensor in network.named_parameters()} == before
    kinds = {type(module) for module in network.modules()} & {nn.BatchNorm1d, nn.BatchNorm2d, SyncNorm1d, SyncNorm2d}
    network.eval()
    with torch.inference_mode():
        return {
            "same": same and keys == list(network.state_dict()),
            "kinds": kinds,
            # The two ranks see different pictures: in evaluation they do not speak.
            "y": network(draw(2, 3, 32, 32, seed=ranks.rank)),
        }


def test_weights_keep_their_names_and_evaluation_is_as_it_was():
    architecture = Architecture(depths=(1, 1, 1, 1), widths=(8, 8, 16, 16), group_widths=(8,) * 4)
    network = nn.Sequential(RegNet(architecture), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(16)).eval()
    answers = run_in_two_ranks(describe_conversion, network)
    for rank, answer in enumerate(answers):
        assert answer["same"] and answer["kinds"] == {SyncNorm1d, SyncNorm2d}
        with torch.inference_mode():
            # Not to the bit: the ranks compute in one thread each, and other kernels round differently.
            torch.testing.assert_close(answer["y"], network(draw(2, 3, 32, 32, seed=rank)), rtol=1e-5, atol=1e-5)


def test_alone_nothing_is_changed():
    norm = make_norm()
    synchronise_norms(norm, None)
    assert type(norm) is nn.BatchNorm2d


def compare_on_cuda(ranks: Ranks, dtype: torch.dtype) -> None:
    group = ranks.make_groups(0)
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(make_norm().cuda(), group)
    ours = make_norm().cuda()
    synchronise_norms(ours, group)
    batches = [draw(3 + 2 * ranks.rank, CHANNELS, 5, 5, seed=s + ranks.rank).cuda().to(dtype) for s in (1, 5)]
    expected, found = take_steps(theirs, batches), take_steps(ours, batches)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4 if dtype.itemsize > 2 else 2**-6, atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no CUDA device here.")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_it_is_torchs_own(dtype):
    run_in_two_ranks(compare_on_cuda, dtype)
