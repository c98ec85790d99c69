"""One network on many ranks: a copy on each (DDP), or a part on each (FSDP2) where a whole one does not fit.

Either way a rank's loss is the mean over its own crops, and the gradients are the mean over the ranks. What is saved is
named as in the network by itself, whole on the CPU (`gather_`) or as it lies here (`list_`), so that a run can go on
with other ranks.

Rule: `synchronise_norms` and `recompute_blocks` come first, `shard` or `replicate` next, the optimizer last: it must
hold the parameters that sharding made.
"""

import inspect
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from seer_model.errors import CheckpointError
from seer_model.optimizer import measure_lengths
from seer_model.ranks import Ranks
from seer_model.regnet import RegNet

Shapes = Mapping[str, tuple[int, ...]]


def replicate(network: nn.Module, ranks: Ranks) -> nn.Module:
    """A copy of the network on every rank, all starting as the first rank's; collective.

    Buffers start equal and are not sent again at each step: no training step reads a running statistic, and what is
    saved is the first rank's. Where the norms speak to all ranks the buffers stay equal by themselves; where they speak
    in groups, those of the first group are the ones that count.

    Returns: what to call in the network's place; alone, the network itself.
    """
    if ranks.count == 1:
        return network
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)
    # torch 2.11 knows the second name only, 2.13 warns of it.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(network, gradient_as_bucket_view=True, **{name: False})


def shard(network: nn.Module, ranks: Ranks, *, precision: torch.dtype | None = None) -> None:
    """Leave each rank a part of every weight, and bring a block's weights together while it computes; collective.

    In place. Each block of the RegNet inside is brought together by itself, and the rest, which is the head, when
    `network` is called; its parts are not to be called without it. All ranks start as the first one's copy. Blocks move
    to the device one by one, so the whole may lie on the CPU; or on the meta device, then weights are anything until
    `scatter_weights`. Alone, nothing happens.

    Args:
        precision: dtype in which the trunk's convolutions are brought together; None: as they are. A half precision
            takes half the traffic and memory, and goes with autocast of that dtype. Normalisations and the head, with
            its prototypes, stay as they are, and gradients are summed in float32.
    """
    if ranks.count == 1:
        return
    # FSDP takes no weights that are channels_last; pictures may still be.
    network.to(memory_format=torch.contiguous_format)
    _start_as_the_first(network)
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=precision and torch.float32)
    for part in _list_trunk_parts(network):
        # Outside the policy, for torch on the CPU refuses weights in half precision beside statistics in float32. They
        # are few, so they stay together until the gradients are done.
        norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
        fully_shard(norms, mesh=mesh, reshard_after_forward=False)
        fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh)
    if any(parameter.is_meta for parameter in network.parameters()):
        network.to_empty(device=ranks.device)


def _start_as_the_first(network: nn.Module) -> None:
    for tensor in network.state_dict().values():
        if not tensor.is_meta:
            dist.broadcast(tensor, src=0)


def _list_trunk_parts(network: nn.Module) -> list[nn.Module]:
    trunks = [module for module in network.modules() if isinstance(module, RegNet)]
    return [part for trunk in trunks for part in (trunk.stem, *(block for stage in trunk.stages for block in stage))]


# --- what is saved -----------------------------------------------------------------------------------------------


def gather_weights(network: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """All weights and buffers, whole, under the names of the network by itself; collective.

    Returns: copies on the CPU on the first rank; on the others nothing.
    """
    return _gather(list_weights(network), ranks)


def list_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers as they lie on this rank, under the names of the network by itself; no copies."""
    return _take_off_ddp(network).state_dict()


def scatter_weights(network: nn.Module, weights: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Put whole weights and buffers into a network, replicated, sharded or neither; collective.

    Args:
        weights: as `gather_weights` returns them; only the first rank's are read.
    Raises: CheckpointError, on every rank, when a name or a shape is not the network's.
    """
    targets = _take_off_ddp(network).state_dict()
    _check_shapes(ranks.share_first(_list_shapes(weights)), _list_shapes(targets))
    for name, target in targets.items():
        _fill(target, weights.get(name), ranks)


def gather_optimizer(network: nn.Module, optimizer: Optimizer, ranks: Ranks) -> dict[str, Tensor]:
    """What an optimizer remembers of each parameter, whole: "stem.conv.weight.momentum_buffer" -> tensor; collective.

    A parameter that it has not moved yet has no entry. Rates and decay are settings, and left out.

    Args:
        optimizer: one that keeps tensors of the parameter's shape only, as SGD does.
    Returns: copies on the CPU on the first rank; on the others nothing.
    """
    return _gather(list_optimizer(network, optimizer), ranks)


def list_optimizer(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What `gather_optimizer` gathers, as it lies on this rank; no copies."""
    return {
        f"{name}.{key}": tensor
        for name, parameter in _name_parameters(network).items()
        for key, tensor in optimizer.state.get(parameter, {}).items()
        if tensor is not None
    }


def scatter_optimizer(network: nn.Module, optimizer: Optimizer, remembered: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Let an optimizer remember what `gather_optimizer` returned, and nothing else; collective.

    Args:
        remembered: only the first rank's is read.
    Raises: CheckpointError, on every rank, when a name or a shape is not that of a parameter.
    """
    for entry, place in make_places(network, optimizer, ranks.share_first(_list_shapes(remembered))).items():
        _fill(place, remembered.get(entry), ranks)


def make_places(network: nn.Module, optimizer: Optimizer, shapes: Shapes) -> dict[str, Tensor]:
    """Let an optimizer remember tensors of these names and whole shapes, and nothing else: to be filled in place.

    Returns: each by its name; of a sharded parameter this rank's part, a DTensor.
    Raises: CheckpointError when a name or a shape is not that of a parameter.
    """
    parameters = _name_parameters(network)
    names = {entry: entry.rpartition(".")[0] for entry in shapes}
    known = _list_shapes(parameters)
    _check_shapes(shapes, {entry: known[name] for entry, name in names.items() if name in known})
    optimizer.state.clear()
    for entry, name in names.items():
        place = torch.empty_like(parameters[name].detach())
        optimizer.state[parameters[name]][entry.rpartition(".")[2]] = place
    return list_optimizer(network, optimizer)


def _take_off_ddp(network: nn.Module) -> nn.Module:
    return network.module if isinstance(network, DistributedDataParallel) else network


def _name_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    network = _take_off_ddp(network)
    for module in network.modules():
        # After a forward pass without a backward pass some weights are still together: other objects, which the
        # optimizer does not know.
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(network.named_parameters())


def _list_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_shapes(found: Shapes, expected: Shapes) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                f"The saved state does not fit the network: {name!r} has the shape {found.get(name, 'of nothing')}, "
                f"expected is {expected.get(name, 'no such name')}. Go on with the architecture that it was saved from."
            )


def _gather(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    whole = {}
    for name, tensor in tensors.items():
        together = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if ranks.is_first:
            whole[name] = together.detach().to("cpu", copy=True)
    return whole


@torch.no_grad()
def _fill(target: Tensor, whole: Tensor | None, ranks: Ranks) -> None:
    """Copy the first rank's whole tensor into a tensor of every rank, of which each may hold a part."""
    sent = torch.empty(target.shape, dtype=target.dtype, device=ranks.device)
    if ranks.is_first:
        sent.copy_(whole)
    if ranks.count > 1:
        dist.broadcast(sent, src=0)
    if isinstance(target, DTensor):
        # Each rank cuts its own part: the whole is on all of them.
        sent = distribute_tensor(sent, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(sent)


# --- norms over parts --------------------------------------------------------------------------------------------


@torch.no_grad()
def whole_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norms of many tensors, plain or sharded, with one message between ranks for all of them.

    Args:
        tensors: n parameters or gradients on one device; those that are sharded are so over the same ranks.
    Returns: (n,) float32 or finer, the same on every rank.
    """
    norms = list(measure_lengths(tensors).unbind())
    sharded = [place for place, tensor in enumerate(tensors) if isinstance(tensor, DTensor)]
    if sharded:
        squares = torch.stack([norms[place] for place in sharded]).square()
        dist.all_reduce(squares, group=tensors[sharded[0]].device_mesh.get_group())
        for place, norm in zip(sharded, squares.sqrt(), strict=True):
            norms[place] = norm
    return torch.stack(norms)
