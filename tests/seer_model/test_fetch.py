"""Fetching from a server on loopback: terms first, resumed where it stopped, nothing half-written under its name."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from seer_model import fetch, zoo
from seer_model.checkpoint import read_checkpoint
from seer_model.errors import DownloadFailed, LicenceNotAccepted, ModelError, ModelUnknown
from seer_model.zoo import MIT, SEER, HubSource, ModelEntry, UrlSource, find_model, models_folder
from tests.seer_model import making_weights as making

CHUNK_BYTES = 4096


class Server(ThreadingHTTPServer):
    """Serves `files` by path, with ranges; can cut the connection after so many bytes of body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.sent_bytes = 0
        self.cut_after_bytes: int | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """As a file server and, with its headers, as the hub."""

    server: Server

    def do_HEAD(self) -> None:
        self.answer(has_body=False)

    def do_GET(self) -> None:
        self.answer(has_body=True)

    def answer(self, *, has_body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = self.read_start(tag)
        if start > len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if has_body:
            self.send_body(content[start:])

    def read_start(self, tag: str) -> int:
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if not asked or condition not in (None, tag):
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def send_body(self, body: bytes) -> None:
        for start in range(0, len(body), CHUNK_BYTES):
            if self.server.cut_after_bytes is not None and self.server.sent_bytes >= self.server.cut_after_bytes:
                self.server.cut_after_bytes = None
                self.close_connection = True
                return
            self.wfile.write(body[start : start + CHUNK_BYTES])
            self.server.sent_bytes += len(body[start : start + CHUNK_BYTES])

    def log_message(self, *args: object) -> None:
        """Tests print nothing of their own."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def add_model(server, monkeypatch):
    """Put a model into the table whose VISSL file lies on the server."""

    def add(name: str = "test-model", *, licence=MIT, sources=None, content: bytes | None = None) -> str:
        sources = sources or (UrlSource(address=f"{server.address}/zoo/model.torch"),)
        entry = ModelEntry(
            name=name, architecture="400MF", dimension=64, parameters=50_000, licence=licence, sources=sources
        )
        monkeypatch.setitem(zoo.MODELS, name, entry)
        if content is not None:
            server.files["/zoo/model.torch"] = content
        return name

    return add


@pytest.fixture
def vissl_bytes(tmp_path) -> bytes:
    return making.save_vissl(making.make_checkpoint(heads=making.make_projection_heads()), tmp_path / "v").read_bytes()


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_is_the_model(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    assert checkpoint.layout == "seer"
    making.assert_same_weights(checkpoint.trunk, making.make_checkpoint().trunk)


# Terms


def test_terms_that_are_not_accepted_stop_before_any_connection(add_model, server, vissl_bytes):
    name = add_model(licence=SEER, content=vissl_bytes)
    with pytest.raises(LicenceNotAccepted, match="non-commercial research only.*--accept-licence"):
        fetch.fetch_model(name)
    assert server.requests == []
    assert not models_folder().exists()


def test_accepted_terms_are_recorded(add_model, vissl_bytes):
    name = add_model(licence=SEER, content=vissl_bytes)
    record = json.loads((fetch.fetch_model(name, accept_licence=True).parent / "model.json").read_text())
    assert record["licence_accepted"] is True
    assert record["licence"]["notice"].startswith("SEER is licensed under SEER license")


# From an address


def test_a_vissl_file_arrives_as_our_safetensors_with_a_record(add_model, server, vissl_bytes):
    name = add_model(content=vissl_bytes)
    reports = []
    path = fetch.fetch_model(name, on_progress=reports.append)
    assert path == models_folder() / name / "model.safetensors"
    assert_is_the_model(path)
    assert sorted(read_checkpoint(path).heads) == sorted(making.make_projection_heads())
    assert list_files(path.parent) == ["model.json", "model.safetensors"]
    assert reports[-1].done_bytes == reports[-1].total_bytes == len(vissl_bytes)

    record = json.loads((path.parent / "model.json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["size_bytes"] == path.stat().st_size
    assert record["source"] == f"{server.address}/zoo/model.torch"
    assert record["downloaded"] == [
        {"file": "model.torch", "size_bytes": len(vissl_bytes), "sha256": hashlib.sha256(vissl_bytes).hexdigest()}
    ]
    assert find_model(name).path == path


def test_a_model_that_is_here_is_not_fetched_again(add_model, server, vissl_bytes):
    name = add_model(content=vissl_bytes)
    fetch.fetch_model(name)
    asked = len(server.requests)
    fetch.fetch_model(name)
    assert len(server.requests) == asked


def test_a_model_that_changed_is_fetched_again(add_model, server, vissl_bytes):
    name = add_model(content=vissl_bytes)
    path = fetch.fetch_model(name)
    path.write_bytes(b"something else")
    assert_is_the_model(fetch.fetch_model(name))


def test_an_interrupted_download_goes_on_where_it_stopped(add_model, server, vissl_bytes):
    name = add_model(content=vissl_bytes)
    server.cut_after_bytes = 5 * CHUNK_BYTES
    with pytest.raises(DownloadFailed, match=f"20480 of {len(vissl_bytes)} bytes.*again to go on"):
        fetch.fetch_model(name)
    assert not (models_folder() / name / "model.safetensors").exists()
    assert_is_the_model(fetch.fetch_model(name))
    assert server.requests[-1] == ("GET", "/zoo/model.torch", "bytes=20480-")
    assert server.sent_bytes == len(vissl_bytes)


def test_two_versions_of_a_file_are_never_mixed(add_model, server, vissl_bytes):
    name = add_model(content=bytes(len(vissl_bytes)))
    server.cut_after_bytes = 5 * CHUNK_BYTES
    with pytest.raises(DownloadFailed):
        fetch.fetch_model(name)
    server.files["/zoo/model.torch"] = vissl_bytes
    assert_is_the_model(fetch.fetch_model(name))


def test_a_part_longer_than_the_file_is_dropped(add_model, vissl_bytes):
    name = add_model(content=vissl_bytes)
    part = models_folder() / name / "download" / "model.torch.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(vissl_bytes) + 1))
    assert_is_the_model(fetch.fetch_model(name))


@pytest.mark.parametrize("content", [b"<html>Sign in to this network</html>", b"PK\x03\x04" + bytes(9000), b""])
def test_wrong_content_is_refused_and_removed(content, add_model, server, vissl_bytes):
    name = add_model(content=content)
    with pytest.raises(DownloadFailed, match="sent is no model, and was removed"):
        fetch.fetch_model(name)
    assert list_files(models_folder()) == []
    server.files["/zoo/model.torch"] = vissl_bytes
    assert_is_the_model(fetch.fetch_model(name))


def test_a_file_that_is_not_on_the_server_says_what_to_do_by_hand(add_model, server):
    name = add_model()
    with pytest.raises(DownloadFailed) as caught:
        fetch.fetch_model(name)
    for part in ("404", f"{server.address}/zoo/model.torch", str(models_folder() / name), "by hand"):
        assert part in str(caught.value)


def test_a_disk_too_small_is_said_before_any_connection(add_model, server, vissl_bytes, monkeypatch):
    name = add_model(content=vissl_bytes)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(DownloadFailed, match=r"needs 0\.0 GB.*SEER_HOME"):
        fetch.fetch_model(name)
    assert server.requests == []


def test_a_home_that_cannot_be_written_is_a_sentence(add_model, vissl_bytes, seer_home):
    name = add_model(content=vissl_bytes)
    (seer_home / "models").write_text("a file where a folder should be")
    with pytest.raises(DownloadFailed, match="cannot be written"):
        fetch.fetch_model(name)


def test_names_that_cannot_be_fetched_are_sentences():
    with pytest.raises(ModelError, match="comes with the program"):
        fetch.fetch_model("seer-mini")
    with pytest.raises(ModelUnknown):
        fetch.fetch_model("seer-33gf")


# Offline


def test_offline_no_connection_is_made_and_a_file_put_there_by_hand_is_found(
    add_model, server, vissl_bytes, monkeypatch
):
    name = add_model(content=vissl_bytes)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE is set") as caught:
        fetch.fetch_model(name)
    assert server.requests == []
    folder = models_folder() / name
    assert str(folder) in str(caught.value)
    (folder / "model.torch").write_bytes(vissl_bytes)
    assert find_model(name).path == folder / "model.torch"
    assert fetch.fetch_model(name) == folder / "model.torch"


# From the hub


@pytest.fixture
def hub(server, monkeypatch):
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


def test_a_timm_model_comes_from_the_hub(hub, add_model, server, tmp_path):
    (tmp_path / "timm").mkdir()
    making.save_timm(making.make_checkpoint(), tmp_path / "timm" / "model.safetensors")
    hub("timm/tiny.seer", tmp_path / "timm")
    name = add_model(sources=(HubSource(repo_id="timm/tiny.seer"),))
    reports = []
    path = fetch.fetch_model(name, on_progress=reports.append)
    assert_is_the_model(path)
    assert list_files(path.parent) == ["model.json", "model.safetensors"]
    assert reports[-1].done_bytes == (tmp_path / "timm" / "model.safetensors").stat().st_size
    downloaded = json.loads((path.parent / "model.json").read_text())["downloaded"]
    assert [entry["file"] for entry in downloaded] == ["model.safetensors"]


def test_a_sharded_model_comes_from_the_hub_whole(hub, add_model, server, tmp_path):
    hub("facebook/tiny", making.save_shards(making.make_checkpoint(), tmp_path / "shards"))
    name = add_model(sources=(HubSource(repo_id="facebook/tiny", filename="pytorch_model.bin.index.json"),))
    path = fetch.fetch_model(name)
    assert_is_the_model(path)
    assert len(json.loads((path.parent / "model.json").read_text())["downloaded"]) == 4


def test_where_the_hub_fails_the_next_source_is_tried(hub, add_model, server, vissl_bytes):
    sources = (HubSource(repo_id="timm/not-there"), UrlSource(address=f"{server.address}/zoo/model.torch"))
    name = add_model(sources=sources, content=vissl_bytes)
    assert_is_the_model(fetch.fetch_model(name))


def test_a_hub_that_answers_nothing_says_what_to_do_by_hand(add_model, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    name = add_model(sources=(HubSource(repo_id="timm/tiny.seer"),))
    with pytest.raises(DownloadFailed, match=r"no route.*https://huggingface\.co/timm/tiny\.seer/tree/main"):
        fetch.fetch_model(name)
