"""What is kept ready for a GPU: each command can be given, and one that fails does not take the next with it."""

import importlib
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import on_gpu
from benchmarks.on_gpu import PARTS, Sources, Step, list_figures, list_steps, run_step
from tests.conftest import REPOSITORY


def make_sources(photos: Path) -> Sources:
    return Sources(photos=photos, pictures=photos, models=photos)


@pytest.mark.parametrize("is_rehearsed", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_each_command_is_one_that_there_is(part: str, is_rehearsed: bool, photos_folder: Path):
    steps = list_steps(part, make_sources(photos_folder), is_rehearsed=is_rehearsed)
    words = {word for step in steps for word in step.arguments}
    assert steps and not words & {"PHOTOS", "PICTURES", on_gpu.MODEL, on_gpu.LONGER}
    for step in steps:
        if step.module == "pytest":
            assert all((REPOSITORY / word).exists() for word in step.arguments if word.startswith("tests/"))
        else:
            # Parses what is given, and runs nothing.
            importlib.import_module(step.module).main.make_context(step.name, list(step.arguments))


def run(words: list[str], output: Path, *, seconds: float = 30, for_all: float = 30) -> str:
    step = Step(name="one", module=words[0], arguments=tuple(words[1:]), seconds=seconds)
    return run_step(step, output, time.monotonic() + for_all, make_sources(output))


def test_what_came_of_a_step_is_said_and_its_words_are_kept(tmp_path: Path):
    assert run(["calendar", "2026"], tmp_path).startswith("ended in")
    assert "2026" in (tmp_path / "one.out").read_text()
    assert run(["calendar", "no year"], tmp_path).startswith("failed with status")
    assert "year" in (tmp_path / "one.log").read_text()
    assert run(["http.server", "0", "--bind", "127.0.0.1"], tmp_path, seconds=0.5).startswith("took longer than")
    assert run(["calendar", "2026"], tmp_path, for_all=-1) == "not begun: no time was left"


def test_a_step_that_takes_too_long_is_let_to_save_and_the_tests_know_where_the_photos_lie(tmp_path: Path):
    # As a training run does: SIGTERM is answered by saving. A module, as steps are.
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    pathlib.Path(sys.argv[1]).write_text(os.environ['SEER_TEST_PHOTOS'])\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert run(["slow", str(tmp_path / "saved")], tmp_path, seconds=2).startswith("took longer than 2 s")
    assert (tmp_path / "one.out").read_text() == "ready\n"
    assert (tmp_path / "saved").read_text() == str(tmp_path)


def test_one_that_fails_is_followed_by_the_next_and_is_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps = [("bad", "calendar", ("no year",), 9), ("good", "calendar", ("2026",), 9)]
    monkeypatch.setattr(on_gpu, "PARTS", {"job": steps})
    places = ["--output", tmp_path / "out", "--photos", tmp_path, "--pictures", tmp_path]
    done = CliRunner().invoke(on_gpu.main, ["job", *map(str, places)])
    assert done.exit_code == 1
    assert [line.split()[:2] for line in done.output.splitlines() if line[0] != " "] == [
        ["bad", "failed"], ["good", "ended"],
    ]  # fmt: skip


def test_figures_are_read_from_what_a_step_has_written(tmp_path: Path):
    assert list_figures(tmp_path / "none") == []
    (tmp_path / "tests").write_text("...\n12 passed in 3 s\n")
    assert list_figures(tmp_path / "tests") == ["12 passed in 3 s"]
    rates = '"images_per_second": {"ours": {"median": 1234.56}}, "ratios": {"ours / GEMM": {"median": 0.5}}'
    (tmp_path / "rates").write_text("{" + rates + ', "memory": {"most": 2500000000}}')
    assert list_figures(tmp_path / "rates") == [
        "ours: 1,234.6 images/s", "ours / GEMM: 0.50", "memory most: 2.50 GB",
    ]  # fmt: skip
    (tmp_path / "tried").write_text('{"tried": [{"preset": "mini", "recompute": true, "outcome": "fits"}]}')
    assert list_figures(tmp_path / "tried") == ["mini, activations computed again: fits"]
    seen = '"busy_share": 0.875, "operations": [{"share": 0.25, "name": "aten::add", "shapes": "[[2]]"}]'
    (tmp_path / "profile").write_text("{" + seen + "}")
    assert list_figures(tmp_path / "profile") == ["the GPU is at work 88% of the time", "25% aten::add [[2]]"]
    (tmp_path / "profile").write_text('{"busy_share": null, "operations": []}')
    assert list_figures(tmp_path / "profile") == ["the profiler saw no kernel"]
    waiting = '{"images_per_second": {"ours": {"median": 2, "waiting_share": 0.25}}}'
    (tmp_path / "waiting").write_text(waiting)
    assert list_figures(tmp_path / "waiting") == ["ours: 2.0 images/s, waiting 25%"]


@pytest.mark.long
def test_all_of_it_in_small(tmp_path: Path, photos_folder: Path):
    places = ["--output", tmp_path, "--photos", photos_folder, "--pictures", photos_folder]
    done = CliRunner().invoke(on_gpu.main, [*PARTS, *map(str, places), "--rehearse"])
    assert done.exit_code == 0, done.output
