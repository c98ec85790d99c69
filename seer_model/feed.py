"""The feed: which pictures make up which batch, and how they get to the device before it asks for them.

The order is a permutation of the pile for each epoch, made of the seed and the epoch alone. What fits into memory is
decoded once, the first time that it is needed, and kept on the device as squares of uint8; a pile that would need more
memory than is granted is decoded again in each epoch. A batch is put together in a thread while the one before is
learnt from.

Rule: a batch always has its full size: the place of a picture that cannot be read is taken by another of the batch.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seer_model.errors import PileError
from seer_model.squares import Square

BATCHES_AHEAD = 2
MOST_BAD = 0.5
ENOUGH_TO_JUDGE = 200
"""Pictures read before a share of bad ones means anything."""


class Pile(Protocol):
    """Pictures to learn from, by number."""

    fingerprint: str
    """Equal for equal pictures in equal order."""
    reasons: dict[str, str]
    """Name -> reason of the pictures that could not be read so far."""

    def __len__(self) -> int: ...

    def read(self, numbers: Iterable[int]) -> Iterator[Square | None]:
        """Pictures in the order asked for, None for a bad one; `numbers` is taken ahead of what is given out."""


@dataclass(frozen=True)
class Batch:
    """The pictures of one step: uint8 (b, 3, S, S) on the device, and their aspects, float32 (b,) on the CPU."""

    pictures: Tensor
    aspects: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which pictures a rank sees in which step."""

    pictures: int
    batch_size: int
    """Over all ranks."""
    steps: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the pile; the pictures that are left over are others in each epoch."""
        return self.pictures // self.batch_size

    def list_numbers(self, first_step: int) -> Iterator[np.ndarray]:
        """The numbers of this rank's pictures, step by step, from a step on."""
        share = self.batch_size // self.ranks
        order, ordered = np.empty(0, np.int64), -1
        for step in range(first_step, self.steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                order, ordered = np.random.default_rng([self.seed, epoch]).permutation(self.pictures), epoch
            start = place * self.batch_size + self.rank * share
            yield order[start : start + share]


class Feed:
    """Batches from a step on, in order. Iterate once; then `close`."""

    def __init__(
        self, pile: Pile, plan: Plan, *, side_px: int, device: torch.device, memory_bytes: int, first_step: int = 0
    ) -> None:
        self.waited_seconds = 0.0
        """How long `__next__` had nothing to give out."""
        self._pile, self._plan, self._side_px, self._device = pile, plan, side_px, device
        self._first_step = first_step
        self._is_bad = np.zeros(plan.pictures, bool)
        self._store = _Store(plan.pictures, side_px, device) if self._fits(memory_bytes) else None
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)
        self._thread.start()

    @property
    def is_kept(self) -> bool:
        """Whether pictures stay in memory once decoded."""
        return self._store is not None

    @property
    def bad(self) -> list[int]:
        """Numbers of this rank's pictures that could not be read so far."""
        return np.flatnonzero(self._is_bad).tolist()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started = time.monotonic()
        batch = self._ready.get()
        self.waited_seconds += time.monotonic() - started
        if isinstance(batch, Batch):
            return batch
        self._ready.put(batch)  # for whoever asks once more: there is nobody left to put anything in
        raise StopIteration if batch is None else batch

    def close(self) -> None:
        """End the thread; batches that are ready are dropped."""
        self._is_closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _fits(self, memory_bytes: int) -> bool:
        return self._plan.pictures * 3 * self._side_px**2 <= memory_bytes

    def _fill(self) -> None:
        try:
            for batch in self._make_batches():
                if not self._put(batch):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who asks for a batch must see it.
            self._put(error)

    def _put(self, batch: Batch | BaseException | None) -> bool:
        while not self._is_closed.is_set():
            try:
                self._ready.put(batch, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _make_batches(self) -> Iterator[Batch]:
        squares = self._pile.read(self._list_needed())
        for numbers in self._plan.list_numbers(self._first_step):
            yield self._make_batch(numbers, squares)

    def _list_needed(self) -> Iterator[int]:
        """Pictures to decode, in the order in which batches need them; the pile asks ahead of time."""
        asked = np.zeros(self._plan.pictures, bool)
        for numbers in self._plan.list_numbers(self._first_step):
            yield from numbers[~asked[numbers]].tolist()
            asked[numbers] = self.is_kept
            if asked.all():
                return  # without looking through the steps of all epochs to come

    def _make_batch(self, numbers: np.ndarray, squares: Iterator[Square | None]) -> Batch:
        if self._store is None:
            found = [next(squares) for _ in numbers]
            places = self._stand_in(numbers, np.array([square is not None for square in found]))
            chosen = [found[place] for place in places]
            pictures = torch.from_numpy(np.stack([square.pixels for square in chosen])).to(self._device)
            aspects = torch.tensor([square.aspect for square in chosen], dtype=torch.float32)
            return Batch(pictures.permute(0, 3, 1, 2).contiguous(), aspects)
        for number in numbers[~self._store.is_known[numbers]].tolist():
            self._store.put(number, next(squares))
        return self._store.take(numbers[self._stand_in(numbers, self._store.is_good[numbers])])

    def _stand_in(self, numbers: np.ndarray, is_good: np.ndarray) -> np.ndarray:
        """Places in a batch, those of bad pictures replaced by good ones, in turn."""
        self._is_bad[numbers[~is_good]] = True
        require_mostly_good(len(self._pile.reasons), self._pile)
        good = np.flatnonzero(is_good)
        if not len(good):
            raise PileError(f"None of the {len(is_good)} pictures of a batch can be read. {_show_reason(self._pile)}")
        places = np.arange(len(is_good))
        places[~is_good] = np.resize(good, (~is_good).sum())
        return places


def require_mostly_good(bad: int, pile: Pile) -> None:
    """Refuse a pile of which more than half cannot be read, or nothing at all.

    Args:
        bad: pictures that could not be read so far, on one rank or on all.
    Raises: PileError.
    """
    if bad == len(pile) or (bad > MOST_BAD * len(pile) and bad >= ENOUGH_TO_JUDGE):
        raise PileError(f"{bad} of {len(pile)} pictures cannot be read. {_show_reason(pile)}")


def _show_reason(pile: Pile) -> str:
    found = next(iter(pile.reasons.items()), None)
    return f"{f'The first was {found[0]}: {found[1]} ' if found else ''}Check that these are pictures."


class _Store:
    """Squares of all pictures in one array, filled as they are first needed."""

    def __init__(self, pictures: int, side_px: int, device: torch.device) -> None:
        # Not zeroed: memory that no picture has been put into yet costs nothing on a CPU.
        self._pixels = torch.empty((pictures, 3, side_px, side_px), dtype=torch.uint8, device=device)
        self._aspects = torch.ones(pictures)
        self.is_known, self.is_good = np.zeros(pictures, bool), np.zeros(pictures, bool)

    def put(self, number: int, square: Square | None) -> None:
        self.is_known[number] = True
        if square is not None:
            self._pixels[number] = torch.from_numpy(square.pixels).to(self._pixels.device).permute(2, 0, 1)
            self._aspects[number] = square.aspect
            self.is_good[number] = True

    def take(self, numbers: np.ndarray) -> Batch:
        chosen = torch.from_numpy(numbers)
        return Batch(self._pixels[chosen.to(self._pixels.device)], self._aspects[chosen])
