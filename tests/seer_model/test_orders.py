"""The order of an epoch: each picture once, drawn anew, the same everywhere, and in windows read shard by shard."""

import numpy as np
import pytest

from seer_model.orders import order_epoch

SHARDS = {
    "even": [0, 100, 200, 300, 400],
    "uneven": [0, 1, 2, 90, 93, 300, 480],
    "one": [0],
    "each by itself": list(range(497)),
}
PICTURES = 497
WINDOWS = (1, 2, 7, 64, 496, 10_000)


def order(starts: list[int] = SHARDS["uneven"], window: int = 64, **how: int) -> tuple[np.ndarray, np.ndarray]:
    return order_epoch(PICTURES, **{"seed": 3, "epoch": 5} | how, window=window, starts=starts)


def count_waiting(shown: np.ndarray, read: np.ndarray) -> int:
    """The most pictures that were read and not yet shown, once a picture has been shown."""
    place = np.empty(PICTURES, int)
    place[read] = np.arange(PICTURES)
    return int((np.maximum.accumulate(place[shown]) - np.arange(PICTURES)).max())


@pytest.mark.parametrize("starts", SHARDS.values(), ids=SHARDS)
@pytest.mark.parametrize("window", WINDOWS)
def test_each_picture_comes_once_within_its_window_and_shards_are_read_through(starts: list[int], window: int):
    shown, read = order(starts, window)
    assert sorted(shown) == sorted(read) == list(range(PICTURES))
    place = np.empty(PICTURES, int)
    place[read] = np.arange(PICTURES)
    assert np.abs(place[shown] - np.arange(PICTURES)).max() < window
    assert count_waiting(shown, read) < window
    for first, last in zip(starts, [*starts[1:], PICTURES], strict=True):
        assert read[place[first] : place[first] + last - first].tolist() == list(range(first, last))


def test_without_a_window_any_picture_may_come_anywhere_and_is_read_when_it_is_shown():
    shown, read = order_epoch(PICTURES, seed=3, epoch=5)
    assert sorted(shown) == list(range(PICTURES)) and np.array_equal(shown, read)
    assert np.array_equal(shown, np.random.default_rng([3, 5]).permutation(PICTURES)), "runs from before go on"


@pytest.mark.parametrize("window", [0, 64])
def test_an_order_is_made_of_seed_and_epoch_alone(window: int):
    once = order(window=window)[0]
    np.random.default_rng(1).random(7)
    assert np.array_equal(order(window=window)[0], once)
    for other in ({"seed": 4}, {"epoch": 6}):
        assert (order(window=window, **other)[0] != once).mean() > 0.9


def test_a_window_mixes_neighbours_and_neighbouring_shards():
    shown, read = order(SHARDS["even"], 150)
    assert (shown != read).mean() > 0.9
    shards = shown[:100] // 100
    assert 0.05 < (shards != shards[0]).mean() < 0.95
    assert len({tuple(order(SHARDS["even"], epoch=epoch)[1][::100] // 100) for epoch in range(40)}) > 20
