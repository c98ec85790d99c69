"""`seer pretrain` from the command line, on a few drawn pictures: a run in pieces, its curves, what is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from indexer.cli import cli
from seer_model.checkpoint import read_checkpoint
from seer_model.regnet import ARCHITECTURES
from tests.indexer.making import draw

PICTURES = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        draw(folder / f"{number}.png", number)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def pretrain(*arguments: object) -> object:
    common = ("--preset", "tiny", "--batch-size", 4, "--epochs", 1, "--device", "cpu", "--workers", 1)
    return CliRunner().invoke(cli, ["pretrain", *map(str, (*common, *arguments))])


def test_a_run_in_two_pieces_ends_in_a_model_and_its_curves(pictures: Path, tmp_path: Path):
    output, own = tmp_path / "m.safetensors", tmp_path / "m.png"
    own.write_bytes(b"a picture of the person's own")
    first = pretrain(pictures, "--output", output, "--minutes", 0.000001)
    assert first.exit_code == 0 and "Stopped at step 1 of 2; --resume goes on" in first.stdout, first.output
    assert not output.exists()
    second = pretrain(pictures, "--output", output, "--resume", "--json")
    assert second.exit_code == 0, second.output
    report = json.loads(second.stdout)
    assert (report["schema_version"], report["step"], report["output"]) == (1, 2, str(output))
    assert read_checkpoint(output).architecture == ARCHITECTURES["200MF"]
    with Image.open(output.with_name("m.safetensors.run") / "curves.png") as curves:
        assert curves.width > 500
    assert own.read_bytes() == b"a picture of the person's own"


def test_weights_that_are_there_are_not_replaced(pictures: Path, tmp_path: Path):
    output = tmp_path / "m.safetensors"
    output.write_bytes(b"kept")
    refused = pretrain(pictures, "--output", output)
    assert refused.exit_code == 1 and "is there already" in refused.stderr
    assert output.read_bytes() == b"kept"


def test_an_unknown_preset_lists_those_there_are(pictures: Path, tmp_path: Path):
    refused = pretrain(pictures, "--output", tmp_path / "m.safetensors", "--preset", "huge")
    assert refused.exit_code == 1 and "'huge'" in refused.stderr and "mini, tiny" in refused.stderr
    assert not list(tmp_path.iterdir())
