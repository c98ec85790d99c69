"""Fetching from a server on loopback: terms first, every source tried, nothing half-written under its name."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from seer_model import fetch
from seer_model.checkpoint import read_checkpoint
from seer_model.errors import DownloadFailed, LicenceNotAccepted, ModelError, ModelUnknown
from seer_model.zoo import SEER, UrlSource, find_model, models_folder
from tests.seer_model import making_weights as making
from tests.seer_model.making_weights import assert_is_the_model


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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


@pytest.mark.parametrize(("here_bytes", "free_bytes"), [(0, 400_000_000), (150_000_000, 250_000_000)])
def test_a_disk_too_small_is_said_before_any_connection(
    here_bytes, free_bytes, add_model, server, vissl_bytes, monkeypatch
):
    """Four bytes a parameter, twice, less what has come already."""
    name = add_model(content=vissl_bytes, parameters=50_000_000)
    part = models_folder() / name / "download" / "model.torch.part"
    part.parent.mkdir(parents=True)
    with open(part, "wb") as file:
        file.truncate(here_bytes)
    usage = SimpleNamespace(free=free_bytes - 1_000_000)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: usage)
    sizes = f"needs {free_bytes // 1_000_000} MB at .*; {free_bytes // 1_000_000 - 1} MB are free.*SEER_HOME"
    with pytest.raises(DownloadFailed, match=sizes):
        fetch.fetch_model(name)
    assert server.requests == []
    usage.free = free_bytes
    assert_is_the_model(fetch.fetch_model(name))


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
    with pytest.raises(ModelUnknown, match="is a path, not a model's name.*--model"):
        fetch.fetch_model(__file__)


# What was interrupted, and what is of no use


def test_a_kill_between_the_weights_and_their_record_leaves_no_weights_without_one(add_model, vissl_bytes, monkeypatch):
    name = add_model(licence=SEER, content=vissl_bytes)
    for killed in ("write_text_durably", "sync_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(fetch, killed, fail_as_if_killed)
            with pytest.raises(KeyboardInterrupt):
                fetch.fetch_model(name, accept_licence=True)
        folder = models_folder() / name
        assert (folder / "model.json").is_file() or not (folder / "model.safetensors").exists()
    assert_is_the_model(fetch.fetch_model(name))
    assert list_files(folder) == ["model.json", "model.safetensors"], "what was left of the download is gone, too"


def fail_as_if_killed(*args: object) -> None:
    raise KeyboardInterrupt


def test_where_a_source_sends_no_model_the_next_is_tried(add_model, server, vissl_bytes):
    sources = tuple(UrlSource(address=f"{server.address}/{name}") for name in ("portal/first.torch", "zoo/model.torch"))
    name = add_model(sources=sources, content=vissl_bytes)
    server.files["/portal/first.torch"] = b"<html>Sign in to this network</html>"
    path = fetch.fetch_model(name)
    assert_is_the_model(path)
    assert json.loads((path.parent / "model.json").read_text())["source"] == sources[1].address


def test_what_is_large_enough_to_be_the_weights_is_not_downloaded_again(add_model, server, tmp_path):
    content = making.make_checkpoint().trunk | {"hooks": os.mkdir}
    torch.save(content, tmp_path / "more")
    name = add_model(content=(tmp_path / "more").read_bytes(), parameters=20_000)
    for _ in range(2):
        with pytest.raises(DownloadFailed, match=r"no model, and is kept in .*download; remove it there") as caught:
            fetch.fetch_model(name)
    assert "refused" in str(caught.value)
    assert len(server.requests) == 1


def test_a_broken_file_put_there_by_hand_is_not_taken_for_the_model(add_model, vissl_bytes):
    name = add_model(content=vissl_bytes)
    broken = models_folder() / name / "model.torch"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(vissl_bytes[:-100])
    path = fetch.fetch_model(name)
    assert_is_the_model(path)
    assert find_model(name).path == path


# Offline


def test_offline_no_connection_is_made_and_a_file_put_there_by_hand_is_found(
    add_model, server, vissl_bytes, monkeypatch
):
    name = add_model(content=vissl_bytes)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE is set.*Unset HF_HUB_OFFLINE") as caught:
        fetch.fetch_model(name)
    assert server.requests == []
    folder = models_folder() / name
    assert str(folder) in str(caught.value)
    (folder / "model.torch").write_bytes(vissl_bytes)
    assert find_model(name).path == folder / "model.torch"
    assert fetch.fetch_model(name) == folder / "model.torch"
