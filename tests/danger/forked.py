"""Changes to collections in processes of their own, made cheaply: one that has imported everything forks for each.

    with Forker(folder) as forker:
        change = forker.start("build", place, pictures)
        change.kill()            # from outside, SIGKILL
        forker.run("build", place, pictures)

Rule: the process that forks does no work itself, so that it has no threads and its children begin alike.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock

from indexer.layout import LOCK
from tests.conftest import REPOSITORY

PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a change ended: `signal` killed it, or it said `told` (a report's fields, or what was raised)."""

    signal: int
    told: dict
    seconds: float


class Change:
    """One change under way, in a process group of its own."""

    def __init__(self, server: subprocess.Popen, place: Path) -> None:
        self._server, self._place = server, place
        self.process = int(server.stdout.readline())

    def kill(self, *, group: bool = False) -> None:
        """End it as `kill -9` does: the process alone, whose decoding processes are to notice, or its group."""
        with suppress(ProcessLookupError):  # It was faster.
            (os.killpg if group else os.kill)(self.process, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait until it has ended, and all that it has started too."""
        ended = Ended(**json.loads(self._server.stdout.readline()))
        if self._place.is_dir():
            # Decoding processes that were forked have the lock as well, until they notice.
            FileLock(self._place / LOCK).acquire(timeout=PATIENCE_SECONDS).lock.release()
        return ended


class Forker:
    """The process that forks. `backbone`: "pixels", or "real"."""

    def __init__(self, folder: Path, backbone: str = "pixels") -> None:
        self._said = (folder / "said").open("w+")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.danger.forked", backbone],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(PATIENCE_SECONDS)
        self._server.stdout.close()
        self._said.close()

    def start(
        self, kind: str, place: Path, *pictures: Path, die_at: tuple[str, int] | None = None, **settings: object
    ) -> Change:
        """Begin a change.

        Args:
            kind: build, prune or repair.
            die_at: a step, and how often it is done before the process kills itself there.
        """
        told = {"kind": kind, "place": str(place), "pictures": [*map(str, pictures)], "die_at": die_at}
        self._server.stdin.write(json.dumps({**told, "settings": settings}) + "\n")
        self._server.stdin.flush()
        return Change(self._server, place)

    def run(self, kind: str, place: Path, *pictures: Path, **settings: object) -> Ended:
        """Make a change and wait for its end."""
        return self.start(kind, place, *pictures, **settings).wait()


def serve(backbone: str) -> None:
    """Fork for each line that comes in, and say how that ended."""
    _load(backbone)
    for line in sys.stdin:
        reading, writing = os.pipe()
        started = time.monotonic()
        process = os.fork()
        if process == 0:
            os.setsid()
            os.write(writing, json.dumps(_change(json.loads(line))).encode())
            os._exit(0)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        seconds = time.monotonic() - started
        os.set_blocking(reading, False)  # Decoding processes may hold the other end open for a while.
        os.close(writing)
        said = b"" if os.WIFSIGNALED(status) else os.read(reading, 1 << 20)
        os.close(reading)
        ended = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "told": json.loads(said or b"{}")}
        print(json.dumps({**ended, "seconds": seconds}), flush=True)


def _load(backbone: str) -> None:
    """Everything that a change needs, once; decoding processes are forked too, or each build would load them anew."""
    import indexer.check
    import indexer.index
    import indexer.job
    import indexer.upkeep
    import tests.indexer.making  # noqa: F401
    from tests.indexer import pixel_backbone

    if backbone == "pixels":
        pixel_backbone.install()
    else:
        import indexer.embed  # noqa: F401
    warnings.simplefilter("ignore", DeprecationWarning)  # Later Pythons warn of forking beside threads.
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context


def _change(asked: dict) -> dict:
    left = asked["die_at"] and asked["die_at"][1]

    def on_step(name: str) -> None:
        nonlocal left
        if asked["die_at"] and name == asked["die_at"][0]:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        return _make(asked, on_step)
    except Exception as error:
        traceback.print_exc()
        return {"raised": type(error).__name__, "text": str(error)}


def _make(asked: dict, on_step) -> dict:
    from indexer.check import check_collection
    from indexer.report import Watchers
    from indexer.upkeep import prune_collection
    from tests.indexer.making import build

    place = Path(asked["place"])
    if asked["kind"] == "prune":
        return prune_collection(place, on_step=on_step).describe()
    if asked["kind"] == "repair":
        return check_collection(place, repair=True, on_step=on_step).describe()
    pictures = map(Path, asked["pictures"])
    return build(place, *pictures, watchers=Watchers(on_step=on_step), **asked["settings"]).describe()


if __name__ == "__main__":
    serve(*sys.argv[1:])
