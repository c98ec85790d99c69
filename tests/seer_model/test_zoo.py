"""The table of models against the network itself, and what a name or a path leads to."""

import json
import os

import pytest
import torch

from seer_model import zoo
from seer_model.checkpoint import write_checkpoint
from seer_model.errors import CheckpointError, ModelMissing, ModelUnknown
from seer_model.outputs import OWN, Asked
from seer_model.preprocess import PREPROCESSINGS
from seer_model.regnet import ARCHITECTURES, RegNet
from seer_model.zoo import (
    ENTRIES,
    MODELS,
    HubSource,
    UrlSource,
    complete_reference,
    find_entry,
    find_model,
    list_models,
    models_folder,
)
from tests.seer_model import making_weights as making


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_dimension_and_parameters_are_those_of_the_network(entry):
    with torch.device("meta"):
        network = RegNet(ARCHITECTURES[entry.architecture])
    # The bundled one's is its whitening's, which `test_backbone` compares.
    assert entry.is_bundled or entry.dimension == network.architecture.dimension
    assert entry.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert entry.preprocessing in PREPROCESSINGS


def test_all_published_seer_weights_are_there_on_their_terms():
    names = {name for name in MODELS if name.startswith("seer-")} - {"seer-mini"}
    assert names == {"seer-32gf", "seer-64gf", "seer-128gf", "seer-256gf", "seer-10b"}
    for name in names:
        licence = MODELS[name].licence
        assert licence.must_accept
        assert "non-commercial" in licence.name
        assert licence.notice == (
            "SEER is licensed under SEER license, Copyright (c) Meta Platforms, Inc. All Rights Reserved."
        )
        assert any(isinstance(source, UrlSource) for source in MODELS[name].sources)


def test_supervised_weights_come_from_the_timm_hub_and_are_free():
    entry = MODELS["regnety-400mf"]
    assert entry.sources == (HubSource(repo_id="timm/regnety_004.pycls_in1k"),)
    assert (entry.licence.name, entry.licence.must_accept) == ("MIT", False)
    address = "https://huggingface.co/timm/regnety_320.pycls_in1k/resolve/main/model.safetensors"
    assert MODELS["regnety-32gf"].sources[0].address == address


def test_the_bundled_model_is_found_everywhere():
    found = find_model("seer-mini")
    assert (found.path, found.entry.is_bundled) == (zoo.BUNDLED_WEIGHTS, True)


def test_a_model_that_was_not_fetched_says_how_to_get_it():
    with pytest.raises(ModelMissing, match="seer models fetch seer-32gf$"):
        find_model("seer-32gf")


@pytest.mark.parametrize(
    ("given", "close"), [("seer-32", "seer-32gf"), ("SEER-10B", "seer-10b"), ("mini", "seer-mini")]
)
def test_an_unknown_name_is_answered_with_close_ones(given, close):
    with pytest.raises(ModelUnknown, match=f"Close names: .*{close}"):
        find_model(given)


def test_a_name_close_to_nothing_is_answered_with_where_to_look():
    with pytest.raises(ModelUnknown, match="seer models list"):
        find_entry("/data/weights/vit.pth")


@pytest.mark.parametrize("given", ["~nosuchperson/x", "x" * 300, "a/" * 3000, "a\0b"])
def test_what_can_be_no_path_is_an_unknown_name(given):
    with pytest.raises(ModelUnknown, match="no file lies there"):
        find_model(given)


def test_a_path_is_a_model(tmp_path):
    write_checkpoint(making.make_checkpoint(), tmp_path / "mine.safetensors")
    found = find_model(tmp_path / "mine.safetensors")
    assert (found.entry, found.preprocessing) == (None, "vissl")
    assert find_model(str(tmp_path)).path == tmp_path


def test_a_name_or_a_path_can_ask_for_the_projection(tmp_path, monkeypatch):
    write_checkpoint(making.make_checkpoint(), tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    found = find_model("mine.safetensors#projection")
    assert (found.name, found.path.name) == ("mine.safetensors#projection", "mine.safetensors")
    assert found.asked == Asked("projection")
    assert find_model("mine.safetensors").asked == OWN
    with pytest.raises(ModelMissing, match="seer models fetch seer-32gf$"):
        find_model("seer-32gf#projection")


def test_a_file_whose_own_name_ends_so_is_meant_itself(tmp_path):
    write_checkpoint(making.make_checkpoint(), tmp_path / "a#projection")
    assert find_model(tmp_path / "a#projection").asked == OWN


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mine.safetensors#rmax", "no readout 'rmax'"),
        ("seer-mini#rmax", "no readout 'rmax'"),
        ("gone#1/a.safetensors", "no model 'gone#1/a.safetensors'"),
        ("gone#rmac", "no model 'gone'"),
        ("mine.safetensors#", "no model 'mine.safetensors#'"),
    ],
)
def test_of_a_name_with_two_parts_the_wrong_one_is_named(name, reason, tmp_path, monkeypatch):
    write_checkpoint(making.make_checkpoint(), tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnknown, match=reason):
        find_model(name)
    assert find_model("mine.safetensors#rmac+scales").asked == Asked("rmac", is_scaled=True)


def test_a_model_is_kept_by_its_whole_path_and_a_name_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "seer-mini").touch()
    monkeypatch.chdir(tmp_path)
    whole = str(tmp_path / "mine.safetensors")
    assert complete_reference("mine.safetensors") == whole
    assert complete_reference("mine.safetensors#projection") == f"{whole}#projection"
    for name in ("seer-mini", "seer-32gf#projection", "no-such-file"):
        assert complete_reference(name) == name


def put_here(name: str, filename: str):
    folder = models_folder() / name
    folder.mkdir(parents=True)
    making.save_vissl(making.make_checkpoint(), folder / filename)
    return folder / filename


def test_a_file_put_into_the_folder_by_hand_is_found(seer_home):
    path = put_here("seer-256gf", "model_final_checkpoint_phase0.torch")
    assert path.is_relative_to(seer_home / "models" / "seer-256gf")
    assert find_model("seer-256gf").path == path
    assert {entry.name: is_here for entry, is_here in list_models()}["seer-256gf"]


def test_shards_put_into_the_folder_by_hand_are_found_by_their_index():
    models_folder().mkdir(parents=True)
    folder = making.save_shards(making.make_checkpoint(), models_folder() / "seer-10b")
    assert find_model("seer-10b").path == folder / "pytorch_model.bin.index.json"


def test_a_part_of_a_download_is_no_model():
    folder = models_folder() / "seer-32gf"
    (folder / "download").mkdir(parents=True)
    (folder / "download" / "model.safetensors").write_bytes(b"x")
    (folder / ".model.safetensors.part").write_bytes(b"x")
    (folder / "model.torch.part").write_bytes(b"x")
    with pytest.raises(ModelMissing):
        find_model("seer-32gf")


def write_record(path, **changes) -> None:
    stamp = path.stat()
    record = {"size_bytes": stamp.st_size, "mtime_ns": stamp.st_mtime_ns, "sha256": zoo.hash_file(path)}
    (path.parent / "model.json").write_text(json.dumps(record | changes))


def test_a_fetched_file_is_hashed_again_only_when_its_stamp_differs(monkeypatch):
    path = put_here("regnety-400mf", "model.safetensors")
    write_record(path)
    hashed = []
    monkeypatch.setattr(zoo, "hash_file", lambda path: hashed.append(path) or "another hash")
    assert find_model("regnety-400mf").path == path
    assert hashed == []
    os.utime(path, (1, 1))
    with pytest.raises(CheckpointError, match="changed"):
        find_model("regnety-400mf")
    assert hashed == [path]


def test_a_fetched_file_that_was_only_touched_is_still_good():
    path = put_here("regnety-400mf", "model.safetensors")
    write_record(path)
    os.utime(path, (1, 1))
    assert find_model("regnety-400mf").path == path


def test_a_fetched_file_of_another_length_is_refused():
    path = put_here("regnety-400mf", "model.safetensors")
    write_record(path)
    with open(path, "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="Fetch the model again"):
        find_model("regnety-400mf")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"size_bytes": 3}'])
def test_a_damaged_record_is_a_sentence(content):
    path = put_here("regnety-400mf", "model.safetensors")
    (path.parent / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.json is damaged"):
        find_model("regnety-400mf")
