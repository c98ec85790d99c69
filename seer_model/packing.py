"""A network that only infers, on a CPU: each convolution as oneDNN computes it fastest.

Weights are laid out once for its kernels - otherwise that happens in every call - and the ReLU and the addition behind
a convolution are done in the same pass over memory. torch.compile comes to the same calls by way of a compiler; here
they are made directly.
Source: the operators that torch's own inductor lowers convolutions to on a CPU (torch/_inductor/mkldnn_lowerings.py).

Rule: the same numbers up to rounding, for pictures of any size; where torch has no such operators, nothing is changed.
"""

import torch
from torch import Tensor, nn

from seer_model.regnet import ConvNorm, RegNet

OPERATORS = ("_reorder_convolution_weight", "_convolution_pointwise")


class PackedConv(nn.Module):
    """A folded `ConvNorm`, for a CPU."""

    def __init__(self, folded: ConvNorm, input_shape: tuple[int, ...]) -> None:
        """`input_shape` (B, C, H, W) is the one that it will be fastest for."""
        super().__init__()
        conv = folded.conv
        self._how = [*map(list, (conv.padding, conv.stride, conv.dilation)), conv.groups]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self._how, list(input_shape))
        self._bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._compute(x, "none")

    def rectify(self, x: Tensor) -> Tensor:
        """As `ConvNorm.rectify`."""
        return self._compute(x, "relu")

    def join(self, x: Tensor, other: Tensor) -> Tensor:
        """As `ConvNorm.join`."""
        operator = torch.ops.mkldnn._convolution_pointwise.binary
        return operator(x, other, self._weight, self._bias, *self._how, "add", 1.0, "relu", [], "")

    def _compute(self, x: Tensor, behind: str) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *self._how, behind, [], "")


def can_pack(weight: Tensor) -> bool:
    """Whether this processor and this torch have what it takes for weights of this kind."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    supported = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return weight.dtype in supported and bool(supported[weight.dtype]())


@torch.inference_mode()
def pack_convolutions(network: RegNet, picture: Tensor, batch_size: int) -> None:
    """Replace every convolution of a folded network, in place; of the weights one is in memory twice, not all.

    Args:
        picture: (1, 3, H, W) as they will come, of the network's precision and layout.
        batch_size: how many of them at a time.
    """
    shapes = _read_input_shapes(network, picture)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvNorm) and can_pack(child.conv.weight):
                setattr(parent, name, PackedConv(child, (batch_size, *shapes[child][1:])))
                child.conv.weight = None


def _read_input_shapes(network: RegNet, x: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(given[0].shape)

    convolutions = [module for module in network.modules() if isinstance(module, ConvNorm)]
    hooks = [module.register_forward_pre_hook(note) for module in convolutions]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
