"""RegNetY without a head: the architecture as numbers, and the network built from them.

    RegNet
      stem                  conv, norm                        3x3, stride 2
      stages.S.I            block I of stage S, both from 0
        a, b, c             conv, norm                        1x1, grouped 3x3, 1x1
        squeeze             reduce, expand                    between b and c
        shortcut            conv, norm                        first block of a stage only

These are also the names of the weights, ours and nobody else's: `stages.2.9.c.norm.running_var`; other libraries'
names are in `key_tables`. Rule: an `Architecture` holds every number that a weight's shape depends on, so that two
networks of equal architecture can always take each other's weights.
Source: RegNet, arXiv:2003.13678; rounding as in ClassyVision, which the SEER weights follow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from seer_model.errors import SettingsError

STAGES = 4


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The numbers of one RegNetY. Every tuple has one entry per stage."""

    depths: tuple[int, ...]
    """Blocks."""
    widths: tuple[int, ...]
    """Channels that the stage's blocks put out."""
    group_widths: tuple[int, ...]
    """Channels that one group of the 3x3 convolution sees; a divisor of the width."""
    stem_width: int = 32
    squeeze_widths: tuple[tuple[int, ...], ...] = ()
    """Hidden channels of squeeze-and-excitation, block by block; left out: a quarter of each block's input width."""

    def __post_init__(self) -> None:
        if not self.squeeze_widths:
            object.__setattr__(self, "squeeze_widths", self._default_squeeze_widths())
        per_stage = (self.depths, self.widths, self.group_widths, self.squeeze_widths)
        if any(len(numbers) != STAGES for numbers in per_stage):
            raise SettingsError(f"A RegNetY has {STAGES} stages; these numbers are for others: {per_stage}.")
        if tuple(map(len, self.squeeze_widths)) != self.depths:
            raise SettingsError(f"squeeze_widths {self.squeeze_widths} do not fit the depths {self.depths}.")
        if min(*self.depths, *self.widths, *self.group_widths, self.stem_width, *sum(self.squeeze_widths, ())) < 1:
            raise SettingsError(f"Every depth and width must be 1 or more: {self}.")
        for width, group_width in zip(self.widths, self.group_widths, strict=True):
            if width % group_width:
                raise SettingsError(f"The stage width {width} is not a multiple of its group width {group_width}.")

    @property
    def dimension(self) -> int:
        """D, the length of an embedding: the last stage's width."""
        return self.widths[-1]

    def _default_squeeze_widths(self) -> tuple[tuple[int, ...], ...]:
        # The published weights need both oddities: the block's input width, and `round` going half to even
        # (746 / 4 becomes 186, 11110 / 4 becomes 2778).
        inputs = (self.stem_width, *self.widths)
        return tuple(
            tuple(round(0.25 * (width if block else width_in)) for block in range(depth))
            for depth, width_in, width in zip(self.depths, inputs, self.widths, strict=False)
        )


def generate_architecture(depth: int, w_0: int, w_a: float, w_m: float, group_width: int) -> Architecture:
    """The RegNet rule: block widths grow linearly, are rounded to powers of `w_m`, and equal ones form a stage.

    Args:
        depth: blocks in all.
        w_0, w_a: the first block's width, a multiple of 8, and what each block adds to it.
        w_m: ratio between the widths of neighbouring stages.
        group_width: wanted group width; a narrower stage is one group.
    Source: RegNet, arXiv:2003.13678, section 3.3.
    """
    powers = (round(math.log((w_0 + w_a * block) / w_0) / math.log(w_m)) for block in range(depth))
    stages = [(width, len(list(blocks))) for width, blocks in groupby(8 * round(w_0 * w_m**p / 8) for p in powers)]
    group_widths = tuple(min(group_width, width) for width, _ in stages)
    return Architecture(
        depths=tuple(blocks for _, blocks in stages),
        widths=tuple(round(width / group) * group for (width, _), group in zip(stages, group_widths, strict=True)),
        group_widths=group_widths,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "200MF": generate_architecture(13, 24, 36.44, 2.49, 8),
    "400MF": generate_architecture(16, 48, 27.89, 2.09, 8),
    "600MF": generate_architecture(15, 48, 32.54, 2.32, 16),
    "800MF": generate_architecture(14, 56, 38.84, 2.4, 16),
    "1.6GF": generate_architecture(27, 48, 20.71, 2.65, 24),
    "3.2GF": generate_architecture(21, 80, 42.63, 2.66, 24),
    "4GF": generate_architecture(22, 96, 31.41, 2.24, 64),
    "6.4GF": generate_architecture(25, 112, 33.22, 2.27, 72),
    "8GF": generate_architecture(17, 192, 76.82, 2.19, 56),
    "12GF": generate_architecture(19, 168, 73.36, 2.37, 112),
    "16GF": generate_architecture(18, 200, 106.23, 2.48, 112),
    "32GF": generate_architecture(20, 232, 115.89, 2.53, 232),
    "64GF": generate_architecture(20, 352, 147.48, 2.4, 328),
    "128GF": generate_architecture(27, 456, 160.83, 2.52, 264),
    "256GF": generate_architecture(27, 640, 230.83, 2.53, 373),
    "256GF-classy": generate_architecture(27, 640, 124.47, 2.04, 848),
    "10B": generate_architecture(27, 1744, 620.83, 2.52, 1010),
}
"""Size -> architecture. "256GF" is SEER's; "256GF-classy" is what ClassyVision calls by that size, another network."""


def name_architecture(architecture: Architecture) -> str | None:
    """The size whose architecture this is; None when the table has none such."""
    return next((name for name, known in ARCHITECTURES.items() if known == architecture), None)


class ConvNorm(nn.Module):
    """A convolution without bias and its batch normalisation; `fold` makes one convolution with bias of the two."""

    def __init__(self, width_in: int, width: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def rectify(self, x: Tensor) -> Tensor:
        """With a ReLU behind it."""
        return torch.relu_(self(x))

    def join(self, x: Tensor, other: Tensor) -> Tensor:
        """With another map added, and a ReLU behind that."""
        return torch.relu_(self(x) + other)

    @torch.no_grad()
    def fold(self) -> None:
        """Move the normalisation, with the statistics it has now, into the convolution. For inference only."""
        norm, weight = self.norm, self.conv.weight
        # In float64, and kept in float32 or finer: a file in half precision and the same weights in float32 have one
        # fingerprint, so they must give the same rows.
        kept = torch.promote_types(weight.dtype, torch.float32)
        gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        bias = norm.bias.double() - norm.running_mean.double() * gain
        self.conv.weight = nn.Parameter((weight.double() * gain[:, None, None, None]).to(kept))
        self.conv.bias = nn.Parameter(bias.to(kept))
        self.norm = nn.Identity()


class Squeeze(nn.Module):
    """Squeeze-and-excitation: each channel times a gain in (0, 1) read from the whole picture."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, hidden, 1)
        self.expand = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(mean))))


class Block(nn.Module):
    """One residual bottleneck of ratio 1: (B, width_in, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, *, stride: int, group_width: int, squeeze_width: int) -> None:
        super().__init__()
        self.a = ConvNorm(width_in, width)
        self.b = ConvNorm(width, width, kernel=3, stride=stride, groups=width // group_width)
        self.squeeze = Squeeze(width, squeeze_width)
        self.c = ConvNorm(width, width)
        is_same_shape = stride == 1 and width_in == width
        self.shortcut: nn.Module = nn.Identity() if is_same_shape else ConvNorm(width_in, width, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.b.rectify(self.a.rectify(x))
        return self.c.join(self.squeeze(inner), self.shortcut(x))


class RegNet(nn.Module):
    """A RegNetY trunk: (B, 3, H, W) normalised RGB -> (B, D, H / 32, W / 32), not pooled.

    It starts with random weights as ClassyVision draws them; `generator` makes them repeatable (CPU only).
    """

    def __init__(self, architecture: Architecture, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = ConvNorm(3, architecture.stem_width, kernel=3, stride=2)
        inputs = (architecture.stem_width, *architecture.widths)
        self.stages = nn.Sequential(*(_build_stage(architecture, stage, inputs[stage]) for stage in range(STAGES)))
        self._draw_weights(generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.stem.rectify(x))

    def read_maps(self, x: Tensor) -> list[Tensor]:
        """The map of each stage; the last is what `forward` returns."""
        x, maps = self.stem.rectify(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def fold_norms(self, on_folded: Callable[[nn.Module], object] = lambda module: None) -> None:
        """Fold every batch normalisation into its convolution; from then on the network can only infer.

        Args:
            on_folded: is given each convolution, before the next one is folded.
        """
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
                on_folded(module)

    @torch.no_grad()
    def _draw_weights(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            # On the meta device nothing is drawn, and pretending takes torch a second.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                # Not divided by the groups, as in the runs that made the published weights.
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
                if module.bias is not None:
                    bound = module.in_channels**-0.5
                    module.bias.uniform_(-bound, bound, generator=generator)


def _build_stage(architecture: Architecture, stage: int, width_in: int) -> nn.Sequential:
    width, group_width = architecture.widths[stage], architecture.group_widths[stage]
    first, *later = architecture.squeeze_widths[stage]
    return nn.Sequential(
        Block(width_in, width, stride=2, group_width=group_width, squeeze_width=first),
        *(Block(width, width, stride=1, group_width=group_width, squeeze_width=hidden) for hidden in later),
    )
