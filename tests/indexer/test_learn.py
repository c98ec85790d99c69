"""`seer pretrain` from the command line, on a few drawn pictures: a run in pieces, its curves, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from indexer import learn
from indexer.cli import cli
from indexer.learn import LearnSettings
from indexer.pile import Pile, open_pile
from seer_model import pretrain as pretraining
from seer_model.checkpoint import read_checkpoint
from seer_model.errors import TrainingError
from seer_model.presets import find_preset
from seer_model.regnet import ARCHITECTURES
from seer_model.run_folder import RunFolder
from tests.indexer.making import draw_pile
from tests.seer_model import making_weights

PICTURES = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = draw_pile(tmp_path_factory.mktemp("pictures"), PICTURES)
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


def test_going_on_from_a_published_file_keeps_its_heads_and_the_result_embeds(pictures: Path, tmp_path: Path):
    published = making_weights.make_checkpoint(heads=making_weights.make_projection_heads())
    published.heads["projection.1.running_var"].abs_()
    file, output = making_weights.save_vissl(published, tmp_path / "published.torch"), tmp_path / "m.safetensors"
    done = pretrain(pictures, "--output", output, "--from", file, "--rate", 1e-6)
    assert done.exit_code == 0, done.output
    heads = read_checkpoint(output).heads
    torch.testing.assert_close(heads["projection.3.weight"], published.heads["projection.3.weight"], rtol=0, atol=1e-3)
    lengths = published.heads["prototypes.0.weight"].norm(dim=1, keepdim=True)
    expected = published.heads["prototypes.0.weight"] / lengths
    torch.testing.assert_close(heads["prototypes.0.weight"], expected, rtol=0, atol=1e-3)
    collection = tmp_path / "collection"
    built = CliRunner().invoke(cli, ["build", str(pictures), "--collection", str(collection), "--model", str(output)])
    assert built.exit_code == 0, built.output
    told = json.loads(CliRunner().invoke(cli, ["status", "--collection", str(collection), "--json"]).stdout)
    assert (told["images"], told["dimension"]) == (PICTURES, 88)  # a fourth of 400 crops, less a ninth that are broken


def test_a_run_that_fails_leaves_its_curves_and_a_refused_one_draws_none(pictures: Path, tmp_path: Path, monkeypatch):
    output = tmp_path / "m.safetensors"
    curves = output.with_name("m.safetensors.run") / "curves.png"
    look = pretraining.Vigil.look

    def fail_at_the_end(vigil: object, step: int, *figures: object) -> object:
        if step == 2:
            raise TrainingError("It has gone wrong.")
        return look(vigil, step, *figures)

    monkeypatch.setattr(pretraining.Vigil, "look", fail_at_the_end)
    options = pretraining.RunOptions
    often = {"look_every_steps": 1, "save_every_seconds": 0}
    monkeypatch.setattr(pretraining, "RunOptions", lambda **given: options(**given | often))
    failed = pretrain(pictures, "--output", output)
    assert failed.exit_code == 1 and "It has gone wrong." in failed.stderr, failed.output
    assert "curves: " in failed.stderr and curves.is_file()
    curves.unlink()
    refused = pretrain(pictures, "--output", output, "--resume", "--seed", 1)
    assert refused.exit_code == 1 and "holds another run" in refused.stderr
    assert not curves.exists()


def test_shards_far_away_that_do_not_fit_into_memory_are_shown_in_windows(pictures: Path, tmp_path: Path, monkeypatch):
    recipe, output = find_preset("tiny"), tmp_path / "m.safetensors"
    for is_remote, room, given, window in ((1, 8, None, 4096), (1, 9, None, 0), (0, 8, None, 0), (1, 8, 0, 0)):
        memory = room * 3 * recipe.picture_px**2
        settings = LearnSettings(sources=(), output=output, memory_bytes=memory, window=given)
        monkeypatch.setattr(Pile, "is_remote", is_remote)
        with open_pile([pictures], side_px=16) as pile:
            assert learn._choose_window(recipe, pile, settings).window == window
    assert pretrain(pictures, "--output", output, "--minutes", 0.000001, "--window", 3).exit_code == 0
    assert RunFolder(output).read_settings()["settings"]["window"] == 3


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
