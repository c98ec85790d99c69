"""Checkpoints in parts in the folder of a run: what any kill leaves, what is damaged, and who sees the folder."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from seer_model import run_folder
from seer_model.checkpoint import read_checkpoint
from seer_model.cli import models
from seer_model.errors import TrainingError
from seer_model.parts import fill_from_parts, write_parts
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder
from tests.device import DEVICE
from tests.seer_model import test_run_folder as whole
from tests.seer_model.test_run_folder import CHECKPOINT, Killed, begin, list_steps
from tests.seer_model.two_ranks import run_in_two_ranks

ALONE = Ranks(device=torch.device(DEVICE))


def make_parts(step: int) -> dict[str, Tensor]:
    heads = {f"heads.{name}": weight for name, weight in CHECKPOINT.heads.items()}
    return CHECKPOINT.trunk | heads | {"memory.optimizer.a": torch.full((3, 2), float(step))}


def save(folder: RunFolder, step: int, ranks: Ranks = ALONE) -> None:
    folder.save_parts(step, make_parts(step), {"seconds": step / 2}, ranks)


def require_loadable(folder: RunFolder, *steps: int) -> int:
    loaded = folder.load_newest()
    assert loaded.step in steps and loaded.state == {"seconds": loaded.step / 2} and not loaded.memory
    assert loaded.checkpoint.architecture == CHECKPOINT.architecture
    place = torch.zeros(3, 2)
    fill_from_parts(loaded.parts, {"memory.optimizer.a": place}, ALONE)
    assert torch.equal(place, torch.full((3, 2), float(loaded.step)))
    found = read_checkpoint(loaded.parts.parent)
    for ours, theirs in ((found.trunk, CHECKPOINT.trunk), (found.heads, CHECKPOINT.heads)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    return loaded.step


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return begin(tmp_path)


# --- saves that end early ----------------------------------------------------------------------------------------


def die_at(monkeypatch: pytest.MonkeyPatch, call: int):
    """As there; and half way through the parts, which leaves files that nobody vouches for."""
    calls = whole.die_at(monkeypatch, call)

    def write(folder: Path, *arguments: object) -> None:
        at = next(calls)
        write_parts(folder, *arguments)
        if at == call:
            (folder / "parts.json").unlink()
            raise Killed

    monkeypatch.setattr(run_folder, "write_parts", write)
    return calls


CALLS = 7


def test_the_kills_below_reach_every_call_of_a_save(tmp_path: Path):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = begin(tmp_path, keep=1)
        save(folder, 20)
        calls = die_at(monkeypatch, -1)
        save(folder, 30)
        assert next(calls) == CALLS


@pytest.mark.parametrize("call", range(CALLS))
def test_a_save_killed_at_any_call_leaves_a_folder_to_go_on_from(tmp_path: Path, call: int):
    folder = begin(tmp_path, keep=1)
    save(folder, 20)
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        die_at(monkeypatch, call)
        save(folder, 30)
    again = RunFolder(tmp_path / "model.safetensors", keep=1)
    step = require_loadable(again, 20, 30)
    save(again, step + 5)
    assert list_steps(again) == [f"step-{step + 5:08d}"], "what the kill left lying is gone"


@pytest.mark.parametrize("call", range(CALLS))
def test_saving_the_only_checkpoint_once_more_never_leaves_none(tmp_path: Path, call: int):
    folder = begin(tmp_path, keep=1)
    save(folder, 10)
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
        die_at(monkeypatch, call)
        save(folder, 10)
        raise Killed  # where it has nothing to do there is no call to die at
    assert require_loadable(RunFolder(tmp_path / "model.safetensors"), 10) == 10


# --- what is damaged ---------------------------------------------------------------------------------------------

DAMAGES = {
    "half a part": lambda folder: whole.halve(next((folder / "parts").glob("*.safetensors"))),
    "no part": lambda folder: next((folder / "parts").glob("*.safetensors")).unlink(),
    "no shapes": lambda folder: (folder / "parts" / "parts.json").unlink(),
    "no state": lambda folder: (folder / "state.json").unlink(),
    "no parts": lambda folder: shutil.rmtree(folder / "parts"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_if_the_newest_cannot_be_read_the_one_before_is_taken_and_it_is_said(folder: RunFolder, damage, caplog):
    save(folder, 10)
    save(folder, 20)
    damage(folder.folder / "step-00000020")
    assert require_loadable(folder, 10) == 10
    assert "step-00000020" in caplog.text


def test_a_step_of_either_kind_follows_the_other(folder: RunFolder):
    folder.save(whole.make_step(10))
    save(folder, 20)
    assert require_loadable(folder, 20) == 20
    folder.save(whole.make_step(30))
    assert whole.require_loadable(folder, 30) == 30


@pytest.mark.parametrize("save", [save, lambda folder, step: folder.save(whole.make_step(step))])
def test_the_folder_of_a_step_becomes_one_file_on_any_computer(folder: RunFolder, tmp_path: Path, save):
    save(folder, 10)
    target = tmp_path / "one.safetensors"
    done = CliRunner().invoke(models, ["convert", str(folder.folder / "step-00000010"), str(target)])
    assert done.exit_code == 0, done.output
    torch.testing.assert_close(read_checkpoint(target).trunk, CHECKPOINT.trunk, rtol=0, atol=0)
    torch.testing.assert_close(read_checkpoint(target).heads, CHECKPOINT.heads, rtol=0, atol=0)


# --- several ranks -----------------------------------------------------------------------------------------------


class Full(RunFolder):
    """On a disk that is full once all parts are there."""

    def _rename(self, *_: object) -> None:
        raise OSError(28, "No space left on device")


def save_where_there_is_no_room(ranks: Ranks, output: Path, kind: type[RunFolder], other: Path) -> str:
    try:
        save(kind(output if ranks.is_first else other), 20, ranks)
    except TrainingError as error:
        return str(error)
    return "saved"


@pytest.mark.parametrize(("kind", "reason"), [(Full, "No space left on device"), (RunFolder, "on rank 1, .*Not a dir")])
def test_a_save_that_fails_on_one_rank_is_a_sentence_on_all_and_costs_no_checkpoint(
    folder: RunFolder, tmp_path: Path, kind: type[RunFolder], reason: str
):
    save(folder, 10)
    (tmp_path / "a file").touch()
    output = folder.folder.with_suffix("")
    other = output if kind is Full else tmp_path / "a file" / "model.safetensors"
    said = run_in_two_ranks(save_where_there_is_no_room, output, kind, other)
    assert all(re.search(f"step-00000020 cannot be written: .*{reason}.*--resume", one) for one in said), said
    assert list_steps(folder) == ["step-00000010"] and require_loadable(folder, 10)


def look_around(ranks: Ranks, outputs: list[Path]) -> bool:
    return RunFolder(outputs[ranks.rank]).is_seen_by(ranks)


def test_a_folder_that_one_rank_does_not_see_is_found_out(tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = begin(tmp_path / "here"), begin(tmp_path / "there")
    outputs = [one.folder.with_suffix("") for one in (here, there)]
    assert run_in_two_ranks(look_around, [outputs[0], outputs[0]]) == [True, True]
    assert run_in_two_ranks(look_around, outputs) == [False, False]
    assert not list(here.folder.glob(".met-*")), "nothing is left lying"
