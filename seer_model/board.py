"""TensorBoard, where it is installed: the figures of a run, to be looked at while it goes on.

Rule: it is an extra. Where it is missing, or cannot be written, nothing is said and the run goes on.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STEP = "step"


@contextmanager
def open_board(folder: Path, step: int) -> Iterator[Callable[[dict], None]]:
    """Yield what takes lines of the log (`Figures.describe`), each value a curve of its own over the steps.

    Args:
        folder: what `tensorboard --logdir` is given.
        step: steps done so far; what an earlier piece of the run told of later ones is no longer shown.
    """
    writer = _open_writer(folder, step)
    if writer is None:
        yield lambda line: None
        return

    def add(line: dict) -> None:
        with contextlib.suppress(OSError):
            for name in line.keys() - {STEP}:
                writer.add_scalar(name, line[name], line[STEP])
            writer.flush()

    try:
        yield add
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _open_writer(folder: Path, step: int) -> object | None:
    try:
        # Torch brings the door, the package tensorboard what is behind it.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=step + 1)
    except (ImportError, OSError):
        return None
