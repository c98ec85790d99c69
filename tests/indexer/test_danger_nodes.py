"""Danger: a rank of `seer pretrain` is killed; torchrun starts all anew, and the run ends as if undisturbed.

By default two processes on one computer. With `--long` two nodes in network namespaces (or on two loopback addresses),
of which one is killed whole, torchrun and all, and comes back.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from indexer.pile import open_pile
from seer_model.checkpoint import read_checkpoint
from seer_model.presets import change_recipe, find_preset
from seer_model.pretrain import pretrain
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder
from seer_model.squares import Square
from tests.indexer.making import draw_pile
from tests.indexer.two_nodes import end_node, find_port, join_nodes, list_descendants, start_torchrun
from tests.seer_model.making_piles import MadePile
from tests.seer_model.two_ranks import run_in_two_ranks

PICTURES, BATCH, RATE = 16, 4, 0.02
STEPS = 24
"""Few more than 20, after which the run is looked at and saved for the first time."""
PATIENCE_SECONDS = 180


def say(pictures: Path, output: Path, steps: int) -> list[str]:
    """The command that pretrains for so many steps, a checkpoint at each look, which is every 20."""
    recipe = ["--preset", "tiny", "--batch-size", str(BATCH), "--epochs", str(steps * BATCH / PICTURES)]
    recipe += ["--rate", str(RATE), "--device", "cpu", "--workers", "1", "--save-every", "0", "--patience", "60"]
    return ["-m", "indexer", "pretrain", str(pictures), "--output", str(output), *recipe]


class Decoded(MadePile):
    """The pictures that the command decodes, ready: the processes of a test may not start others."""

    def __init__(self, pictures: Path) -> None:
        super().__init__(PICTURES)
        with open_pile([pictures], side_px=find_preset("tiny").picture_px, workers=1) as pile:
            self._squares = list(pile.read(range(PICTURES)))

    def _decode(self, number: int) -> Square:
        return self._squares[number]


def pretrain_undisturbed(ranks: Ranks, pile: Decoded, output: Path, steps: int) -> None:
    recipe = change_recipe(find_preset("tiny"), batch_size=BATCH, epochs=steps * BATCH / PICTURES, rate=RATE)
    pretrain(pile, output, recipe, ranks)


def assert_same_run(one: Path, other: Path, looks: list[int]) -> None:
    """Losses of each look, weights and whitening, to the bit: ranks are as many, and so is each one's share."""
    curves = [[(line["step"], line["loss"]) for line in RunFolder(output).read_log()] for output in (one, other)]
    assert [step for step, _ in curves[0]] == looks
    assert curves[0] == curves[1]
    found, expected = (read_checkpoint(output) for output in (one, other))
    for ours, theirs in ((found.trunk, expected.trunk), (found.heads, expected.heads)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_saved(output: Path, step: int) -> bool:
    return (RunFolder(output).folder / f"step-{step:08d}").is_dir()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pile(tmp_path_factory.mktemp("pictures"), PICTURES)


def find_second_rank(process: subprocess.Popen) -> int:
    """The process with RANK=1 that torchrun has started; it and its own have that in their environment."""
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in list_descendants(process.pid)}
    return min(pid for pid, environment in environments.items() if b"RANK=1" in environment.split(b"\0"))


@pytest.mark.long
def test_a_killed_rank_is_started_again_by_torchrun_and_nobody_says_resume(pictures: Path, tmp_path: Path):
    output, undisturbed, log = (tmp_path / name for name in ("m.safetensors", "undisturbed.safetensors", "log"))
    how = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    process = start_torchrun((), how, say(pictures, output, steps=STEPS), "lo", log)
    try:
        wait_until(lambda: has_saved(output, 20) or process.poll() is not None)
        os.kill(find_second_rank(process), signal.SIGKILL)
        run_in_two_ranks(pretrain_undisturbed, Decoded(pictures), undisturbed, STEPS)
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        end_node(process)
    assert log.read_text().count(f"going on from step 20 of {STEPS}") == 1, log.read_text()
    assert_same_run(output, undisturbed, [20, STEPS])


@pytest.mark.long
def test_a_node_that_is_killed_and_comes_back_joins_the_run(pictures: Path, tmp_path: Path):
    output, undisturbed = (tmp_path / f"{name}.safetensors" for name in ("m", "undisturbed"))
    run_on_two_nodes(say(pictures, undisturbed, steps=60), tmp_path / "undisturbed")
    command = say(pictures, output, steps=60)
    logs = run_on_two_nodes(command, tmp_path / "killed", kill_when=lambda: has_saved(output, 20))
    assert sum(log.count("going on from step 20 of 60") for log in logs) == 1, logs
    assert "has lost another one" in logs[0] and "has lost" not in logs[2]
    assert_same_run(output, undisturbed, [20, 40, 60])


def run_on_two_nodes(
    command: list[str], folder: Path, *, kill_when: Callable[[], bool] | None = None
) -> list[str]:
    """To the end; the second node may be killed on the way, and is then started again as it was.

    Returns: what was said on the first node, on the second, and there once more.
    """
    folder.mkdir()
    logs = [folder / name for name in ("first", "second", "again")]
    with join_nodes() as nodes:
        endpoint = f"{nodes[0].address}:{find_port()}"
        running = [node.start(command, endpoint, folder.name, log) for node, log in zip(nodes, logs, strict=False)]
        try:
            if kill_when:
                wait_until(lambda: kill_when() or running[0].poll() is not None)
                end_node(running[1])
                running[1] = nodes[1].start(command, endpoint, folder.name, logs[2])
            assert [process.wait(PATIENCE_SECONDS) for process in running] == [0, 0], logs[0].read_text()
        finally:
            for process in running:
                end_node(process)
    return [log.read_text() for log in logs if log.exists()]
