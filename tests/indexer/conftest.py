"""Fixtures: pictures to build from, and the pixel backbone for tests that are not about the network."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from indexer import fitting, remote
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw

if TYPE_CHECKING:
    from tests.indexer.object_store import ObjectStore


@pytest.fixture
def by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed without torch."""
    pixel_backbone.install(monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with nine pictures in two subfolders."""
    folder = tmp_path / "pictures"
    for seed in range(9):
        draw(folder / ("a" if seed % 2 else "b") / f"picture-{seed}.png", seed)
    return folder


@pytest.fixture
def approximate(place: Path, pictures: Path, by_pixels: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection of 49 pictures that answers from an approximate index."""
    monkeypatch.setattr(fitting, "LEAST_ROWS", 16)
    for seed in range(100, 140):
        draw(pictures / f"more-{seed}.png", seed)
    assert build(place, pictures, exact_ms=0.0, batch_size=16).images == 49
    assert (place / "generations" / "000001" / "index.faiss").is_file()
    return place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the collection goes."""
    return tmp_path / "collection"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator["ObjectStore"]:
    """An empty bucket behind s3://pictures, with short patience towards it."""
    from tests.indexer.object_store import serve_objects  # a computer that only embeds has no moto

    monkeypatch.setattr(remote, "FIRST_SECONDS", 0.01)
    with serve_objects() as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        remote._find_system.cache_clear()
        yield served
    remote._find_system.cache_clear()


@pytest.fixture
def web_folder() -> Iterator[Callable[[Path], str]]:
    """Serves a folder with its listings, as a plain web server does. Returns: its URL."""
    with ExitStack() as stack:

        def serve(folder: Path) -> str:
            handler = partial(QuietHandler, directory=str(folder))
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield serve


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
