"""An estimate: what a build would find and take, and that nothing is changed by asking."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer import estimate
from indexer.cli import cli
from indexer.errors import SourceError
from indexer.estimate import Estimate, estimate_build
from indexer.report import Progress
from indexer.settings import BuildSettings
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")


def ask(place: Path, *pictures: Path, **settings: object) -> Estimate:
    return estimate_build(place, list(pictures), BuildSettings(workers=1, **settings), lambda progress: None)


def list_all(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_collection_that_is_not_there_is_estimated_and_not_made(place: Path, pictures: Path):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    told = ask(place, pictures)
    assert (told.found, told.waiting, told.tried, told.failed) == (10, 10, 10, 1)
    assert told.seconds == pytest.approx(10 / told.images_per_second, abs=0.06)
    assert not place.exists()


def test_only_what_a_build_would_read_counts_and_the_collection_is_left_as_it_is(place: Path, pictures: Path):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    build(place, pictures, exclude=("b",))
    draw(pictures / "new.png", 40)
    os.utime(pictures / "a" / "picture-1.png", (1, 1))
    draw(pictures / "b" / "passed-over.png", 41)
    before = list_all(place)
    told = ask(place)
    assert (told.found, told.waiting, told.failed) == (6, 2, 0)
    assert list_all(place) == before
    assert build(place).images == 5
    assert (ask(place).waiting, ask(place).tried, ask(place).seconds) == (0, 0, 0)
    assert ask(place, model="regnety-400mf").waiting == 5
    build(place, model="regnety-400mf")
    assert ask(place).waiting == 0, "its own model is the one in use"
    assert ask(place, exclude=("",)).waiting == 6
    assert ask(place, retry_failed=True).waiting == 1
    assert ask(place, exclude=("",), limit=4).waiting == 4


def test_of_many_some_are_drawn_from_all_of_them(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "TRIED", 3)
    _, waiting, drawn = estimate._draw(place, [pictures], BuildSettings())
    assert (waiting, len(set(drawn))) == (9, 3)
    assert sorted(drawn) != sorted(map(str, pictures.rglob("*.png")))[:3]
    assert ask(place, pictures).tried == 3


def test_a_try_ends_when_its_time_is_over(place: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "TRYING_SECONDS", 0.0)
    told = ask(place, pictures, batch_size=2)
    assert (told.found, told.waiting) == (9, 9) and told.tried < 9


def test_the_disk_is_estimated_as_it_is_used(place: Path, tmp_path: Path):
    for seed in range(200):
        draw(tmp_path / "pictures" / f"{seed}.png", seed)
    told = ask(place, tmp_path / "pictures")
    build(place, tmp_path / "pictures")
    used = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert told.disk_bytes == pytest.approx(used, rel=0.25)


def test_a_rate_leaves_the_first_batch_out_where_there_are_several(monkeypatch: pytest.MonkeyPatch):
    course = estimate._Course(lambda progress: None)
    assert course.compute_rate() == 0
    for seconds, done in ((0.0, 0), (9.0, 16), (10.0, 32), (12.0, 64)):
        monkeypatch.setattr(estimate.time, "perf_counter", lambda told=seconds: told)
        course.note(Progress("embedding", done, 64))
    assert course.compute_rate() == (64 - 16) / (12.0 - 9.0)


def test_the_command_says_it_for_people_and_for_programs(place: Path, pictures: Path, tmp_path: Path):
    asked = ["build", str(pictures), "--collection", str(place), "--estimate"]
    told = CliRunner().invoke(cli, asked)
    assert told.exit_code == 0 and not place.exists()
    first, *_, last = told.stdout.splitlines()
    assert (first, last) == ("9 files found, 9 to be read.", "Nothing was changed.")
    assert "Time    about" in told.stdout and "are free" in told.stdout
    values = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert (values["schema_version"], values["waiting"]) == (1, 9) and not place.exists()
    (tmp_path / "empty").mkdir()
    none = CliRunner().invoke(cli, ["build", str(tmp_path / "empty"), "--estimate"])
    assert none.exit_code == 1 and "There are no pictures" in none.stderr


def test_a_collection_without_folders_is_a_sentence(place: Path, pictures: Path):
    build(place, pictures)
    CliRunner().invoke(cli, ["forget", str(pictures), "--collection", str(place)])
    with pytest.raises(SourceError, match="no picture folders yet"):
        ask(place)


def test_members_of_a_shard_are_tried_as_files_are(place: Path, pictures: Path, tmp_path: Path):
    shard = tmp_path / "x.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(pictures, "all")
    assert ask(place, shard).tried == ask(place, pictures).tried == 9
