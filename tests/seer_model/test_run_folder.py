"""The folder of a run: what was saved comes back, whatever is cut off, and however a save ends."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

from seer_model import run_folder
from seer_model.errors import TrainingError
from seer_model.regnet import Architecture
from seer_model.run_folder import RunFolder, SavedStep
from tests.seer_model import making_weights as making

SMALLEST = Architecture(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), group_widths=(8, 8, 8, 8), stem_width=8)
CHECKPOINT = making.make_checkpoint(SMALLEST, heads=making.make_projection_heads(8))


class Killed(BaseException):
    """The process ends here: nothing that runs in its place cleans up."""


def make_step(step: int) -> SavedStep:
    memory = {"optimizer.a": torch.full((3, 2), float(step)), "queue": torch.arange(6.0).view(1, 3, 2).transpose(1, 2)}
    return SavedStep(step, CHECKPOINT, memory, {"seconds": step / 2, "plateau": {"best": float("inf")}})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return begin(tmp_path)


def begin(tmp_path: Path, *, keep: int = 2) -> RunFolder:
    folder = RunFolder(tmp_path / "model.safetensors", keep=keep)
    folder.begin({"seed": 3})
    return folder


def list_steps(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir() if path.is_dir())


def require_loadable(folder: RunFolder, *steps: int) -> int:
    loaded = folder.load_newest()
    assert loaded.step in steps
    expected = make_step(loaded.step)
    assert loaded.state == expected.state
    assert loaded.memory.keys() == expected.memory.keys()
    for name, tensor in expected.memory.items():
        torch.testing.assert_close(loaded.memory[name], tensor, rtol=0, atol=0)
    for ours, theirs in ((loaded.checkpoint.trunk, CHECKPOINT.trunk), (loaded.checkpoint.heads, CHECKPOINT.heads)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    return loaded.step


# --- beginning, saving, keeping ----------------------------------------------------------------------------------


def test_a_run_lies_beside_its_output_and_knows_its_settings(folder: RunFolder, tmp_path: Path):
    assert folder.folder == tmp_path / "model.safetensors.run"
    assert folder.read_settings() == {"seed": 3}
    assert not folder.has_checkpoint
    assert folder.read_log() == []


def test_what_was_saved_comes_back_to_the_bit(folder: RunFolder):
    folder.save(make_step(7))
    assert folder.has_checkpoint
    assert require_loadable(folder, 7) == 7


def test_a_step_without_momentum_or_queue_is_a_checkpoint_too(folder: RunFolder):
    folder.save(SavedStep(0, CHECKPOINT, {}, {}))
    assert folder.load_newest().memory == {}


@pytest.mark.parametrize(("keep", "left"), [(1, [50]), (2, [40, 50]), (3, [30, 40, 50]), (9, [10, 20, 30, 40, 50])])
def test_the_last_so_many_are_kept(tmp_path: Path, keep: int, left: list[int]):
    folder = begin(tmp_path, keep=keep)
    for step in (10, 20, 30, 40, 50):
        folder.save(make_step(step))
    assert list_steps(folder) == [f"step-{step:08d}" for step in left]


def test_the_newest_is_the_one_with_the_largest_number_not_the_last_name(folder: RunFolder):
    for step in (99_999_999, 100_000_000):
        folder.save(make_step(step))
    assert require_loadable(folder, 100_000_000)


def test_a_folder_with_a_run_in_it_is_not_begun_again(folder: RunFolder):
    folder.save(make_step(1234))
    folder.append_figures({"step": 1234})
    with pytest.raises(TrainingError, match=r"step 1,234\. Add --resume .* --output"):
        folder.begin({"seed": 4})
    assert folder.read_settings() == {"seed": 3}
    assert folder.read_log() == [{"step": 1234}]


def test_a_file_that_the_output_would_replace_stays(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"somebody's weights")
    with pytest.raises(TrainingError, match=r"model\.safetensors is there already.* --output"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"somebody's weights"


def test_a_log_that_cannot_be_written_is_said(folder: RunFolder):
    (folder.folder / "log.jsonl").unlink()
    (folder.folder / "log.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"log\.jsonl cannot be written: .* --resume"):
        folder.append_figures({"step": 1})


def test_a_run_that_was_killed_before_its_first_checkpoint_can_be_begun_again(folder: RunFolder):
    folder.append_figures({"step": 5})
    folder.begin({"seed": 4})
    assert (folder.read_settings(), folder.read_log()) == ({"seed": 4}, [])


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "model.safetensors.run").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match="cannot be written"):
        RunFolder(tmp_path / "model.safetensors").begin({})


@pytest.mark.parametrize("content", [None, "", '{"seed":'])
def test_settings_that_are_lost_are_said(folder: RunFolder, content: str | None):
    path = folder.folder / "settings.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(TrainingError, match=r"settings\.json cannot be read .* Begin a new one"):
        folder.read_settings()


# --- what is damaged ---------------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "half the weights": lambda folder: halve(folder / "weights.safetensors"),
    "half the memory": lambda folder: halve(folder / "memory.safetensors"),
    "half the state": lambda folder: halve(folder / "state.json"),
    "state of zeros": lambda folder: (folder / "state.json").write_bytes(bytes(30)),
    "state that is no text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\xff"),
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "no memory": lambda folder: (folder / "memory.safetensors").unlink(),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_if_the_newest_cannot_be_read_the_one_before_is_taken_and_it_is_said(folder: RunFolder, damage, caplog):
    folder.save(make_step(10))
    folder.save(make_step(20))
    damage(folder.folder / "step-00000020")
    assert require_loadable(folder, 10)
    assert "step-00000020" in caplog.text


def test_if_none_can_be_read_there_is_nothing_to_go_on_with(folder: RunFolder):
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        folder.load_newest()
    folder.save(make_step(10))
    halve(folder.folder / "step-00000010" / "weights.safetensors")
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        folder.load_newest()


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newest_does_not_push_out_what_is_saved_after_going_back(tmp_path: Path, keep: int):
    folder = begin(tmp_path, keep=2)
    folder.save(make_step(10))
    folder.save(make_step(30))
    halve(folder.folder / "step-00000030" / "weights.safetensors")
    folder = RunFolder(tmp_path / "model.safetensors", keep=keep)
    require_loadable(folder, 10)
    for step in (20, 25):
        folder.save(make_step(step))
        require_loadable(folder, step)
    assert len([name for name in list_steps(folder) if name < "step-00000030"]) == keep
    folder.save(make_step(30))
    assert require_loadable(folder, 30)


# --- saves that end early ----------------------------------------------------------------------------------------

PARTS = ("write_checkpoint", "save_file", "sync_file", "write_text_durably", "sync_folder")


def die_at(monkeypatch: pytest.MonkeyPatch, call: int) -> itertools.count:
    """Let the process die at one of a save's calls: before it, or half way through where it has a half."""
    calls = itertools.count()

    def cut(function, half=lambda *_: None):
        def run(*arguments, **options):
            if next(calls) == call:
                half(*arguments)
                raise Killed
            return function(*arguments, **options)

        return run

    for name in PARTS:
        monkeypatch.setattr(run_folder, name, cut(getattr(run_folder, name)))
    monkeypatch.setattr(run_folder.shutil, "rmtree", cut(shutil.rmtree, remove_half))
    monkeypatch.setattr(run_folder.os, "rename", cut(run_folder.os.rename))
    return calls


def remove_half(folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[:1]:
        path.unlink()


def count_calls(tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = begin(tmp_path, keep=1)
        folder.save(make_step(20))
        calls = die_at(monkeypatch, -1)
        folder.save(make_step(30))
        return next(calls)


CALLS = 9


def test_the_kills_below_reach_every_call_of_a_save(tmp_path: Path):
    assert count_calls(tmp_path) == CALLS


@pytest.mark.parametrize("call", range(CALLS))
def test_a_save_killed_at_any_call_leaves_a_folder_to_go_on_from(tmp_path: Path, call: int):
    folder = begin(tmp_path, keep=1)
    folder.save(make_step(20))
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        die_at(monkeypatch, call)
        folder.save(make_step(30))
    again = RunFolder(tmp_path / "model.safetensors", keep=1)
    step = require_loadable(again, 20, 30)
    again.save(make_step(step + 5))
    assert list_steps(again) == [f"step-{step + 5:08d}"], "what the kill left lying is gone"


@pytest.mark.parametrize("call", range(CALLS))
def test_saving_the_only_checkpoint_once_more_never_leaves_none(tmp_path: Path, call: int):
    folder = begin(tmp_path, keep=1)
    folder.save(make_step(10))
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        die_at(monkeypatch, call)
        folder.save(make_step(10))
        raise Killed  # where it has nothing to do there is no call to die at
    assert require_loadable(RunFolder(tmp_path / "model.safetensors"), 10)


def test_a_full_disk_is_a_sentence_and_costs_no_checkpoint(folder: RunFolder, monkeypatch):
    folder.save(make_step(10))

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "sync_file", fill)
    with pytest.raises(TrainingError, match=r"step-00000020 cannot be written: .*No space left.*--resume"):
        folder.save(make_step(20))
    assert list_steps(folder) == ["step-00000010"]
    assert require_loadable(folder, 10)


# --- the log -----------------------------------------------------------------------------------------------------


def test_the_log_has_a_line_for_each_interval(folder: RunFolder):
    for step in (20, 40):
        folder.append_figures({"step": step, "loss": 8.0})
    assert folder.read_log() == [{"step": 20, "loss": 8.0}, {"step": 40, "loss": 8.0}]


def test_figures_of_steps_that_will_be_done_again_are_cut(folder: RunFolder):
    for step in (20, 40, 60, 80):
        folder.append_figures({"step": step})
    folder.cut_log(60)
    folder.append_figures({"step": 80})
    assert [line["step"] for line in folder.read_log()] == [20, 40, 60, 80]


@pytest.mark.parametrize("half", ['{"step": 60, "lo', "{", '{"step": 6', "\0\0\0\0"])
def test_half_a_last_line_is_dropped_and_the_next_stands_on_a_line_of_its_own(folder: RunFolder, half: str):
    path = folder.folder / "log.jsonl"
    for step in (20, 40):
        folder.append_figures({"step": step})
    path.write_text(path.read_text() + half)
    assert [line["step"] for line in folder.read_log()] == [20, 40]
    folder.cut_log(40)
    folder.append_figures({"step": 60})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [20, 40, 60]


def test_a_log_that_is_gone_is_begun_anew(folder: RunFolder):
    (folder.folder / "log.jsonl").unlink()
    folder.cut_log(100)
    folder.append_figures({"step": 120})
    assert folder.read_log() == [{"step": 120}]
