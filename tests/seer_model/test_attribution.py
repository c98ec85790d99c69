"""Attribution: each place of a picture by itself, by hand."""

import numpy as np
import pytest
import torch

from seer_model.attribution import attribute
from seer_model.backbone import open_backbone
from seer_model.checkpoint import write_checkpoint
from seer_model.outputs import POOLINGS
from seer_model.poolings import normalise, pool_maps
from tests.device import DEVICE
from tests.seer_model import making_weights as making


@pytest.mark.parametrize("name", ["average", "gem", "gem-both", "rmac"])
def test_each_place_is_the_readout_of_its_window_alone(name: str):
    generator = torch.Generator().manual_seed(1)
    maps = [torch.rand((1, 3, 8, 8), generator=generator), torch.rand((1, 5, 4, 4), generator=generator)]
    pooling = POOLINGS[name]

    def read(windows: list[torch.Tensor]) -> torch.Tensor:
        return normalise(pool_maps(windows, pooling).sum(1))

    width = sum(maps[stage].shape[1] for stage in pooling.stages)
    aim = normalise(torch.rand(width, generator=generator))
    found = attribute(maps, pooling.stages, read, aim)
    side = 8 if -2 in pooling.stages else 4
    assert found.shape == (side, side)
    for row, column in ((0, 0), (1, 2), (side - 1, side - 1)):
        windows = []
        for one in maps:
            fine = one.repeat_interleave(side // one.shape[2], 2).repeat_interleave(side // one.shape[3], 3)
            rows, columns = ([min(max(at + step, 0), side - 1) for step in (-1, 0, 1)] for at in (row, column))
            windows.append(fine[:, :, rows][:, :, :, columns] if side >= one.shape[2] else one)
        assert float(found[row, column]) == pytest.approx(float((read(windows)[0] * aim).sum()), abs=1e-5)


def test_a_place_where_nothing_is_matches_nothing():
    maps = [torch.zeros((1, 3, 4, 4))]
    found = attribute(maps, (-1,), lambda windows: normalise(windows[-1].mean((2, 3))), torch.ones(3) / 3**0.5)
    assert (found == -1).all()


def test_a_backbone_compares_places_and_changes_nothing_about_its_embeddings(tmp_path):
    write_checkpoint(making.make_checkpoint(), tmp_path / "tiny.safetensors")
    backbone = open_backbone(str(tmp_path / "tiny.safetensors"), device=DEVICE, batch_size=1)
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    before = backbone.embed([picture])
    places = backbone.find_matching_places(picture, before[0])
    assert places.dtype == np.float32 and places.ndim == 2 and np.isfinite(places).all()
    assert (abs(places) <= 1 + 1e-5).all() and np.array_equal(backbone.embed([picture]), before)
