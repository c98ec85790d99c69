"""The feed: which pictures make up which batch, what is decoded how often, and what bad pictures and errors do."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from seer_model.errors import PileError, SettingsError
from seer_model.feed import Feed, Plan
from tests.device import DEVICE
from tests.seer_model.making_piles import MadePile, read_number

SIDE = 8
ROOMY = 10**9
THERE = torch.device(DEVICE)


@pytest.fixture(autouse=True)
def no_feed_is_left_behind():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]


def answer_of(function: Callable[[], object]) -> object:
    """What a function returns or raises; one that would wait for ever fails."""
    answer: Future = Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return answer.result(20)


def list_all(plan: Plan, first_step: int = 0) -> list[list[int]]:
    return [numbers.tolist() for numbers in plan.list_numbers(first_step)]


def run_feed(pile: MadePile, plan: Plan, *, memory_bytes: int = ROOMY, first_step: int = 0) -> list[list[int]]:
    """Which pictures come out, batch by batch; aspects must be theirs."""
    feed = Feed(pile, plan, side_px=SIDE, device=THERE, memory_bytes=memory_bytes, first_step=first_step)
    try:
        return answer_of(lambda: [read_batch(batch) for batch in feed])
    finally:
        feed.close()


def read_batch(batch) -> list[int]:
    assert (batch.pictures.dtype, batch.pictures.shape[1:]) == (torch.uint8, (3, SIDE, SIDE))
    assert (batch.aspects.dtype, batch.aspects.device) == (torch.float32, torch.device("cpu"))
    numbers = [read_number(picture) for picture in batch.pictures]
    torch.testing.assert_close(batch.aspects, 1 + torch.tensor(numbers) / 1000)
    return numbers


# --- the plan ----------------------------------------------------------------------------------------------------


def test_an_epoch_shows_each_picture_at_most_once_and_leaves_out_less_than_a_batch():
    steps = list_all(Plan(pictures=103, batch_size=10, steps=30))
    for epoch in range(3):
        seen = sum(steps[10 * epoch : 10 * (epoch + 1)], [])
        assert len(seen) == len(set(seen)) == 100
        assert set(seen) <= set(range(103))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    once = list_all(Plan(pictures=64, batch_size=64, steps=3))
    assert len({tuple(numbers) for numbers in once}) == 3
    assert list_all(Plan(pictures=64, batch_size=64, steps=3)) == once
    assert not any(
        a == b for a, b in zip(once, list_all(Plan(pictures=64, batch_size=64, steps=3, seed=1)), strict=True)
    )


def test_the_pictures_that_an_epoch_leaves_out_are_others_the_next_time():
    steps = list_all(Plan(pictures=15, batch_size=8, steps=40))
    assert set(sum(steps, [])) == set(range(15))
    assert len({frozenset(range(15)) - frozenset(numbers) for numbers in steps}) > 20


@pytest.mark.parametrize("first_step", [0, 1, 9, 10, 11, 29, 30])
def test_a_plan_taken_up_at_a_step_is_the_tail_of_the_whole(first_step: int):
    plan = Plan(pictures=103, batch_size=10, steps=30, seed=5)
    assert list_all(plan, first_step) == list_all(plan)[first_step:]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_parts_of_all_ranks_are_the_batch_of_one(ranks: int):
    whole = list_all(Plan(pictures=50, batch_size=12, steps=9))
    parts = [list_all(Plan(pictures=50, batch_size=12, steps=9, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert [sum(of_one_step, []) for of_one_step in zip(*parts, strict=True)] == whole


def test_a_run_that_ends_within_an_epoch_stops_there():
    assert len(list_all(Plan(pictures=20, batch_size=5, steps=6))) == 6


# --- windows -----------------------------------------------------------------------------------------------------

STARTS = (0, 30, 31, 60, 85)
IN_WINDOWS = Plan(pictures=103, batch_size=12, steps=30, window=24, starts=STARTS)
ROOM = 24 * 3 * SIDE**2
"""For one window, and not for all pictures."""


def list_reads(plan: Plan, first_step: int = 0) -> list[int]:
    return [number for numbers in plan.list_reads(first_step) for number in numbers.tolist()]


@pytest.mark.parametrize("first_step", [0, 1, 7, 8, 29, 30])
def test_a_plan_in_windows_taken_up_at_a_step_reads_what_is_left_of_the_epoch_and_no_more(first_step: int):
    assert list_all(IN_WINDOWS, first_step) == list_all(IN_WINDOWS)[first_step:]
    shown, reads = sum(list_all(IN_WINDOWS, first_step), []), list_reads(IN_WINDOWS, first_step)
    left = min(8 - first_step % 8, 30 - first_step) * 12
    assert sorted(reads[:left]) == sorted(shown[:left]), "what the epoch has shown is not read again"
    assert sorted(reads) == sorted(shown)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_rank_reads_its_part_of_a_batch_in_the_order_of_the_shards(ranks: int):
    parts = [replace(IN_WINDOWS, rank=rank, ranks=ranks) for rank in range(ranks)]
    lists = [list_all(part) for part in parts]
    assert [sum(of_one_step, []) for of_one_step in zip(*lists, strict=True)] == list_all(IN_WINDOWS)
    for part in parts:
        epoch = list_reads(part)[: 8 * 12 // ranks]
        # Within an epoch numbers fall only where one shard ends and another begins.
        assert sum(one > other for one, other in pairwise(epoch)) < len(STARTS)


@pytest.mark.parametrize("memory_bytes", [ROOM, ROOMY], ids=["waiting", "kept"])
@pytest.mark.parametrize("first_step", [0, 13])
def test_a_feed_in_windows_shows_what_the_plan_says_and_reads_as_it_says(memory_bytes: int, first_step: int):
    pile = MadePile(103, bad=(3, 17, 99))
    found = run_feed(pile, IN_WINDOWS, memory_bytes=memory_bytes, first_step=first_step)
    for batch, planned in zip(found, list_all(IN_WINDOWS, first_step), strict=True):
        assert all(one == other for one, other in zip(batch, planned, strict=True) if other not in (3, 17, 99))
    reads = list_reads(IN_WINDOWS, first_step)
    assert pile.decoded == (reads if memory_bytes == ROOM else list(dict.fromkeys(reads)))


def test_what_waits_for_its_turn_is_less_than_a_window():
    most = []

    class Watching(Feed):
        def _make_batch(self, numbers):
            most.append(len(self._waiting))
            return super()._make_batch(numbers)

    feed = Watching(MadePile(103), IN_WINDOWS, side_px=SIDE, device=THERE, memory_bytes=ROOM)
    assert len(answer_of(lambda: list(feed))) == 30
    feed.close()
    assert 12 < max(most) < 24 + 12


def test_a_window_that_takes_more_memory_than_is_granted_is_refused():
    with pytest.raises(SettingsError, match="--window 23 or less"):
        Feed(MadePile(103), IN_WINDOWS, side_px=SIDE, device=THERE, memory_bytes=ROOM - 1)
    halves = replace(IN_WINDOWS, ranks=2)
    Feed(MadePile(103), halves, side_px=SIDE, device=THERE, memory_bytes=ROOM // 2).close()


# --- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, ROOMY])
def test_batches_are_those_of_the_plan_with_the_aspect_of_each_picture(memory_bytes: int):
    plan = Plan(pictures=300, batch_size=20, steps=40)
    assert run_feed(MadePile(300), plan, memory_bytes=memory_bytes) == list_all(plan)


@pytest.mark.parametrize("memory_bytes", [0, ROOMY])
def test_a_feed_taken_up_in_the_middle_gives_the_tail(memory_bytes: int):
    plan = Plan(pictures=33, batch_size=4, steps=24)
    bad = (3, 17, 30)
    whole = run_feed(MadePile(33, bad=bad), plan, memory_bytes=memory_bytes)
    assert run_feed(MadePile(33, bad=bad), plan, memory_bytes=memory_bytes, first_step=13) == whole[13:]


def test_a_pile_that_fits_into_memory_decodes_each_picture_once():
    pile = MadePile(31, bad=(4,))
    run_feed(pile, Plan(pictures=31, batch_size=5, steps=60))
    assert sorted(pile.decoded) == list(range(31))


def test_a_pile_above_the_limit_is_decoded_again_in_each_epoch():
    pile = MadePile(30)
    run_feed(pile, Plan(pictures=30, batch_size=10, steps=12), memory_bytes=30 * 3 * SIDE**2 - 1)
    assert set(Counter(pile.decoded).values()) == {4}


def test_a_pile_exactly_at_the_limit_is_kept():
    pile = MadePile(30)
    run_feed(pile, Plan(pictures=30, batch_size=10, steps=12), memory_bytes=30 * 3 * SIDE**2)
    assert len(pile.decoded) == 30


def test_only_pictures_that_the_rank_sees_are_decoded():
    pile = MadePile(40)
    plan = Plan(pictures=40, batch_size=40, steps=1, rank=1, ranks=2)
    run_feed(pile, plan)
    assert sorted(pile.decoded) == sorted(list_all(plan)[0])


def test_what_was_decoded_in_a_batch_given_out_is_not_changed_by_later_ones():
    plan = Plan(pictures=12, batch_size=4, steps=30)
    feed = Feed(MadePile(12), plan, side_px=SIDE, device=THERE, memory_bytes=ROOMY)
    batches = list(feed)
    feed.close()
    for batch in batches[:3]:
        batch.pictures.zero_()
    assert [read_batch(batch) for batch in batches[3:]] == list_all(plan)[3:]


# --- bad pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [0, ROOMY])
def test_the_place_of_a_bad_picture_is_taken_by_others_of_its_batch_in_turn(memory_bytes: int):
    plan = Plan(pictures=24, batch_size=8, steps=9)
    bad = {1, 2, 3, 5, 8, 13, 21}
    batches = run_feed(MadePile(24, bad=bad), plan, memory_bytes=memory_bytes)
    for found, planned in zip(batches, list_all(plan), strict=True):
        good = [number for number in planned if number not in bad]
        assert all(one == other for one, other in zip(found, planned, strict=True) if other not in bad)
        stand_ins = [one for one, other in zip(found, planned, strict=True) if other in bad]
        assert stand_ins == [good[place % len(good)] for place in range(len(stand_ins))]


@pytest.mark.parametrize("memory_bytes", [0, ROOMY])
def test_a_bad_picture_is_counted_once_in_however_many_epochs(memory_bytes: int):
    pile = MadePile(24, bad=(1, 2, 3))
    run_feed(pile, Plan(pictures=24, batch_size=8, steps=12), memory_bytes=memory_bytes)
    assert set(pile.reasons) == {"1.jpg", "2.jpg", "3.jpg"}


@pytest.mark.parametrize("memory_bytes", [0, ROOMY])
def test_a_batch_without_any_good_picture_is_an_error_that_shows_a_reason(memory_bytes: int):
    with pytest.raises(PileError, match=r"None of the 8 pictures .* It is no picture\."):
        run_feed(MadePile(24, bad=range(24)), Plan(pictures=24, batch_size=8, steps=3), memory_bytes=memory_bytes)


def test_a_large_pile_that_is_mostly_bad_is_refused_once_that_is_sure():
    pile = MadePile(1000, bad=range(600))
    plan = Plan(pictures=1000, batch_size=50, steps=60)
    with pytest.raises(PileError, match=r"5[0-5]\d of 1000 pictures cannot be read"):
        run_feed(pile, plan)
    assert len(pile.decoded) < 1000


def test_a_pile_of_which_just_less_than_half_is_bad_is_good_enough():
    assert len(run_feed(MadePile(1000, bad=range(499)), Plan(pictures=1000, batch_size=50, steps=40))) == 40


# --- the thread --------------------------------------------------------------------------------------------------


def test_an_error_in_the_reader_reaches_the_one_who_asks_after_the_good_batches():
    plan = Plan(pictures=40, batch_size=10, steps=4)
    order = list_all(plan)
    feed = Feed(MadePile(40, fails_at=order[2][5]), plan, side_px=SIDE, device=THERE, memory_bytes=ROOMY)
    assert [read_batch(next(feed)), read_batch(next(feed))] == order[:2]
    for _ in range(2):  # who asks again must not wait for ever
        with pytest.raises(OSError, match="the disk is gone"):
            answer_of(lambda: next(feed))
    feed.close()


def test_the_end_stays_the_end():
    feed = Feed(MadePile(8), Plan(pictures=8, batch_size=8, steps=2), side_px=SIDE, device=THERE, memory_bytes=ROOMY)
    assert len(list(feed)) == 2
    assert answer_of(lambda: next(feed, None)) is None
    feed.close()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_ends_thread_and_reader_though_batches_are_left(taken: int):
    pile = MadePile(1000)
    feed = Feed(pile, Plan(pictures=1000, batch_size=10, steps=10**6), side_px=SIDE, device=THERE, memory_bytes=0)
    for _ in range(taken):
        next(feed)
    for _ in range(2):
        answer_of(feed.close)
    assert not pile.is_reading
    assert len(pile.decoded) <= 10 * (taken + 5), "batches are made no further ahead than needed"


def test_a_run_taken_up_at_its_end_gives_nothing_and_decodes_nothing():
    pile = MadePile(8)
    assert run_feed(pile, Plan(pictures=8, batch_size=4, steps=6), first_step=6) == []
    assert pile.decoded == []


def test_the_first_batch_of_a_long_run_does_not_wait_until_all_epochs_were_looked_through():
    asked = []

    class Watched(Plan):
        def list_numbers(self, first_step):
            for numbers in super().list_numbers(first_step):
                asked.append(threading.current_thread().name)
                yield numbers

    feed = Feed(
        MadePile(16), Watched(pictures=16, batch_size=16, steps=10**5), side_px=SIDE, device=THERE, memory_bytes=ROOMY
    )
    for _ in range(2):
        next(feed)
    feed.close()
    assert len(asked) < 20


def test_waiting_is_counted():
    release = threading.Event()

    class SlowPile(MadePile):
        def read(self, numbers):
            release.wait(5)
            yield from super().read(numbers)

    feed = Feed(SlowPile(8), Plan(pictures=8, batch_size=8, steps=1), side_px=SIDE, device=THERE, memory_bytes=0)
    threading.Timer(0.2, release.set).start()
    next(feed)
    assert feed.waited_seconds > 0.1
    feed.close()
