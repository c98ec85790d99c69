"""What travels to a lent GPU and back: in pieces that are small enough, and whole when all of them are there."""

import gzip
import os
import signal
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import lent
from benchmarks.lent import join_pieces, list_figures, list_unfinished, run_parts, unpack, write_pieces


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lent, "PIECE_BYTES", 4000)


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(number % 251 for number in range(size)))
    return path


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_pieces_are_small_enough_and_whole_once_all_are_there(small: None, tmp_path: Path):
    write(tmp_path / "run" / "step-1" / "weights", 9000)
    write(tmp_path / "run" / "log", 10)
    pieces = write_pieces([(tmp_path / "run", "run")], tmp_path / "out", "run")
    assert len(pieces) > 3 and max(piece.stat().st_size for piece in pieces) <= 4000
    last = pieces[-1].rename(tmp_path / pieces[-1].name)
    assert not join_pieces(tmp_path / "out", "run", tmp_path / "back") and not (tmp_path / "back").exists()
    last.rename(pieces[-1])
    assert join_pieces(tmp_path / "out", "run", tmp_path / "back")
    assert read_all(tmp_path / "back" / "run") == read_all(tmp_path / "run")


@pytest.fixture
def data(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo and a shard; no wheels are fetched."""
    write(tmp_path / "data" / "photos" / "one.jpg", 6000)
    (tmp_path / "data" / "unlabelled").mkdir()
    with tarfile.open(tmp_path / "data" / "unlabelled" / "shard-0.tar", "w") as shard:
        shard.add(tmp_path / "data" / "photos" / "one.jpg", "one.jpg")
    monkeypatch.setattr(lent, "BROUGHT", tmp_path / "brought")
    monkeypatch.setattr(lent, "ROOM", tmp_path / "room")
    monkeypatch.setattr(lent, "fetch_wheels", lambda folder, python: None)
    return tmp_path / "data"


def use(*words: object) -> Result:
    return CliRunner().invoke(lent.main, list(map(str, words)))


def test_a_run_travels_in_folders_as_its_newest_checkpoint_and_lies_where_it_is_looked_for(data: Path, tmp_path: Path):
    run = tmp_path / "home" / "seer-mini.safetensors.run"
    write(run / "log.jsonl", 10)
    write(run / "step-00000007" / "weights.safetensors", 9000)
    write(run / "step-00000003" / "weights.safetensors", 9000)
    assert use("prepare", data, "--run", run).exit_code == 0
    folders = sorted((tmp_path / "brought").glob("run*"))
    assert [folder.name for folder in folders] == ["run-0", "run-1", "run-2"]  # 20 kB of tar, two pieces each
    for folder in folders:  # a call each
        assert not (tmp_path / "room" / "out" / run.name).exists()
        unpack(folder, tmp_path / "room")
    found = read_all(tmp_path / "room" / "out" / run.name)
    assert set(found) == {"log.jsonl", "step-00000007/weights.safetensors"}
    assert found.items() <= read_all(run).items()
    assert not list((tmp_path / "room" / "pieces").iterdir())


def test_what_is_prepared_lies_there_as_it_was_and_does_not_come_twice(data: Path, tmp_path: Path):
    done = use("prepare", data)
    assert done.exit_code == 0 and "MB" in done.output, done.output
    with gzip.open(tmp_path / "brought" / "shard-0" / "shard-0.tar.gz") as small_shard:
        assert small_shard.read() == (data / "unlabelled" / "shard-0.tar").read_bytes()
    unpack(tmp_path / "brought", tmp_path / "room")
    assert read_all(tmp_path / "room" / "photos") == read_all(data / "photos")
    assert read_all(tmp_path / "room" / "pictures") == read_all(data / "unlabelled")
    assert not (tmp_path / "brought").exists()
    unpack(tmp_path / "brought", tmp_path / "room")


def test_a_finished_run_comes_back_as_its_half_and_another_one_as_its_newest_checkpoint(tmp_path: Path):
    run = "seer-mini.safetensors.run"
    for name in ("step.out", "step.log", f"{run}/log.jsonl", f"{run}/step-00000001/a", f"{run}/step-00000002/a"):
        write(tmp_path / name, 5)
    figures, unfinished = list(list_figures(tmp_path)), list(list_unfinished(tmp_path))
    assert {placed for _, placed in figures} == {"step.out", "step.log", f"{run}/log.jsonl"}
    assert {placed for _, placed in unfinished} == {f"{run}/log.jsonl", f"{run}/step-00000002"}
    assert all(str(file.relative_to(tmp_path)) == placed for file, placed in (*figures, *unfinished))
    write(tmp_path / "seer-mini.safetensors", 5)
    write(tmp_path / "seer-mini-half.safetensors", 5)
    assert {placed for _, placed in list_figures(tmp_path)} == {placed for _, placed in figures} | {
        "seer-mini-half.safetensors"
    }
    assert not list(list_unfinished(tmp_path))


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_call_unpacks_runs_and_packs_even_what_has_failed(
    is_ended: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run(words: list[str], room: Path) -> int:
        assert (room / "pictures" / "shard-0.tar").exists() and words[:2] == ["tests", "--seconds"]
        assert 55 < float(words[2]) <= 60
        write(room / "out" / "tests.log", 5)
        if is_ended:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1

    assert use("prepare", data).exit_code == 0
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(lent, "run_parts", run)
    assert use("call", "tests", "--limit", 100, "--back", tmp_path / "back").exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert use("join", tmp_path / "back", tmp_path / "home").exit_code == 0
    assert list(read_all(tmp_path / "home")) == ["tests.log"]


def test_a_call_without_parts_only_unpacks_and_pieces_that_are_missing_are_told(data: Path, tmp_path: Path):
    assert use("prepare", data).exit_code == 0
    assert use("call", "--limit", 30, "--back", tmp_path / "back").exit_code == 0
    assert (tmp_path / "room" / "photos" / "one.jpg").exists() and not (tmp_path / "back").exists()
    (tmp_path / "back").mkdir()
    refused = use("join", tmp_path / "back", tmp_path / "home")
    assert refused.exit_code == 1 and "Of figures 0 pieces lie in" in refused.output


def test_the_parts_have_the_wheels_and_their_status_is_that_of_the_call(data: Path, tmp_path: Path, monkeypatch):
    write(tmp_path / "repository" / "benchmarks" / "__init__.py", 0)
    (tmp_path / "repository" / "benchmarks" / "on_gpu.py").write_text(
        "import sys, brought_along\nassert sys.argv[1] == 'tests' and '--output' in sys.argv\nsys.exit(3)"
    )
    monkeypatch.setattr(lent, "REPOSITORY", tmp_path / "repository")
    assert run_parts(["tests"], tmp_path / "room") == 1  # no module of that name
    write(tmp_path / "room" / "site" / "brought_along.py", 0)
    assert run_parts(["tests"], tmp_path / "room") == 3
