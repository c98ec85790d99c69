"""The feed: which pictures make up which batch, and how they get to the device before it asks for them.

The order of each epoch is made of the seed and the epoch alone (`orders`). What fits into memory is decoded once, the
first time that it is needed, and kept on the device as squares of uint8; a pile that would need more memory than is
granted is decoded again in each epoch, and what was read before its turn (in windows) waits in memory. A batch is put
together in a thread while the one before is learnt from.

Rule: a batch always has its full size: the place of a picture that cannot be read is taken by another of the batch.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seer_model.errors import PileError, SettingsError
from seer_model.orders import order_epoch
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
    starts: Sequence[int]
    """The number of the first picture of each file that holds some; only asked for where the order has windows."""

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
    window: int = 0
    starts: Sequence[int] = ()
    """Both as `orders.order_epoch` has them."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the pile; the pictures that are left over are others in each epoch."""
        return self.pictures // self.batch_size

    def list_numbers(self, first_step: int) -> Iterator[np.ndarray]:
        """The numbers of this rank's pictures, step by step, from a step on."""
        for numbers, _ in self._list_epochs(first_step):
            yield from numbers

    def list_reads(self, first_step: int) -> Iterator[np.ndarray]:
        """The same numbers as they are to be read, piece by piece: in windows each shard from its beginning on."""
        if not self.window:
            yield from self.list_numbers(first_step)
            return
        places = np.empty(self.pictures, np.int64)
        for numbers, read in self._list_epochs(first_step):
            places[read] = np.arange(self.pictures)
            yield read[np.sort(places[numbers.ravel()])]

    def _list_epochs(self, first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Epoch by epoch the numbers (steps, b) of this rank in the steps that are left, and all numbers as read."""
        share = self.batch_size // self.ranks
        mine = slice(self.rank * share, (self.rank + 1) * share)
        while first_step < self.steps:
            epoch, place = divmod(first_step, self.steps_per_epoch)
            how = {"window": self.window, "starts": self.starts}
            shown, read = order_epoch(self.pictures, seed=self.seed, epoch=epoch, **how)
            first_step += (steps := min(self.steps_per_epoch - place, self.steps - first_step))
            whole = shown[: self.steps_per_epoch * self.batch_size].reshape(-1, self.batch_size)
            yield whole[place : place + steps, mine], read


def count_bytes(pictures: int, side_px: int) -> int:
    """What so many squares take in memory."""
    return pictures * 3 * side_px**2


class Feed:
    """Batches from a step on, in order. Iterate once; then `close`."""

    def __init__(
        self, pile: Pile, plan: Plan, *, side_px: int, device: torch.device, memory_bytes: int, first_step: int = 0
    ) -> None:
        """Raises: SettingsError when a window takes more memory than is granted."""
        self.waited_seconds = 0.0
        """How long `__next__` had nothing to give out."""
        self._pile, self._plan, self._side_px, self._device = pile, plan, side_px, device
        self._first_step = first_step
        self._is_bad = np.zeros(plan.pictures, bool)
        is_kept = count_bytes(plan.pictures, side_px) <= memory_bytes
        self._store = _Store(plan.pictures, side_px, device) if is_kept else None
        self._waiting: dict[int, Square | None] = {}
        if not is_kept:
            _require_room(plan, side_px, memory_bytes)
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
        squares = self._read_each()
        for numbers in self._plan.list_numbers(self._first_step):
            for number in self._list_missing(numbers):
                while not self._is_here(number):
                    self._take_in(*next(squares))
            yield self._make_batch(numbers)

    def _read_each(self) -> Iterator[tuple[int, Square | None]]:
        """Pictures with their numbers, as they are read; the pile asks ahead of time."""
        asked: deque[int] = deque()

        def ask() -> Iterator[int]:
            for number in self._list_needed():
                asked.append(number)
                yield number

        for square in self._pile.read(ask()):
            yield asked.popleft(), square

    def _list_needed(self) -> Iterator[int]:
        asked = np.zeros(self._plan.pictures, bool)
        for numbers in self._plan.list_reads(self._first_step):
            yield from numbers[~asked[numbers]].tolist()
            asked[numbers] = self.is_kept
            if asked.all():
                return  # without looking through the steps of all epochs to come

    def _list_missing(self, numbers: np.ndarray) -> list[int]:
        return (numbers if self._store is None else numbers[~self._store.is_known[numbers]]).tolist()

    def _is_here(self, number: int) -> bool:
        return number in self._waiting if self._store is None else bool(self._store.is_known[number])

    def _take_in(self, number: int, square: Square | None) -> None:
        if self._store is None:
            self._waiting[number] = square
        else:
            self._store.put(number, square)

    def _make_batch(self, numbers: np.ndarray) -> Batch:
        if self._store is not None:
            return self._store.take(numbers[self._stand_in(numbers, self._store.is_good[numbers])])
        found = [self._waiting.pop(number) for number in numbers.tolist()]
        places = self._stand_in(numbers, np.array([square is not None for square in found]))
        chosen = [found[place] for place in places]
        pictures = torch.from_numpy(np.stack([square.pixels for square in chosen])).to(self._device)
        aspects = torch.tensor([square.aspect for square in chosen], dtype=torch.float32)
        return Batch(pictures.permute(0, 3, 1, 2).contiguous(), aspects)

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


def _require_room(plan: Plan, side_px: int, memory_bytes: int) -> None:
    needed = count_bytes(plan.window, side_px) // plan.ranks
    if needed > memory_bytes:
        raise SettingsError(
            f"A window of {plan.window:,} pictures takes {needed / 2**30:.2f} GB on each rank, and --memory grants "
            f"{memory_bytes / 2**30:.2f}. Use --window {plan.window * memory_bytes // needed} or less."
        )


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
