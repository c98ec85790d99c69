"""Packed convolutions: the same maps as before, for pictures of any size, and nothing changed where they cannot be."""

import pytest
import torch

from seer_model import packing
from seer_model.packing import PackedConv, can_pack, pack_convolutions
from seer_model.regnet import ConvNorm, RegNet
from tests.seer_model import making_weights as making

KINDS = {"fp32": (torch.float32, 1e-6), "bf16": (torch.bfloat16, 1e-2), "fp16": (torch.float16, 2e-3)}


def make_folded(dtype: torch.dtype = torch.float32) -> RegNet:
    network = making.make_network().eval().requires_grad_(False)
    network.fold_norms()
    return network.to(dtype=dtype, memory_format=torch.channels_last)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last)


def list_convolutions(network: RegNet, kind: type) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 3, 64, 64), (2, 3, 64, 96), (1, 3, 40, 40)])
@torch.inference_mode()
def test_maps_are_those_of_the_plain_network(kind: str, shape: tuple[int, ...]):
    dtype, tolerance = KINDS[kind]
    plain, packed = make_folded(dtype), make_folded(dtype)
    if not can_pack(packed.stem.conv.weight):
        pytest.skip(f"this processor computes no {kind}")
    pack_convolutions(packed, draw(1, 3, 64, 64, dtype=dtype), 4)
    assert not list_convolutions(packed, ConvNorm) and len(list_convolutions(packed, PackedConv)) > 20
    x = draw(*shape, dtype=dtype)
    for one, other in zip(plain.read_maps(x), packed.read_maps(x), strict=True):
        assert other.dtype == dtype and other.is_contiguous(memory_format=torch.channels_last)
        distance = (one.double() - other.double()).norm() / one.double().norm()
        assert float(distance) < tolerance


@pytest.mark.parametrize("missing", ["library", "operators", "kind of weight"])
def test_where_it_cannot_be_nothing_is_changed(missing: str, monkeypatch: pytest.MonkeyPatch):
    dtype = torch.float64 if missing == "kind of weight" else torch.float32
    network = make_folded(dtype)
    if missing == "library":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif missing == "operators":
        monkeypatch.setattr(packing, "OPERATORS", ("_not_there",))
    pack_convolutions(network, draw(1, 3, 64, 64, dtype=dtype), 1)
    assert len(list_convolutions(network, ConvNorm)) > 20 and not list_convolutions(network, PackedConv)
