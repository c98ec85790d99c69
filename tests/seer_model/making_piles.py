"""A pile that is made up on the spot: each picture says by its colour which one it is."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from seer_model.squares import Square

AHEAD = 7
"""Numbers that `read` takes before it gives out the square of the first, as worker processes make a pile do."""


def make_square(number: int, side_px: int = 8) -> Square:
    """One colour, by which `read_number` knows the picture again."""
    pixels = np.empty((side_px, side_px, 3), np.uint8)
    pixels[:] = (number % 256, number // 256, 7)
    return Square(pixels, 1 + number / 1000)


def read_number(picture: np.ndarray) -> int:
    """Which picture of a pile this is: uint8 (3, S, S), as a feed gives it out."""
    return int(picture[0, 0, 0]) + 256 * int(picture[1, 0, 0])


class MadePile:
    """Pictures from 0 on, some of them bad; at `fails_at` the reading itself breaks."""

    def __init__(
        self, pictures: int, *, side_px: int = 8, bad: Collection[int] = (), fails_at: int | None = None
    ) -> None:
        self.fingerprint = f"{pictures} made up"
        self.reasons: dict[str, str] = {}
        self.decoded: list[int] = []
        """Numbers in the order of their decoding."""
        self.starts = range(pictures)
        self.is_reading = False
        self._pictures, self._side_px, self._bad, self._fails_at = pictures, side_px, frozenset(bad), fails_at

    def __len__(self) -> int:
        return self._pictures

    def read(self, numbers: Iterable[int]) -> Iterator[Square | None]:
        """As `seer_model.feed.Pile` has it."""
        ahead: deque[int] = deque()
        self.is_reading = True
        try:
            for number in numbers:
                ahead.append(number)
                if len(ahead) > AHEAD:
                    yield self._decode(ahead.popleft())
            while ahead:
                yield self._decode(ahead.popleft())
        finally:
            self.is_reading = False

    def _decode(self, number: int) -> Square | None:
        if number == self._fails_at:
            raise OSError("the disk is gone")
        self.decoded.append(number)
        if number in self._bad:
            self.reasons[f"{number}.jpg"] = "It is no picture."
            return None
        return make_square(number, self._side_px)
