"""A whole run in so many minutes: its length is measured once, and kept in all its pieces."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.timed_pretraining import fit_epochs, main, name_half
from seer_model import presets
from seer_model.checkpoint import read_checkpoint
from seer_model.run_folder import RunFolder
from tests.indexer.making import draw_pile

PICTURES, RATE = 8, 2.0
"""RATE: images/s that are measured."""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small = replace(presets.find_preset("tiny"), batch_size=4)
    monkeypatch.setitem(presets.PRESETS, "small", small)
    monkeypatch.setattr(importlib.import_module("benchmarks.training_memory"), "take_steps", lambda *_: RATE)
    return draw_pile(tmp_path / "pictures", PICTURES)


def train(pictures: Path, output: Path, *words: str) -> Result:
    given = (str(pictures), "--output", str(output), "--preset", "small", "--device", "cpu", "--workers", "1")
    return CliRunner().invoke(main, [*given, *words])


def test_a_run_is_as_long_as_there_is_time_for(pictures: Path):
    # 2 images/s, 85 % of 40 seconds, 8 pictures
    assert fit_epochs((pictures,), "small", "cpu", 40 / 60, 1) == 8.5


def test_a_run_keeps_its_length_and_ends_in_a_model_of_half_the_size(pictures: Path, tmp_path: Path):
    output = tmp_path / "m.safetensors"
    first = train(pictures, output, "--minutes", str(4.7 / 60), "--piece", "0.000001")
    assert first.exit_code == 0 and "1.0 epochs in" in first.output and "Stopped at step 1 of 2" in first.output
    assert not output.exists() and not name_half(output).exists()
    second = train(pictures, output, "--minutes", "99")
    assert second.exit_code == 0, second.output
    assert RunFolder(output).read_settings()["settings"]["epochs"] == 1.0
    assert read_checkpoint(name_half(output)).architecture == read_checkpoint(output).architecture
    assert name_half(output).stat().st_size < 0.6 * output.stat().st_size


def test_what_seer_refuses_is_one_sentence(pictures: Path, tmp_path: Path):
    (tmp_path / "m.safetensors").touch()
    refused = train(pictures, tmp_path / "m.safetensors", "--minutes", "1")
    assert refused.exit_code == 1 and "is there already" in refused.output
