"""`seer whiten` from the command line: a file whose layer any later `--model FILE` uses; a readout named in a build."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli import cli
from seer_model.checkpoint import read_checkpoint, write_checkpoint
from seer_model.errors import SettingsError
from tests.indexer.making import draw_pile
from tests.seer_model import making_weights

PICTURES = 6


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pile(tmp_path_factory.mktemp("pictures"), PICTURES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    heads = {"whitening.weight": making_weights.torch.eye(112), "whitening.bias": making_weights.torch.zeros(112)}
    write_checkpoint(making_weights.make_checkpoint(heads=heads), path)
    return path


def run(*arguments: object) -> object:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done


def test_a_layer_fitted_for_copies_is_what_a_collection_is_built_with(pictures: Path, tiny: Path, tmp_path: Path):
    output, place = tmp_path / "copies.safetensors", tmp_path / "collection"
    common = ("--from", tiny, "--output", output, "--crops", 16, "--device", "cpu", "--workers", 1)
    done = run("whiten", pictures, *common, "--json")
    report = json.loads(done.stdout)
    assert (report["schema_version"], report["output"], report["dimension"]) == (1, "res4-rmac3-whitened-l2", 4)
    said = " ".join(done.stderr.split())
    assert "4 numbers instead of 1,024: res4-rmac3 of this model has 48, and the crops" in said
    making_weights.assert_same_weights(read_checkpoint(output).trunk, read_checkpoint(tiny).trunk)
    run("build", pictures, "--collection", place, "--model", output)
    manifest = json.loads(next(place.glob("generations/*/manifest.json")).read_text())
    assert re.search(r'"output": ?"res4-rmac3-whitened-l2"', json.dumps(manifest))
    found = run("search", pictures / "3.png", "--collection", place, "--count", 1).stdout
    assert found.startswith("1.000") and "3.png" in found


def test_another_readout_of_the_same_file_is_another_space_for_a_collection(pictures: Path, tiny: Path, tmp_path: Path):
    place = tmp_path / "collection"
    run("build", pictures, "--collection", place, "--model", f"{tiny}#rmac")
    found = run("search", pictures / "3.png", "--collection", place, "--count", 1).stdout
    assert found.startswith("1.000") and "3.png" in found
    before = json.loads(run("status", "--collection", place, "--json").stdout)
    assert (before["model"], before["dimension"]) == (f"{tiny}#rmac", 64)
    again = json.loads(run("build", "--collection", place, "--model", f"{tiny}#gem", "--json").stdout)
    assert again["embedded"] == PICTURES, "rows of two readouts stand in one store"


def test_a_readout_that_cannot_be_fitted_is_refused_before_a_picture_is_read(tiny: Path, tmp_path: Path):
    arguments = ["whiten", str(tmp_path / "gone"), "--from", str(tiny), "--output", str(tmp_path / "x.safetensors")]
    done = CliRunner().invoke(cli, [*arguments, "--readout", "copy"], standalone_mode=False)
    assert isinstance(done.exception, SettingsError) and "allowed are copies, average" in str(done.exception)
    assert not (tmp_path / "x.safetensors").exists()
