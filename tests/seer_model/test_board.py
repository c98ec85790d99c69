"""The figures of a run in TensorBoard, if it is there: a writer that is made up on the spot stands in for it."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from seer_model.board import open_board
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder
from tests.seer_model.test_pretrain import STEPS, run, stop_after
from tests.seer_model.two_ranks import run_in_two_ranks

MODULE = "torch.utils.tensorboard"


@dataclass
class MadeWriter:
    """Notes what it is told, as `SummaryWriter` would write it."""

    log_dir: str
    purge_step: int
    told: list[tuple[str, float, int]] = field(default_factory=list)
    is_closed: bool = False
    made: ClassVar[list["MadeWriter"]] = []

    def __post_init__(self) -> None:
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def install(monkeypatch: pytest.MonkeyPatch, writer: type = MadeWriter) -> None:
    monkeypatch.setattr(MadeWriter, "made", [])
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(SummaryWriter=writer))


def test_each_figure_of_the_log_is_a_curve_and_a_resumed_run_goes_on_with_it(tmp_path: Path, monkeypatch):
    install(monkeypatch)
    output = tmp_path / "m.safetensors"
    run(output, watchers=stop_after(4))
    run(output, resume=True)
    first, second = MadeWriter.made
    assert first.log_dir == second.log_dir == str(RunFolder(output).folder / "tensorboard")
    assert (first.purge_step, second.purge_step) == (1, 5), "what was told of steps that are done again goes"
    assert first.is_closed and second.is_closed
    lines = RunFolder(output).read_log()
    assert len(lines) == STEPS
    expected = {(name, value, line["step"]) for line in lines for name, value in line.items() if name != "step"}
    assert {*first.told, *second.told} == expected


def test_a_run_that_breaks_off_closes_the_board(tmp_path: Path, monkeypatch):
    install(monkeypatch)
    with pytest.raises(KeyboardInterrupt), open_board(tmp_path, 0):
        raise KeyboardInterrupt
    assert MadeWriter.made[0].is_closed


def test_without_tensorboard_a_run_is_as_ever(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    output = tmp_path / "m.safetensors"
    assert run(output, watchers=stop_after(1)).step == 1
    assert not (RunFolder(output).folder / "tensorboard").exists()


class FullWriter(MadeWriter):
    """There is no room on the disk."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_board_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path, monkeypatch):
    install(monkeypatch, FullWriter)
    assert run(tmp_path / "m.safetensors", watchers=stop_after(2)).step == 2
    assert len(MadeWriter.made) == 1


def count_boards(ranks: Ranks, output: Path) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch)
        run(output, ranks=ranks, watchers=stop_after(1))
        return len(MadeWriter.made)


def test_the_first_rank_has_the_board(tmp_path: Path):
    assert run_in_two_ranks(count_boards, tmp_path / "m.safetensors") == [1, 0]
