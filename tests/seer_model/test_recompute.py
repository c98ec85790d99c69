"""Computing blocks twice gives the same steps as keeping everything, from less memory, and leaves no trace."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seer_model.ranks import Ranks
from seer_model.recompute import RecomputedBlock, recompute_blocks
from seer_model.regnet import Architecture, RegNet
from seer_model.sync_norm import synchronise_norms
from tests.seer_model.two_ranks import run_in_two_ranks

ARCHITECTURE = Architecture(depths=(1, 2, 2, 1), widths=(8, 8, 16, 16), group_widths=(8,) * 4)


def make_network() -> RegNet:
    return RegNet(ARCHITECTURE, generator=torch.Generator().manual_seed(0))


def make_recomputed(*, last_stage: bool = False) -> RegNet:
    network = make_network()
    recompute_blocks(network, last_stage=last_stage)
    return network


def draw(count: int, side: int, seed: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def take_two_steps(network: RegNet, dtype: torch.dtype | None = None, rank: int = 0) -> dict[str, Tensor]:
    """Two steps of SGD with crops of two sizes, one pass for each; returns weights, statistics and last gradients."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            pooled = torch.cat([network(draw(3, side, 10 * step + rank)).mean((2, 3)) for side in (64, 32)])
        pooled.float().square().mean().backward()
        optimizer.step()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in network.named_parameters()}
    return {**network.state_dict(), **gradients}


@pytest.mark.parametrize("last_stage", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
def test_two_steps_end_at_the_same_weights_and_statistics(dtype, last_stage):
    expected = take_two_steps(make_network(), dtype)
    found = take_two_steps(make_recomputed(last_stage=last_stage), dtype)
    assert int(expected["stem.norm.num_batches_tracked"]) == 4
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def take_two_steps_synchronised(ranks: Ranks, network: RegNet) -> dict[str, Tensor]:
    synchronise_norms(network, ranks.make_groups(0))
    return take_two_steps(network, rank=ranks.rank)


def test_statistics_of_two_ranks_move_once_too():
    expected = run_in_two_ranks(take_two_steps_synchronised, make_network())
    # After the way into the other process it is still the network that computes twice.
    found = run_in_two_ranks(take_two_steps_synchronised, make_recomputed())
    assert not torch.equal(expected[0]["stem.conv.weight"], expected[1]["stem.conv.weight"])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_graph_that_is_kept_can_be_computed_again():
    plain, recomputed = make_network(), make_recomputed()
    for network in (plain, recomputed):
        loss = network(draw(2, 32, 1)).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
    for expected, found in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(recomputed.state_dict(), plain.state_dict())


def count_kept_bytes(network: RegNet) -> int:
    """What a forward pass through the stages keeps for the backward pass, weights left out."""
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.stages(torch.rand(4, 32, 32, 32, requires_grad=True))
    return sum(kept.values())


def test_less_is_kept():
    plain, most, all_of_it = (
        count_kept_bytes(network) for network in (make_network(), make_recomputed(), make_recomputed(last_stage=True))
    )
    assert all_of_it < most < plain / 2


def count_blocks(run: Callable[[RegNet], object], network: RegNet) -> int:
    """How many times a block of the second stage begins to compute."""
    begun = []
    network.stages[1][1].a.register_forward_pre_hook(lambda *_: begun.append(1))
    run(network)
    return len(begun)


def test_a_block_is_computed_twice_only_when_something_is_learnt():
    assert count_blocks(lambda network: network(draw(2, 32, 1)).sum().backward(), make_recomputed()) == 2
    assert count_blocks(lambda network: network.eval()(draw(2, 32, 1)).sum().backward(), make_recomputed()) == 1
    with torch.no_grad():
        assert count_blocks(lambda network: network(draw(2, 32, 1)), make_recomputed()) == 1


def test_the_statistics_are_the_networks_own_again_after_a_step_that_failed():
    network = make_recomputed()
    buffers = list(network.buffers())
    y = network(draw(2, 32, 1))

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    network.stages[0][0].c.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        y.sum().backward()
    assert all(now is before for now, before in zip(network.buffers(), buffers, strict=True))


def test_names_of_weights_stay_and_a_copy_is_a_network_of_its_own():
    network = make_recomputed()
    assert list(network.state_dict()) == list(make_network().state_dict())
    twin = copy.deepcopy(network)
    assert type(twin.stages[0][0]) is RecomputedBlock and type(twin.stages[3][0]) is not RecomputedBlock
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert twin(draw(2, 32, 1)).abs().sum() > 0
    recompute_blocks(network)


def test_a_network_that_is_sharded_already_is_refused():
    network = make_network()
    network.stages[0][0].__class__ = type("FSDPBlock", (type(network.stages[0][0]),), {})
    with pytest.raises(ValueError, match="FSDPBlock cannot be changed any more"):
        recompute_blocks(network)
