"""The `models` commands as a person and as a program use them."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner, Result

from seer_model.checkpoint import read_checkpoint, write_checkpoint
from seer_model.cli import models
from seer_model.errors import CheckpointError, LicenceNotAccepted, ModelMissing, ModelUnknown
from seer_model.zoo import BUNDLED_WEIGHTS, ENTRIES, MODELS
from tests.seer_model import making_weights as making


def run(*arguments: object) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


def test_list_shows_every_model_with_its_terms():
    result = run("list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines.keys() == {"NAME", *(entry.name for entry in ENTRIES)}
    assert "37.3 GB" in lines["seer-10b"]
    assert "non-commercial research only" in lines["seer-10b"]
    assert " yes " in lines["seer-mini"]
    assert " no " in lines["seer-32gf"]


def test_list_is_readable_by_a_program():
    content = json.loads(run("list", "--json").stdout)
    assert content["schema_version"] == 1
    by_name = {model["name"]: model for model in content["models"]}
    assert by_name["seer-256gf"]["dimension"] == 10444
    assert by_name["seer-256gf"]["must_accept"] is True
    assert by_name["seer-mini"]["is_here"] is True
    assert by_name["seer-mini"]["size_bytes"] == BUNDLED_WEIGHTS.stat().st_size


def test_show_tells_what_a_file_is(tmp_path):
    made = making.make_checkpoint(heads=making.make_projection_heads())
    path = making.save_vissl(made, tmp_path / "a.torch")
    content = json.loads(run("show", path, "--json").stdout)
    parameters = sum(weight.numel() for weight in making.make_network().parameters())
    assert (content["layout"], content["dimension"], content["parameters"]) == ("vissl", 64, parameters)
    assert content["architecture"] is None
    assert content["widths"] == [16, 24, 48, 64]
    assert content["heads"]["prototypes.0.weight"] == [10, 4]
    text = run("show", path).stdout
    assert "vissl" in text
    assert "prototypes.0.weight [10, 4]" in text


def test_show_tells_of_the_bundled_model_what_the_table_says():
    content = json.loads(run("show", "seer-mini", "--json").stdout)
    entry = MODELS["seer-mini"]
    assert (content["architecture"], content["parameters"]) == (entry.architecture, entry.parameters)
    assert (content["path"], content["dimension"]) == (str(BUNDLED_WEIGHTS), entry.dimension)
    assert content["heads"]["whitening.weight"] == [entry.dimension, 320 + 768]
    assert content["output"] == "res4-res5-gem3-whitened-l2"
    assert (content["readouts"]["#rmac-res4"], content["readouts"]["#projection"]) == (320, 128)
    asked = json.loads(run("show", "seer-mini#rmac+scales", "--json").stdout)
    assert (asked["output"], asked["dimension"]) == ("res5-rmac3-x0.7-x1-x1.4-l2", 768)


def test_convert_writes_our_layout(tmp_path):
    path = making.save_timm(making.make_checkpoint(), tmp_path / "timm.safetensors")
    result = run("convert", path, tmp_path / "ours.safetensors")
    assert result.exit_code == 0
    assert "from layout timm" in result.stdout
    assert read_checkpoint(tmp_path / "ours.safetensors").layout == "seer"


def test_convert_can_halve_the_kernels_and_leave_the_heads_out(tmp_path):
    made = making.make_checkpoint(heads=making.make_projection_heads())
    source = making.save_vissl(made, tmp_path / "a.torch")
    assert run("convert", source, tmp_path / "half.safetensors", "--half", "--no-heads").exit_code == 0
    written = read_checkpoint(tmp_path / "half.safetensors")
    assert written.heads == {}
    for key, weight in written.trunk.items():
        kept = made.trunk[key] if weight.ndim == 1 else made.trunk[key].half()
        assert torch.equal(weight, kept) and weight.dtype == kept.dtype, key
    assert run("convert", source, tmp_path / "whole.safetensors", "--half").exit_code == 0
    assert read_checkpoint(tmp_path / "whole.safetensors").heads.keys() == made.heads.keys()


def test_a_weight_that_fp16_cannot_hold_is_not_written(tmp_path):
    made = making.make_checkpoint()
    made.trunk["stem.conv.weight"][0, 0, 0, 0] = 70000
    source = making.save_vissl(made, tmp_path / "a.torch")
    result = run("convert", source, tmp_path / "half.safetensors", "--half")
    assert isinstance(result.exception, CheckpointError)
    assert "'stem.conv.weight' does not fit into fp16" in str(result.exception)
    assert not (tmp_path / "half.safetensors").exists()


def test_convert_tells_a_program_where_the_new_file_is(tmp_path, monkeypatch):
    path = making.save_timm(making.make_checkpoint(), tmp_path / "timm.safetensors")
    monkeypatch.chdir(tmp_path)
    assert json.loads(run("convert", path, "new.safetensors", "--json").stdout)["path"] == str(
        tmp_path / "new.safetensors"
    )


def test_fetch_of_a_file_says_that_it_needs_no_fetching():
    result = run("fetch", __file__)
    assert isinstance(result.exception, ModelUnknown)
    assert "needs no fetching" in str(result.exception)


def test_convert_over_its_own_source_keeps_the_weights(tmp_path):
    path = making.save_timm(making.make_checkpoint(), tmp_path / "model.safetensors")
    result = run("convert", path, path, "--json")
    assert json.loads(result.stdout) == {"schema_version": 1, "path": str(path), "layout": "timm"}
    making.assert_same_weights(read_checkpoint(path).trunk, making.make_checkpoint().trunk)


def test_fetch_shows_the_terms_and_stops_there_unless_they_are_accepted():
    result = run("fetch", "seer-32gf")
    assert isinstance(result.exception, LicenceNotAccepted)
    assert "MODEL_LICENSE.md" in result.stderr
    assert "Copyright (c) Meta Platforms" in result.stderr


def test_fetch_of_a_model_that_is_here_prints_its_place(seer_home):
    path = seer_home / "models" / "regnety-400mf" / "model.safetensors"
    path.parent.mkdir(parents=True)
    write_checkpoint(making.make_checkpoint(), path)
    assert json.loads(run("fetch", "regnety-400mf", "--json").stdout)["path"] == str(path)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("show", "seer-10b"), ModelMissing), (("convert", __file__, "out.safetensors"), CheckpointError)],
)
def test_what_a_person_can_put_right_is_left_to_the_composed_command(arguments, error):
    assert isinstance(run(*arguments).exception, error)


def test_listing_models_does_not_load_torch():
    code = "import sys; from seer_model.cli import models; models(['list'], standalone_mode=False); "
    code += "assert not {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
