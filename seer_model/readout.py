"""The readout: from the backbone's maps to an embedding.

    maps -> pooled (`poolings`): (B, R, D), a row for each of R squares, or one
         -> the layer behind, if there is one: the whitening that the model brings, or SwAV's projection
         -> of length 1, the squares summed, of length 1

Rule: in fp32 whatever the network computes in; a row that has no direction comes out as NaNs, never as a guess.
Source of whitening each square before they are summed: VISSL, as SEER's copy detection uses it (spec/seer.md, 4.4).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional

from seer_model.checkpoint import Checkpoint
from seer_model.key_tables import WHITENING
from seer_model.outputs import OWN, POOLINGS, PROJECTED, READOUTS, Asked, Output
from seer_model.poolings import normalise, pool_maps
from seer_model.swav import build_projection
from seer_model.whitening import build_whitening, find_whitened

PREFIXES = {"whitened": WHITENING, "projection": "projection."}
"""Layer behind the pooling -> what the names of its weights begin with."""
BUILDERS = {"whitened": build_whitening, "projection": build_projection}


def choose_output(heads: Mapping[str, Tensor], asked: Asked = OWN) -> Output:
    """Which output a model has, by what is asked for and what stands on its trunk."""
    whitened = find_whitened(heads)
    if asked.readout == PROJECTED:
        output = Output(pooling=POOLINGS["average"], layer="projection")
    elif asked.readout:
        output = Output(pooling=POOLINGS[asked.readout])
    elif whitened:
        output = Output(pooling=whitened, layer="whitened")
    else:
        output = Output(pooling=POOLINGS["average"])
    return replace(output, is_scaled=asked.is_scaled)


def take_weights(heads: Mapping[str, Tensor], output: Output) -> dict[str, Tensor]:
    """The weights of the layer behind the pooling; none if there is no layer."""
    prefix = PREFIXES.get(output.layer)
    return {key: weight for key, weight in heads.items() if prefix and key.startswith(prefix)}


def measure_dimension(checkpoint: Checkpoint, output: Output) -> int:
    """Numbers in an embedding."""
    if not output.layer:
        return sum(checkpoint.architecture.widths[stage] for stage in output.pooling.stages)
    layers = BUILDERS[output.layer](checkpoint.heads).modules()
    return [layer.out_features for layer in layers if isinstance(layer, nn.Linear)][-1]


def list_readouts(checkpoint: Checkpoint) -> dict[str, int]:
    """What may be asked for behind this model's name -> numbers in the embedding."""
    outputs = {name: choose_output(checkpoint.heads, Asked(name)) for name in READOUTS}
    return {
        name: measure_dimension(checkpoint, output)
        for name, output in outputs.items()
        if not output.layer or take_weights(checkpoint.heads, output)
    }


class Readout(nn.Module):
    """One output of a model, with its weights."""

    def __init__(self, checkpoint: Checkpoint, output: Output) -> None:
        super().__init__()
        self.output, self.dimension = output, measure_dimension(checkpoint, output)
        # A copy: the weights are the mapped bytes of the file, which may be changed or cut.
        self.last = copy.deepcopy(BUILDERS[output.layer](checkpoint.heads)).float() if output.layer else nn.Identity()
        self.eval().requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Read embeddings.

        Args:
            maps: of the stages, (B, C, h, w) each, the last one last.
        Returns: float32 (B, dimension), rows of length 1; NaNs where there is no direction, or nothing finite.
        """
        return self.join(pool_maps(maps, self.output.pooling))

    def join(self, squares: Tensor) -> Tensor:
        """As `forward`, of what was pooled: float32 (B, R, D) -> (B, dimension)."""
        rows = self.last(squares.flatten(0, 1)).unflatten(0, squares.shape[:2])
        if rows.shape[1] > 1:
            # Of a square in which nothing is, a layer with a bias would make a direction.
            rows = functional.normalize(rows, dim=2) * squares.any(2, keepdim=True)
        return normalise(rows.sum(1))
