"""The readout: from the backbone's last maps to an embedding, in one of three ways.

    pooled      mean over the last map                                      any model
    whitened    generalised means of the last two, then the whitening       a model that brings one
    projected   mean over the last map, then SwAV's projection              asked for by MODEL#projection

Rule: in fp32 whatever the network computes in; a row that has no direction comes out as NaNs, never as a guess.
"""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from seer_model.checkpoint import Checkpoint
from seer_model.key_tables import WHITENING
from seer_model.swav import build_projection
from seer_model.whitening import WEIGHT, build_whitening, has_whitening, normalise, pool_maps

POOLED, WHITENED, PROJECTED = "res5-avgpool-l2", "res4-res5-gem3-whitened-l2", "projection-l2"
"""The names of the three, in manifests and fingerprints."""
PREFIXES = {POOLED: None, WHITENED: WHITENING, PROJECTED: "projection."}
"""The heads that a readout is made of."""


def choose_output(heads: Mapping[str, Tensor], *, is_projected: bool) -> str:
    """Which readout a model has, by what stands on its trunk."""
    if is_projected:
        return PROJECTED
    return WHITENED if has_whitening(heads) else POOLED


def take_weights(heads: Mapping[str, Tensor], output: str) -> dict[str, Tensor]:
    """The weights that a readout is made of; none of the pooled one."""
    prefix = PREFIXES[output]
    return {key: weight for key, weight in heads.items() if prefix and key.startswith(prefix)}


def measure_dimension(checkpoint: Checkpoint) -> int:
    """Numbers in an embedding of this model, if it is not its projection that is asked for."""
    heads = checkpoint.heads
    return len(heads[WEIGHT]) if has_whitening(heads) else checkpoint.architecture.dimension


class Readout(nn.Module):
    """One of the three, with its weights."""

    def __init__(self, heads: Mapping[str, Tensor], output: str, *, width: int) -> None:
        """`width` is that of the last map."""
        super().__init__()
        self.output, self.dimension = output, width
        self.last: nn.Module = nn.Identity()
        if output != POOLED:
            last = build_projection(heads) if output == PROJECTED else build_whitening(heads)
            # A copy: the weights are the mapped bytes of the file, which may be changed or cut.
            self.last = copy.deepcopy(last).float()
            self.dimension = [layer.out_features for layer in last.modules() if isinstance(layer, nn.Linear)][-1]
        self.eval().requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Read embeddings.

        Args:
            maps: of the stages, (B, C, h, w) each; the last has `width` channels.
        Returns: float32 (B, dimension), rows of length 1; NaNs where there is no direction, or nothing finite.
        """
        if self.output == WHITENED:
            return normalise(self.last(pool_maps(maps)))
        return normalise(self.last(maps[-1].float().mean((2, 3))))
