"""A backbone whose device is short of memory, and what it chooses by its device."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seer_model import backbone as backbone_module
from seer_model.backbone import Backbone, open_backbone
from seer_model.checkpoint import write_checkpoint
from seer_model.devices import CPU_BATCH, choose_precision, fit_batch, measure_free
from seer_model.errors import DeviceError
from seer_model.regnet import ARCHITECTURES, ConvNorm, RegNet
from tests.conftest import REPOSITORY
from tests.device import DEVICE
from tests.seer_model import making_weights as making


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_checkpoint(making.make_checkpoint(), path)
    return path


def draw_pictures(count: int, *, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 64, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("2 GiB short"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
])  # fmt: skip
def test_a_batch_too_large_for_the_device_is_halved_until_it_fits(weights_path, monkeypatch, error: RuntimeError):
    backbone, sizes = open_backbone(str(weights_path), device=DEVICE, batch_size=16), []
    pictures = [*draw_pictures(11), *draw_pictures(2, width=96), *draw_pictures(6, seed=1)]
    whole, expected = backbone._embed_batch, backbone.embed(pictures)

    def fall_short(pixels: list[np.ndarray]) -> np.ndarray:
        sizes.append(backbone.batch_size)
        if backbone.batch_size > 4:
            raise error
        return whole(pixels)

    monkeypatch.setattr(backbone, "_embed_batch", fall_short)
    rows = backbone.embed(pictures)
    assert sizes == [16, 8, *[4] * 6] and backbone.batch_size == 4
    assert float((rows * expected).sum(1).min()) > 1 - 1e-5


def test_where_not_one_picture_fits_it_is_a_sentence_and_other_errors_stay_what_they_are(weights_path, monkeypatch):
    backbone = open_backbone(str(weights_path), device=DEVICE, batch_size=4)

    def fail(pixels: list[np.ndarray]) -> np.ndarray:
        raise error

    monkeypatch.setattr(backbone, "_embed_batch", fail)
    error = torch.OutOfMemoryError("2 GiB short")
    with pytest.raises(DeviceError, match="batches of 1.*smaller model"):
        backbone.embed(draw_pictures(2))
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nand more")
    with pytest.raises(DeviceError, match=f"{DEVICE} cannot go on: CUDA error"):
        backbone.embed(draw_pictures(2))
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        backbone.embed(draw_pictures(2))


@pytest.mark.parametrize(("free", "picture", "batch"), [
    (80e9, 40e6, 256), (8e9, 40e6, 64), (1e9, 40e6, 8), (40e6, 40e6, 1), (0, 40e6, 1), (8e9, 0, 256),
])  # fmt: skip
def test_a_batch_fills_half_of_the_free_memory_at_most(free: float, picture: float, batch: int):
    assert fit_batch(free, picture) == batch


def test_precision_and_batch_size_are_chosen_by_the_device(weights_path):
    backbone = open_backbone(str(weights_path), device="cpu", precision="auto", batch_size=None)
    assert (backbone.settings.precision, backbone.batch_size) == ("fp32", CPU_BATCH)
    assert choose_precision("auto", torch.device("cuda")) == "fp16"
    assert choose_precision("bf16", torch.device("cuda")) == "bf16"


def test_a_model_too_large_for_the_device_is_a_sentence(weights_path, monkeypatch):
    def fail(network: torch.nn.Module, *device: object, **options: object) -> None:
        raise torch.cuda.OutOfMemoryError("2 GiB short")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(DeviceError, match="smaller model"):
        open_backbone(str(weights_path), device="cpu")


def test_a_batch_is_found_by_trying_a_small_one(weights_path, monkeypatch):
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 + 8 * 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (64_000, 64_000))
    find = Backbone._find_batch_size

    def find_as_on_a_gpu(backbone: Backbone) -> int:
        backbone._device = SimpleNamespace(type="cuda")
        monkeypatch.setattr(backbone, "_embed_batch", lambda pixels: backbone.embed_ready(
            torch.zeros((backbone.batch_size, *pixels[0].shape), dtype=torch.uint8)).numpy()[: len(pixels)])
        try:
            return find(backbone)
        finally:
            backbone._device = torch.device("cpu")

    monkeypatch.setattr(Backbone, "_find_batch_size", find_as_on_a_gpu)
    assert open_backbone(str(weights_path), device="cpu", batch_size=None).batch_size == 32


def test_a_model_larger_than_what_is_free_is_refused_with_both_numbers(weights_path, monkeypatch):
    needed = sum(weight.numel() for weight in making.make_checkpoint().trunk.values()) * 4
    monkeypatch.setattr(backbone_module, "measure_free", lambda device: needed)
    open_backbone(str(weights_path), device="cpu")
    monkeypatch.setattr(backbone_module, "measure_free", lambda device: needed - 1)
    with pytest.raises(DeviceError, match=r"needs 0\.0 GB in fp32 on cpu, where 0\.0 GB are free"):
        open_backbone(str(weights_path), device="cpu")
    assert open_backbone(str(weights_path), device="cpu", precision="bf16").dimension
    monkeypatch.setattr(backbone_module, "measure_free", lambda device: None)
    open_backbone(str(weights_path), device="cpu")


def test_the_largest_model_needs_what_it_needs(monkeypatch):
    with torch.device("meta"):
        trunk = RegNet(ARCHITECTURES["10B"]).state_dict()
    checkpoint, found = SimpleNamespace(trunk=trunk), SimpleNamespace(name="seer-10b")
    monkeypatch.setattr(backbone_module, "measure_free", lambda device: 24e9)
    with pytest.raises(DeviceError, match=r"seer-10b needs 37\.\d GB in fp32 on cuda, where 24\.0 GB are free"):
        backbone_module._require_memory(found, checkpoint, torch.device("cuda"), "fp32")
    backbone_module._require_memory(found, checkpoint, torch.device("cuda"), "bf16")


def test_no_more_than_one_convolution_waits_for_the_device(weights_path, monkeypatch):
    fold, waiting = ConvNorm.fold, []

    def count(convolution: ConvNorm) -> None:
        fold(convolution)
        folded = [one for one in convolutions if isinstance(one.norm, torch.nn.Identity)]
        waiting.append(sum(one.conv.weight.dtype == torch.float32 for one in folded))

    convolutions: list[ConvNorm] = []
    make = ConvNorm.__init__
    monkeypatch.setattr(ConvNorm, "__init__", lambda self, *a, **k: (make(self, *a, **k), convolutions.append(self))[0])
    monkeypatch.setattr(ConvNorm, "fold", count)
    open_backbone(str(weights_path), device="cpu", precision="bf16")
    assert waiting == [1] * len(waiting) and len(waiting) > 5


HEAPS = """
import ctypes, sys, threading
from seer_model.devices import use_one_heap
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
if sys.argv[1] == "one":
    use_one_heap()
found = []
thread = threading.Thread(target=lambda: found.append(malloc(64 << 10)))
thread.start()
thread.join()
heaps = [line.split()[0].split("-") for line in open("/proc/self/maps") if "[heap]" in line]
print(any(int(start, 16) <= found[0] < int(end, 16) for start, end in heaps))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc has a heap for each thread.")
@pytest.mark.parametrize(("how", "is_there"), [("one", "True"), ("as it is", "False")])
def test_a_thread_allocates_from_the_first_heap(how: str, is_there: str):
    found = subprocess.check_output([sys.executable, "-c", HEAPS, how], cwd=REPOSITORY, text=True)
    assert found.strip() == is_there


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_free_memory_is_what_the_system_says():
    free = measure_free(torch.device("cpu"))
    assert 1 << 20 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
