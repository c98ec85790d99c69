"""A GPU that is none: torch calls a tensor's home "cuda", its numbers lie and are computed on the CPU.

What a real one would refuse is refused: a product of a tensor here with one there, numpy's look at one that is there.
What a real one computes otherwise is not seen: for that, run the tests on one (`pytest --device cuda`).

    python -m tests.pretended_gpu benchmarks.embedding --device cuda ...    a command on it

Rule: a tensor is there if its storage was sent or made there, or came of something that was there.
"""

import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

HOME, THERE = torch.device("cpu"), torch.device("cuda", 0)
MOVING = {"to", "cpu", "cuda", "copy_", "__set__", "data_ptr", "detach", "_has_compatible_shallow_copy_type"}
"""Functions that may know tensors here and there at once, by their names."""
INDEXING = {"__getitem__", "__setitem__", "index_put_"}
"""Numbers of places may lie here, as a GPU allows it."""


class PretendedGpu(TorchFunctionMode):
    """Within it, "cuda" is a device."""

    _there: ClassVar[dict[int, StorageWeakRef]] = {}
    """Of all that were there, one after the other: what is kept on a device outlives the one who put it there."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        """Tensors that were made there or sent there, so far."""

    def __torch_function__(self, function, types, given=(), more=None):
        more = dict(more or {})
        more.pop("pin_memory", None)
        name, tensors = function.__name__, list(list_tensors((given, more)))
        if name == "__get__" and is_property(function, "device", "is_cuda") and self.is_there(given[0]):
            return THERE if is_property(function, "device") else True
        is_there = any(map(self.is_there, tensors))
        if name in ("numpy", "__array__") and is_there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if function is torch.device or name == "_parse_to":  # a word; what `Module.to` is given
            return function(*given, **more)
        if name == "pin_memory":
            return given[0]
        self._require_one_place(name, given, more)
        target, given, more = take_device(given, more)
        found = function(*given, **more)
        if name == "cpu" or target == HOME:
            return copy_shared(found, tensors)
        if name == "copy_" or name == "__set__":
            is_there = self.is_there(given[0]) or (name == "__set__" and is_there)
        if target == THERE:
            self.sent += 1
            found = copy_shared(found, [one for one in tensors if not self.is_there(one)])
        if target == THERE or is_there:
            for one in list_tensors(found):
                self._mark(one)
        return found

    def is_there(self, value: object) -> bool:
        """Whether a value is a tensor that lies on the pretended GPU."""
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            return False
        with torch._C.DisableTorchFunction():
            kept = self._there.get(value.untyped_storage()._cdata)
        return kept is not None and not kept.expired()

    def _mark(self, tensor: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            kept = StorageWeakRef(tensor.untyped_storage())
        self._there[kept.cdata] = kept
        if len(self._there) % 10_000 == 0:
            for key, one in list(self._there.items()):
                if one.expired():
                    self._there.pop(key, None)

    def _require_one_place(self, name: str, given: tuple, more: dict) -> None:
        # What comes of a backward pass was made by torch within, unseen.
        if name in MOVING or torch._C._current_autograd_node() is not None:
            return
        tensors = list(list_tensors((given, more)))
        if name in INDEXING:
            numbers = {id(one) for one in list_tensors(given[1]) if not self.is_there(one)}
            tensors = [one for one in tensors if id(one) not in numbers]
        places = {self.is_there(one) for one in tensors if count_dimensions(one)}
        if len(places) > 1:
            raise RuntimeError(f"Expected all tensors of {name} on one device; some are on cuda:0 and some on cpu.")


def count_dimensions(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.ndim


def is_property(getter: object, *names: str) -> bool:
    """Whether a function reads one of these properties of a tensor."""
    return any(getter == getattr(Tensor, name).__get__ for name in names)


def list_tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from list_tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from list_tensors(one)


def take_device(given: tuple, more: dict) -> tuple[torch.device | None, tuple, dict]:
    """The device that a call names, if it does, and the call with the CPU in its place."""
    named = [one for one in (*given, *more.values()) if is_device(one)]
    if not named:
        return None, given, more
    given = tuple(HOME if is_device(one) else one for one in given)
    more = {key: HOME if is_device(one) else one for key, one in more.items()}
    return (THERE if torch.device(named[0]).type == "cuda" else HOME), given, more


def is_device(value: object) -> bool:
    name = str(value) if isinstance(value, torch.device | str) else ""
    return name.partition(":")[0] in ("cpu", "cuda")


def copy_shared(found: object, tensors: list[Tensor]) -> object:
    """What was moved has numbers of its own."""
    if not isinstance(found, Tensor):
        return found
    with torch._C.DisableTorchFunction():
        shared = any(one.untyped_storage()._cdata == found.untyped_storage()._cdata for one in tensors)
        return found.clone(memory_format=torch.preserve_format) if shared else found


@contextmanager
def pretend_gpu() -> Iterator[PretendedGpu]:
    """Let torch have one GPU."""
    autocast, scaler, run = torch.autocast, torch.amp.GradScaler, threading.Thread.run

    def run_with(thread: threading.Thread) -> None:
        with gpu:  # A mode is one thread's.
            run(thread)

    with pytest.MonkeyPatch.context() as patch, PretendedGpu() as gpu:
        patch.setattr(threading.Thread, "run", run_with)
        patch.setattr(torch, "autocast", lambda kind, **how: autocast("cpu", **how))
        patch.setattr(torch.accelerator, "is_available", lambda: False)  # DataLoader's, which would pin memory
        patch.setattr(torch, "compile", lambda network, **how: network)
        patch.setattr(torch.amp, "GradScaler", lambda kind, **how: scaler("cpu", **how))
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "mem_get_info": (8 << 30, 8 << 30),
            "memory_allocated": 0,
            "max_memory_allocated": 1 << 20,
            "get_device_properties": SimpleNamespace(name="pretended", total_memory=8 << 30, major=9, minor=0),
            "current_stream": SimpleNamespace(synchronize=lambda: None),
            "stream": nullcontext(),
            **dict.fromkeys(("synchronize", "reset_peak_memory_stats", "empty_cache", "set_device")),
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value: value)
        yield gpu


if __name__ == "__main__":
    from benchmarks import ceilings

    del sys.argv[0]
    ceilings.SIZES["cuda"], ceilings.COPIED_BYTES = ceilings.SIZES["cpu"], 1 << 24
    with pretend_gpu():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
