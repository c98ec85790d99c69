"""Danger: `seer pretrain` asked to stop, killed, or started by torchrun ends with the model of an undisturbed run.

Every run here goes on from a copy of one that has come to step 1, so that all look at their figures at the same steps.
"""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from indexer.cli import cli
from seer_model.checkpoint import read_checkpoint
from seer_model.run_folder import RunFolder
from tests.conftest import REPOSITORY
from tests.indexer.making import draw_pile
from tests.indexer.screen import read_screen

PICTURES, STEPS = 16, 40
RECIPE = ("--preset", "tiny", "--batch-size", "4", "--epochs", "10", "--rate", "0.02")
HOW = ("--device", "cpu", "--workers", "1")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PATIENCE_SECONDS = 180
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""Of the same arithmetic, done once more."""
SHARED = 0.1
"""What sums over two ranks in another order may make, as a part of the way that the weights go in these steps. Batches
of 4 make much of rounding; 0.04 was seen."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pile(tmp_path_factory.mktemp("pictures"), PICTURES)


class Command:
    """`seer pretrain` with one recipe."""

    def __init__(self, pictures: Path, output: Path, *more: str, torchrun: tuple[str, ...] = ()) -> None:
        self.output = output
        self.line = [sys.executable, *torchrun, "-m", "indexer", "pretrain", str(pictures), "--output", str(output)]
        self.line += [*RECIPE, *HOW, *more]

    def start(self, **streams: object) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "COLUMNS": "80"}
        return subprocess.Popen(self.line, cwd=REPOSITORY, env=environment, text=True, **streams)

    def run(self) -> tuple[str, str]:
        """To the end; returns what it says on stdout and stderr."""
        with self.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            answer, told = hear_out(process)
        assert process.returncode == 0, told
        return answer, told

    def disturb(self, number: signal.Signals) -> tuple[int, str, list[str]]:
        """Send a signal at the look at step 20; returns the exit status and what was said since."""
        with self.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            for line in process.stderr:
                if line.startswith(f"step 20/{STEPS}"):
                    process.send_signal(number)
                    break
            answer, told = hear_out(process)
        return process.returncode, answer, told.splitlines()


def hear_out(process: subprocess.Popen) -> tuple[str, str]:
    """What it says up to its end on stdout and stderr; one that hangs is stopped."""
    try:
        return process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun hands it on
        raise


@pytest.fixture(scope="module")
def begun(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come to step 1, stopped by the clock."""
    output = tmp_path_factory.mktemp("begun") / "m.safetensors"
    arguments = Command(pictures, output, "--minutes", "0.00001").line[3:]
    done = CliRunner().invoke(cli, arguments)
    assert done.stdout == f"Stopped at step 1 of {STEPS}; --resume goes on from there.\n", done.output
    return output


@pytest.fixture
def command(pictures: Path, begun: Path, tmp_path: Path) -> Command:
    """What goes on with a copy of that run."""
    return go_on(pictures, begun, tmp_path)


def go_on(pictures: Path, begun: Path, folder: Path, **how: object) -> Command:
    output = folder / "m.safetensors"
    shutil.copytree(RunFolder(begun).folder, RunFolder(output).folder)
    return Command(pictures, output, "--resume", **how)


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    command, threads = go_on(pictures, begun, tmp_path_factory.mktemp("undisturbed")), torch.get_num_threads()
    torch.set_num_threads(1)  # as many as those that are disturbed have: sums in another order are another run
    try:
        done = CliRunner().invoke(cli, command.line[3:])
    finally:
        torch.set_num_threads(threads)
    assert done.stdout.startswith(f"{command.output}: {STEPS} steps in "), done.output
    return command.output


def read_weights(output: Path) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(output)
    return checkpoint.trunk | checkpoint.heads


def read_curve(output: Path) -> list[tuple[int, float]]:
    """Steps that every run looks at, with their losses."""
    return [(line["step"], line["loss"]) for line in RunFolder(output).read_log()]


def assert_same_run(one: Path, other: Path) -> None:
    assert [step for step, _ in read_curve(one)] == [1, 20, STEPS]
    torch.testing.assert_close(read_curve(one), read_curve(other), **CLOSE)
    torch.testing.assert_close(read_weights(one), read_weights(other), **CLOSE)


def measure_way(one: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    """The distance between two networks: of their weights, and of their statistics of batches."""
    gaps = {key: (weight - other[key]).double().square().sum() for key, weight in one.items()}
    squares = [[gap for key, gap in gaps.items() if ("running" in key) == is_running] for is_running in (False, True)]
    return torch.stack([torch.stack(parts).sum() for parts in squares]).sqrt()


@pytest.mark.long
def test_a_run_asked_to_stop_saves_and_goes_on_in_a_terminal(command: Command, undisturbed: Path):
    status, answer, told = command.disturb(signal.SIGTERM)
    assert status == 130
    assert "Saving and stopping after the step in hand; once more to stop at once." in told
    saved = RunFolder(command.output).load_newest().step
    assert 20 <= saved < STEPS and not command.output.exists()
    assert answer == f"Stopped at step {saved} of {STEPS}; --resume goes on from there.\n"
    lines = watch_in_terminal(command)
    assert lines[:2] == [f"{PICTURES} pictures", f"going on from step {saved} of {STEPS}"]
    assert f" {STEPS}/{STEPS}  epoch 10.00" in lines[-2] and "loss" in lines[-1] and max(map(len, lines[-2:])) <= 80
    torch.testing.assert_close(read_weights(command.output), read_weights(undisturbed), **CLOSE)


def watch_in_terminal(command: Command) -> list[str]:
    """What stands in a terminal of 80 columns after a run to its end."""
    ours, theirs = pty.openpty()
    written = b""
    with command.start(stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        while piece := read_piece(ours):
            written += piece
    os.close(ours)
    assert process.returncode == 0, written
    return [line for line in read_screen(written.decode()) if line]


def read_piece(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when nobody has the other end any more
        return b""


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_curve_and_the_same_model(command: Command, undisturbed: Path):
    status, answer, _ = command.disturb(signal.SIGKILL)
    assert (status, answer) == (-signal.SIGKILL, "")
    assert [step for step, _ in read_curve(command.output)][:2] == [1, 20] and not command.output.exists()
    assert RunFolder(command.output).load_newest().step == 1, "what came after the last checkpoint is done again"
    command.run()
    assert_same_run(command.output, undisturbed)


@pytest.mark.long
def test_two_processes_of_torchrun_are_one_and_one_of_them_speaks(
    pictures: Path, begun: Path, undisturbed: Path, tmp_path: Path
):
    command = go_on(pictures, begun, tmp_path, torchrun=TORCHRUN)
    command.line.append("--json")
    answer, told = command.run()
    report = json.loads(answer)
    assert (report["step"], report["output"]) == (STEPS, str(command.output))
    for once in (f"{PICTURES} pictures\n", "going on from step 1 of", f"step {STEPS}/{STEPS}", "curves: "):
        assert told.count(once) == 1, told
    torch.testing.assert_close(read_curve(command.output), read_curve(undisturbed), rtol=0, atol=5e-3)
    # But for the whitening: the sign of a direction is rounding's to choose.
    alone, shared = (drop_whitening(read_weights(output)) for output in (undisturbed, command.output))
    start = read_weights(RunFolder(undisturbed).folder / "step-00000001" / "weights.safetensors")
    assert (measure_way(shared, alone) < SHARED * measure_way(alone, start)).all()


def drop_whitening(weights: dict) -> dict:
    return {key: weight for key, weight in weights.items() if not key.startswith("whitening.")}
