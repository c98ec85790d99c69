"""What travels to a lent GPU and back: in pieces that are small enough, and whole when all of them are there."""

import gzip
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import lent
from benchmarks.lent import join_pieces, list_written, spread, unpack, write_pieces


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


def test_a_run_travels_in_folders_and_goes_on_where_it_is_looked_for(small: None, tmp_path: Path):
    run = tmp_path / "home" / "seer-mini.safetensors.run"
    write(run / "step-00000007" / "weights.safetensors", 9000)
    spread(write_pieces([(run, run.name)], tmp_path / "brought" / "run", "run"))
    folders = sorted((tmp_path / "brought").iterdir())
    assert [folder.name for folder in folders] == ["run-0", "run-1", "run-2"][: len(folders)] and len(folders) > 1
    for folder in folders:  # a call each
        assert not (tmp_path / "room" / "out" / run.name).exists()
        unpack(folder, tmp_path / "room")
    assert read_all(tmp_path / "room" / "out" / run.name) == read_all(run)
    assert not list((tmp_path / "room" / "pieces").iterdir())


def test_what_is_prepared_lies_there_as_it_was(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tmp_path / "data"
    write(data / "photos" / "one.jpg", 6000)
    (data / "unlabelled").mkdir()
    with tarfile.open(data / "unlabelled" / "shard-0.tar", "w") as shard:
        shard.add(data / "photos" / "one.jpg", "one.jpg")
    monkeypatch.setattr(lent, "BROUGHT", tmp_path / "brought")
    monkeypatch.setattr(lent, "fetch_wheels", lambda folder, python: None)
    done = CliRunner().invoke(lent.main, ["prepare", str(data)])
    assert done.exit_code == 0 and "MB" in done.output, done.output
    unpack(tmp_path / "brought", tmp_path / "room")
    assert read_all(tmp_path / "room" / "photos") == read_all(data / "photos")
    assert read_all(tmp_path / "room" / "pictures") == read_all(data / "unlabelled")
    with gzip.open(tmp_path / "brought" / "shard-0" / "shard-0.tar.gz") as small_shard:
        assert small_shard.read() == (data / "unlabelled" / "shard-0.tar").read_bytes()


def test_a_finished_run_comes_back_as_its_half_and_another_one_as_its_newest_checkpoint(tmp_path: Path):
    run = "seer-mini.safetensors.run"
    for name in ("step.out", "step.log", f"{run}/log.jsonl", f"{run}/step-00000001/a", f"{run}/step-00000002/a"):
        write(tmp_path / name, 5)
    always = {"step.out", "step.log", f"{run}/log.jsonl"}
    written = list(list_written(tmp_path))
    assert {placed for _, placed in written} == always | {f"{run}/step-00000002"}
    assert all(str(file.relative_to(tmp_path)) == placed for file, placed in written)
    write(tmp_path / "seer-mini.safetensors", 5)
    write(tmp_path / "seer-mini-half.safetensors", 5)
    assert {placed for _, placed in list_written(tmp_path)} == always | {"seer-mini-half.safetensors"}


def test_a_call_unpacks_runs_and_packs_even_what_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "brought" / "shard" / "shard.tar.gz", 0)

    def run(words: list[str], room: Path) -> int:
        assert (room / "pictures" / "shard.tar").exists() and words == ["tests", "--seconds", "60.0"]
        write(room / "out" / "tests.log", 5)
        return 1

    monkeypatch.setattr(lent, "BROUGHT", tmp_path / "brought")
    monkeypatch.setattr(lent, "ROOM", tmp_path / "room")
    monkeypatch.setattr(lent, "run_parts", run)
    called = CliRunner().invoke(lent.main, ["call", "tests", "--seconds", "60", "--back", str(tmp_path / "back")])
    assert called.exit_code == 1
    joined = CliRunner().invoke(lent.main, ["join", str(tmp_path / "back"), str(tmp_path / "home")])
    assert joined.exit_code == 0 and list(read_all(tmp_path / "home")) == ["tests.log"]
