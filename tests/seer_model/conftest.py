"""Models in the table whose files lie on loopback."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from seer_model import zoo
from seer_model.zoo import MIT, ModelEntry, UrlSource
from tests.seer_model import making_weights as making
from tests.seer_model.file_server import Server


def serve() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serve()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """A second server, where the first keeps large files."""
    yield from serve()


@pytest.fixture
def add_model(server, monkeypatch) -> Callable[..., str]:
    """Put a model into the table whose VISSL file lies on the server."""

    def add(name: str = "test-model", *, licence=MIT, sources=None, content=None, parameters=50_000) -> str:
        sources = sources or (UrlSource(address=f"{server.address}/zoo/model.torch"),)
        entry = ModelEntry(
            name=name, architecture="400MF", dimension=64, parameters=parameters, licence=licence, sources=sources
        )
        monkeypatch.setitem(zoo.MODELS, name, entry)
        if content is not None:
            server.files["/zoo/model.torch"] = content
        return name

    return add


@pytest.fixture
def vissl_bytes(tmp_path) -> bytes:
    return making.save_vissl(making.make_checkpoint(heads=making.make_projection_heads()), tmp_path / "v").read_bytes()


@pytest.fixture
def hub(server, monkeypatch) -> Callable[[str, Path], None]:
    """The server in the hub's place."""
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def publish(repo_id: str, folder: Path) -> None:
        for path in folder.iterdir():
            server.files[f"/{repo_id}/resolve/main/{path.name}"] = path.read_bytes()

    return publish
