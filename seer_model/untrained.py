"""Random weights for the bundled model, until trained ones lie beside the code.

They are not like the start of a training: 3x3 kernels are made mirror-symmetric, so that a mirrored copy comes out
close to its original, and are scaled to their groups, so that deep layers still take part. Near-copies are found with
them; likeness of content is not.

Rule: whole numbers from one constant seed, and arithmetic that IEEE 754 rounds in one way only. So every computer
draws the same bits and has the same fingerprint; the normal numbers of torch and numpy differ between processors.
"""

import math

import numpy as np
import torch

from seer_model.checkpoint import Checkpoint, drop_counters
from seer_model.regnet import ARCHITECTURES, RegNet

SIZE = "400MF"
SEED = 1


def draw_checkpoint(*, seed: int = SEED) -> Checkpoint:
    """A whole checkpoint of random weights, its layout called "random"."""
    with torch.device("meta"):
        network = RegNet(ARCHITECTURES[SIZE])
    bits = np.random.PCG64(seed)
    shapes = {key: tuple(weight.shape) for key, weight in drop_counters(network.state_dict()).items()}
    groups = {f"{name}.weight": getattr(module, "groups", 1) for name, module in network.named_modules()}
    trunk = {key: torch.from_numpy(_draw_weight(bits, key, shape, groups.get(key))) for key, shape in shapes.items()}
    return Checkpoint(architecture=network.architecture, trunk=trunk, heads={}, layout="random")


def _draw_weight(bits: np.random.PCG64, key: str, shape: tuple[int, ...], groups: int | None) -> np.ndarray:
    """A kernel of mean 0 and variance 2 / fan-out of a group; normalisations and biases that change nothing."""
    if len(shape) == 1:
        return np.full(shape, key.endswith(("norm.weight", "running_var")), dtype=np.float32)
    # The sum of four uniform whole numbers is close enough to normal; 4 * (2**32 - 1) / 12 is its variance.
    words = bits.random_raw(math.prod(shape)).astype("<u8").view("<u2").reshape(*shape, 4)
    sums = words.sum(-1, dtype=np.int64) - 2 * 0xFFFF
    fan_out = shape[0] // groups * shape[2] * shape[3]
    kernel = (sums * math.sqrt(2 / fan_out / ((2**32 - 1) / 3))).astype(np.float32)
    kernel[..., shape[3] // 2 + 1 :] = kernel[..., : shape[3] // 2]
    return kernel
