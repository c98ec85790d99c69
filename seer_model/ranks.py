"""The processes of one run: who they are, the device of each, and what they tell each other.

`torchrun` starts several processes and names each by RANK, LOCAL_RANK and WORLD_SIZE; without it there is one, and
everything here that would speak to others does nothing. On the CPU they speak through gloo, on CUDA through NCCL, and
there too a tensor that lies on the CPU goes through gloo.

Rule: every rank makes the same calls in the same order; a call that one rank leaves out keeps all others waiting, until
their patience ends with a sentence.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seer_model.errors import DeviceError, RankLost, SettingsError, TrainingError, UserError

PATIENCE_SECONDS = 600.0
"""How long one rank waits for another. Longer than any step, the first one's decoding, or a checkpoint may take."""
NO_NAME = "none"
"""What torchrun calls a run that it was given no name for (`--rdzv-id`): every run could be called so."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """All ranks of the run as one of them sees them. Its methods are collective: all ranks call them, in one order."""

    device: torch.device
    """Where this rank computes."""
    rank: int = 0
    """This rank, from 0."""
    count: int = 1
    launch: str = ""
    """The name that torchrun has for this run on all nodes and through all restarts; empty where there is none."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long this rank waits for another."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise SettingsError(f"RANK is {self.rank} and WORLD_SIZE {self.count}; allowed is 0 to WORLD_SIZE - 1.")

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files and shows progress."""
        return self.rank == 0

    def sum_over(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, which have one shape and dtype. A new tensor; no gradient flows through."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max_over(self, tensor: Tensor) -> Tensor:
        """The largest of all ranks' values, place by place. A new tensor; no gradient flows through."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def any_over(self, flag: bool) -> bool:
        """Whether one rank at least says so: one that was told to stop stops all."""
        # A tensor on the CPU, so that no rank waits for its GPU to finish the step in hand.
        return bool(self.max_over(torch.tensor(int(flag))))

    def stack_over(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors, which have one shape and dtype, in order of the ranks: (count, ...) of the same bits."""
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.count)]
        if self.count > 1:
            dist.all_gather(found, tensor.detach().contiguous())
        return torch.stack(found) if self.count > 1 else tensor.detach()[None].clone()

    def unite_over(self, numbers: set[int]) -> set[int]:
        """The numbers that one rank at least has."""
        most = int(self.max_over(torch.tensor(len(numbers))))
        if self.count == 1 or not most:
            return set(numbers)
        own = torch.full((most,), -1)
        own[: len(numbers)] = torch.tensor(sorted(numbers))
        return set(self.stack_over(own).flatten().tolist()) - {-1}

    def barrier(self) -> None:
        """Wait until every rank is here. What was sent to a GPU may still be under way."""
        self.any_over(False)

    def share_first(self, value: Any) -> Any:
        """The first rank's value, on every rank; whatever can be pickled."""
        shared = [value]
        if self.count > 1:
            dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def let_first(self, act: Callable[[], Any]) -> Any:
        """Let the first rank act, and give its answer to all, whatever can be pickled; all fail if it does.

        Raises: the first rank's UserError, which on the others is a TrainingError of the same words.
        """
        answer, refusal = None, None
        if self.is_first:
            try:
                answer = act()
            except UserError as error:
                refusal = error
        said = self.share_first((answer, None if refusal is None else str(refusal)))
        while said is None:
            said = self.share_first(None)
        if said[1] is not None:
            raise refusal or TrainingError(said[1])
        return said[0]

    def keep_waiting(self) -> None:
        """On the first rank, in what `let_first` lets it do: tell the others that it is still at it."""
        self.share_first(None)

    def make_groups(self, size: int) -> "dist.ProcessGroup | None":
        """Split the ranks into groups of `size` neighbours, and return this rank's group.

        Args:
            size: ranks in a group; 0 means all of them.
        Returns: None where a group has one rank only, which has nobody to speak to.
        Raises: SettingsError when the ranks do not split into groups of that size.
        """
        size = size or self.count
        if size < 0 or self.count % size:
            raise SettingsError(
                f"{self.count} ranks do not split into groups of {size}; choose a divisor, or 0 for all."
            )
        if size == 1:
            return None
        starts = range(0, self.count, size)
        # Each rank makes all groups, also those that it is not in: torch counts on it. By itself a group is patient for
        # half an hour, whatever that of all ranks is.
        patience = timedelta(seconds=self.patience_seconds)
        groups = [dist.new_group(list(range(start, start + size)), timeout=patience) for start in starts]
        return groups[self.rank // size]

    def _reduce(self, tensor: Tensor, operation: "dist.ReduceOp") -> Tensor:
        reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
        if self.count > 1:
            dist.all_reduce(reduced, operation)
        return reduced


@contextmanager
def join_ranks(
    device: str = "auto", *, rendezvous: str = "env://", patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[Ranks]:
    """Meet the other processes of the run, and leave them at the end; alone when `torchrun` started none.

    Args:
        device: auto, cpu or cuda, on which rank N of a computer takes its Nth GPU; alone also cuda:N.
        rendezvous: where the ranks meet, as `torch.distributed` writes it; as it stands, where `torchrun` says.
        patience_seconds: how long a rank waits for another before it takes it for lost.
    Raises: SettingsError, DeviceError; RankLost, here or in the body, when another rank is gone or silent.
    """
    count = _read_environment("WORLD_SIZE", 1)
    if count == 1:
        yield Ranks(device=choose_device(device))
        return
    ranks = Ranks(
        device=choose_device(device, local_rank=_read_environment("LOCAL_RANK")),
        rank=_read_environment("RANK"),
        count=count,
        launch=_read_launch(),
        patience_seconds=patience_seconds,
    )
    backend = "gloo"
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
        backend = "cpu:gloo,cuda:nccl"
    patience = timedelta(seconds=patience_seconds)
    try:
        store = _find_kept_store(patience) if rendezvous == "env://" else None
        where = {"init_method": rendezvous} if store is None else {"store": store}
        dist.init_process_group(backend, rank=ranks.rank, world_size=count, timeout=patience, **where)
        yield ranks
    except RuntimeError as error:
        if not _is_of_peers(error):
            raise
        raise RankLost(_describe_loss(error, ranks, patience_seconds)) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _find_kept_store(patience: timedelta) -> "dist.Store | None":
    """What torchrun keeps while it starts the ranks of one computer again: addresses of those that died stand there.

    Returns: a part of it for this start alone; None where each start has a store of its own anyway.
    """
    is_kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    # A node that is started again counts its own starts, so that several would not agree.
    if not is_kept or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return None
    place = os.environ["MASTER_ADDR"], _read_environment("MASTER_PORT")
    store = dist.TCPStore(*place, is_master=False, timeout=patience)
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)


def _is_of_peers(error: RuntimeError) -> bool:
    # gloo's errors have no class of their own; each names the place in gloo where it was raised.
    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _describe_loss(error: RuntimeError, ranks: Ranks, patience_seconds: float) -> str:
    # Without the place in gloo's source before it, and the advice after it.
    reason = re.sub(r"^\[[^]]*\] |\. This is typically.*", "", str(error).partition("\n")[0])
    return (
        f"Rank {ranks.rank} of {ranks.count} has lost another one, or has waited {patience_seconds:g} seconds for it: "
        f"{reason}. What was saved stays. Under torchrun --max-restarts all ranks start again and go on from there; "
        "otherwise start the same command with --resume."
    )


def choose_device(name: str, *, local_rank: int | None = None) -> torch.device:
    """The device that a name means: auto, cpu, cuda or cuda:N.

    Args:
        local_rank: this rank's number on its computer; None for a process on its own.
    Raises: DeviceError when it is not there; SettingsError when the name means nothing.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise SettingsError(f"The device is {name!r}; allowed are auto, cpu, cuda and cuda:N.")
    if number and local_rank is not None:
        raise SettingsError(f"The device is {name!r}, but each rank has a GPU of its own: use --device cuda.")
    if kind == "cuda" and local_rank is not None:
        number, name = str(local_rank), f"cuda:{local_rank}"
    if kind == "cuda" and int(number or 0) >= gpus:
        there = f"{gpus} CUDA device(s), numbered from 0" if gpus else "no CUDA device that torch can use"
        less = "Start fewer processes, or use" if local_rank else "Use"
        raise DeviceError(f"The device {name!r} is not there: this computer has {there}. {less} --device cpu or auto.")
    return torch.device(name)


def _read_launch() -> str:
    name = os.environ.get("TORCHELASTIC_RUN_ID", NO_NAME)
    return "" if name == NO_NAME else name


def _read_environment(name: str, otherwise: int | None = None) -> int:
    text = os.environ.get(name, otherwise)
    try:
        return int(text)
    except (TypeError, ValueError):
        raise SettingsError(
            f"The environment has {name}={text!r}, where torchrun puts a whole number. "
            "Start with torchrun, or take WORLD_SIZE away for one process."
        ) from None
