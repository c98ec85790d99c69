"""The poolings: each against its formula written slowly, the squares of R-MAC against a list made by hand."""

import math

import numpy as np
import pytest
import torch

from seer_model.outputs import POOLINGS
from seer_model.poolings import list_squares, pool_maps


def draw_map(channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(seed)).pow(4)


def pool_slowly(feature_map: np.ndarray) -> np.ndarray:
    """R-MAC of one map (C, H, W), as its paper words it: cell by cell, with no square left out."""
    channels, height, width = feature_map.shape
    short, long = min(height, width), max(height, width)
    along = 1
    if long > short:
        overlaps = {count: (short - (long - short) / (count - 1)) / short for count in range(2, 40)}
        along = min(overlaps, key=lambda count: abs(overlaps[count] - 0.4))
    total = np.zeros(channels)
    for level in (1, 2, 3):
        side = max(1, math.floor(2 * short / (level + 1)))
        down, across = (level + (along - 1 if one == long > short else 0) for one in (height, width))
        for row in range(down):
            for column in range(across):
                top = math.floor(row * (height - side) / max(1, down - 1) + 1e-9)
                left = math.floor(column * (width - side) / max(1, across - 1) + 1e-9)
                largest = np.array(
                    [max(channel[y][x] for y in range(top, top + side) for x in range(left, left + side))
                     for channel in feature_map]
                )  # fmt: skip
                total += largest / math.sqrt((largest**2).sum())
    return total / math.sqrt((total**2).sum())


@pytest.mark.parametrize("size", [(7, 7), (14, 14), (7, 10), (13, 5), (3, 17), (2, 2), (1, 1), (1, 4)])
def test_rmac_is_what_its_paper_says(size):
    maps = [draw_map(3, *size), draw_map(5, *size, seed=1)]
    found = pool_maps(maps, POOLINGS["rmac"]).sum(1)
    found /= found.norm(dim=1, keepdim=True)
    expected = [pool_slowly(one.double().numpy()) for one in maps[-1]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_squares_of_a_small_map_are_these():
    assert list(list_squares(7, 7)) == [
        (0, 0, 7),
        *((top, left, 4) for top in (0, 3) for left in (0, 3)),
        *((top, left, 3) for top in (0, 2, 4) for left in (0, 2, 4)),
    ]
    # Two of the short side: they share 4 of 7, where three would share 5.5.
    assert list(list_squares(7, 10)) == [
        *((0, left, 7) for left in (0, 3)),
        *((top, left, 4) for top in (0, 3) for left in (0, 3, 6)),
        *((top, left, 3) for top in (0, 2, 4) for left in (0, 2, 4, 7)),
    ]
    assert sorted((left, top, side) for top, left, side in list_squares(10, 7)) == sorted(list_squares(7, 10))


def test_gem_is_the_cube_root_of_the_mean_cube_of_each_map_side_by_side():
    third = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[1.5, 1.5], [1.5, 1.5]]]], dtype=torch.float16)
    last = torch.tensor([[[[3.0]], [[4.0]], [[0.0]]]])
    found = pool_maps([torch.rand(1, 7, 8, 8), third, last], POOLINGS["gem-both"])
    assert found.dtype == torch.float32
    strong, even = 9.0 ** (1 / 3), 1.5  # (0 + 1 + 8 + 27) / 4 = 9
    length = (strong**2 + even**2) ** 0.5
    torch.testing.assert_close(found, torch.tensor([[[strong / length, even / length, 0.6, 0.8, 0.0]]]))
    torch.testing.assert_close(pool_maps([third, last], POOLINGS["gem-res4"]), found[..., :2])
    torch.testing.assert_close(pool_maps([third, last], POOLINGS["gem"]), found[..., 2:])
    assert pool_maps([third * 0, last], POOLINGS["gem-both"]).isnan().any()


def test_the_average_is_that_of_the_map_that_is_asked_for():
    third, last = draw_map(3, 4, 6), draw_map(5, 2, 3)
    torch.testing.assert_close(pool_maps([third, last], POOLINGS["average"])[:, 0], last.flatten(2).mean(2))
    torch.testing.assert_close(pool_maps([third, last], POOLINGS["average-res4"])[:, 0], third.flatten(2).mean(2))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_does_not_become_a_direction(name, value):
    maps = [draw_map(3, 4, 4), draw_map(5, 4, 4)]
    for one in maps:
        one[1, 2, 3, 0] = value
    rows = pool_maps(maps, POOLINGS[name])
    is_finite = rows.sum(1).isfinite().all(1)
    assert is_finite.tolist() == [True, False]
