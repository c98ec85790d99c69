"""Downloads that stop go on with what is missing, of the same version only, from the hub as from elsewhere."""

import json
from pathlib import Path

import pytest

from seer_model import fetch
from seer_model.download import RemoteFile, download_file
from seer_model.errors import DownloadFailed
from seer_model.zoo import HubSource, UrlSource, models_folder
from tests.seer_model import making_weights as making
from tests.seer_model.file_server import CHUNK_BYTES
from tests.seer_model.making_weights import assert_is_the_model


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


@pytest.fixture
def remote(server) -> RemoteFile:
    server.files["/a/file.bin"] = bytes(range(256)) * 100
    return RemoteFile(address=f"{server.address}/a/file.bin", filename="file.bin", origin="the test's server")


def download_in_two(remote: RemoteFile, server, folder: Path) -> None:
    """Cut once, then again to the end."""
    server.cut_after_bytes = server.sent_bytes + 2 * CHUNK_BYTES
    with pytest.raises(DownloadFailed, match="the connection ended at 8192 of 25600 bytes"):
        download_file(remote, folder, lambda progress: None)
    download_file(remote, folder, lambda progress: None)


def test_a_file_without_a_version_comes_whole_again(remote, server, tmp_path):
    server.has_versions = False
    download_in_two(remote, server, tmp_path)
    assert [asked for _, _, asked in server.requests] == [None, None]
    assert (tmp_path / "file.bin").read_bytes() == server.files["/a/file.bin"]


def test_another_part_than_was_asked_for_is_not_put_behind_what_is_here(remote, server, tmp_path):
    server.shifts_ranges = True
    with pytest.raises(DownloadFailed, match="another part of the file"):
        download_in_two(remote, server, tmp_path)
    assert [asked for _, _, asked in server.requests] == [None, "bytes=8192-"]
    download_file(remote, tmp_path, lambda progress: None)
    assert (tmp_path / "file.bin").read_bytes() == server.files["/a/file.bin"]


def test_a_file_is_on_the_disk_before_it_has_its_name(remote, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("seer_model.download.sync_file", lambda path: seen.append((path.name, list_names(tmp_path))))
    download_file(remote, tmp_path, lambda progress: None)
    assert seen == [("file.bin.part", ["file.bin.part", "file.bin.tag"])]
    assert list_names(tmp_path) == ["file.bin"]


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# From the hub


@pytest.fixture
def hub_model(hub, add_model, tmp_path) -> str:
    """A model whose one file the hub has."""
    (tmp_path / "timm").mkdir()
    making.save_timm(making.make_checkpoint(), tmp_path / "timm" / "model.safetensors")
    hub("timm/tiny.seer", tmp_path / "timm")
    return add_model(sources=(HubSource(repo_id="timm/tiny.seer"),))


HUB_FILE = "/timm/tiny.seer/resolve/main/model.safetensors"


def test_a_timm_model_comes_from_the_hub(hub_model, server):
    reports = []
    path = fetch.fetch_model(hub_model, on_progress=reports.append)
    assert_is_the_model(path)
    assert list_names(path.parent) == ["model.json", "model.safetensors"]
    assert reports[-1].done_bytes == len(server.files[HUB_FILE])
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


def test_an_interrupted_download_from_the_hub_goes_on_where_it_stopped(hub_model, server):
    server.cut_after_bytes = 5 * CHUNK_BYTES
    with pytest.raises(DownloadFailed, match="the connection ended at 20480 of"):
        fetch.fetch_model(hub_model)
    assert_is_the_model(fetch.fetch_model(hub_model))
    assert server.requests[-1] == ("GET", HUB_FILE, "bytes=20480-")
    assert server.sent_bytes == len(server.files[HUB_FILE])


def test_a_file_that_changed_on_the_hub_meanwhile_starts_anew(hub_model, server):
    whole, server.files[HUB_FILE] = server.files[HUB_FILE], bytes(len(server.files[HUB_FILE]))
    server.cut_after_bytes = 5 * CHUNK_BYTES
    with pytest.raises(DownloadFailed):
        fetch.fetch_model(hub_model)
    server.files[HUB_FILE] = whole
    assert_is_the_model(fetch.fetch_model(hub_model))


def test_large_files_come_from_where_the_hub_says_and_are_compared_with_its_hash(hub_model, server, elsewhere):
    server.moved_to, elsewhere.files = elsewhere.address, {HUB_FILE: server.files[HUB_FILE][:-1] + b"?"}
    with pytest.raises(DownloadFailed, match=r"not what was promised \(SHA-256\)"):
        fetch.fetch_model(hub_model)
    elsewhere.files = dict(server.files)
    assert_is_the_model(fetch.fetch_model(hub_model))
    assert {command for command, _, _ in server.requests} == {"HEAD"}


def test_the_hub_gets_the_persons_token_and_nobody_else_does(hub_model, server, elsewhere, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch.fetch_model(hub_model)
    assert server.tokens == [("HEAD", "Bearer hf_secret"), ("GET", "Bearer hf_secret")]
    (models_folder() / hub_model / "model.json").unlink()
    (models_folder() / hub_model / "model.safetensors").unlink()
    server.moved_to, elsewhere.files = elsewhere.address, dict(server.files)
    fetch.fetch_model(hub_model)
    assert elsewhere.tokens == [("GET", None)]


def test_an_index_leads_to_no_file_outside_of_its_repository(hub, add_model, server, tmp_path):
    (tmp_path / "repository").mkdir()
    index = {"weight_map": {"a": "../../../../outside.bin"}}
    (tmp_path / "repository" / "model.safetensors.index.json").write_text(json.dumps(index))
    hub("a/b", tmp_path / "repository")
    name = add_model(sources=(HubSource(repo_id="a/b", filename="model.safetensors.index.json"),))
    with pytest.raises(DownloadFailed, match="only files in its own folder"):
        fetch.fetch_model(name)
    assert {path for _, path, _ in server.requests} == {"/a/b/resolve/main/model.safetensors.index.json"}


def test_a_hub_that_answers_nothing_says_what_to_do_by_hand(add_model, monkeypatch):
    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    index = HubSource(repo_id="facebook/tiny", filename="pytorch_model.bin.index.json")
    name = add_model(sources=(HubSource(repo_id="timm/tiny.seer"), index))
    with pytest.raises(DownloadFailed) as caught:
        fetch.fetch_model(name)
    for part in (
        *("no route", "https://huggingface.co/timm/tiny.seer/resolve/main/model.safetensors or "),
        "https://huggingface.co/facebook/tiny/resolve/main/pytorch_model.bin.index.json (and the files it lists",
    ):
        assert part in str(caught.value)
