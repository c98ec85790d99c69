"""Random weights for the bundled model, until trained ones lie beside the code.

They are not like the start of a training: 3x3 kernels are made mirror-symmetric, so that a mirrored copy comes out
close to its original, and are scaled to their groups, so that deep layers still take part. Near-copies are found with
them; likeness of content is not.

Rule: drawn on the CPU from one constant seed, and from nothing else; the same fingerprint every time.
"""

import torch
from torch import nn

from seer_model.checkpoint import Checkpoint, drop_counters
from seer_model.regnet import ARCHITECTURES, RegNet

SIZE = "400MF"
SEED = 1


def draw_checkpoint(*, seed: int = SEED) -> Checkpoint:
    """A whole checkpoint of random weights, its layout called "random"."""
    network = RegNet(ARCHITECTURES[SIZE], generator=torch.Generator().manual_seed(seed))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            weight = module.weight.detach()
            # The sum of two independent draws has twice the variance; a group sees only its part of the input.
            module.weight = nn.Parameter((weight + weight.flip(3)) * (module.groups / 2) ** 0.5)
    trunk = drop_counters(network.state_dict())
    return Checkpoint(architecture=network.architecture, trunk=trunk, heads={}, layout="random")
