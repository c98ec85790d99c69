"""A build in a process of its own that dies at a named step; arguments: PLACE PICTURES STEP N.

It dies by `os._exit` the N-th time that the step is done: nothing is flushed, closed or rolled back.
"""

import os
import sys
from pathlib import Path

from indexer.report import Watchers
from tests.indexer import pixel_backbone
from tests.indexer.making import build

DIED = 9


def main(place: str, pictures: str, step: str, times: str) -> None:
    """Build, and die as told."""
    pixel_backbone.install()
    left = int(times)

    def on_step(name: str) -> None:
        nonlocal left
        left -= name == step
        if left == 0:
            os._exit(DIED)

    build(Path(place), Path(pictures), watchers=Watchers(on_step=on_step))


if __name__ == "__main__":
    main(*sys.argv[1:])
