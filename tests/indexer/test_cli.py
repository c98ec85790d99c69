"""The command line as a person and a program use it: text, JSON, exit statuses."""

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexer.cli import cli
from tests.indexer.making import draw
from ui.cli import main as page_command

REPOSITORY = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    """`seer ARGUMENTS` in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def built(place: Path, pictures: Path, by_pixels: None) -> Path:
    assert run("build", pictures, "--collection", place).exit_code == 0
    return place


def test_build_prints_what_it_did_and_json_when_asked(place: Path, pictures: Path, by_pixels: None):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    first = run("build", pictures, "--collection", place)
    assert first.exit_code == 0
    assert "9 images can be searched (9 embedded" in first.stdout
    assert "1 file cannot be searched" in first.stdout
    told = json.loads(run("build", "--collection", place, "--json").stdout)
    assert told | {"seconds": 0, "images_per_second": 0} == {
        "schema_version": 1, "found": 10, "ignored": 0, "unreadable": 0, "embedded": 0, "unchanged": 9, "moved": 0,
        "removed": 0, "failed": 1, "pending": 0, "images": 9, "generation": "000001", "unmatched": [],
        "chosen": "exact: there are few rows",
        "seconds": 0, "images_per_second": 0, "unreadable_because": "", "absent": 0,
        "shards": 0,
    }  # fmt: skip


def test_a_build_gives_way_to_the_page_before_it_does_anything_else(
    place: Path, pictures: Path, given_way: list[int], monkeypatch: pytest.MonkeyPatch
):
    def run_build(*_: object, **__: object) -> None:
        assert given_way

    monkeypatch.setattr("indexer.cli_build.run_build", run_build)
    monkeypatch.setattr("indexer.cli_build.show_report", lambda *_: "")
    run("build", pictures, "--collection", place)
    run("build", pictures, "--collection", place, "--nice", 0)
    assert given_way == [10, 0]


@pytest.mark.skipif(sys.platform == "win32", reason="rights of another kind")
def test_a_new_collection_is_for_its_owner_alone_and_a_folder_that_was_there_is_left_as_it_is(
    place: Path, tmp_path: Path, pictures: Path, by_pixels: None
):
    (tmp_path / "shared").mkdir(mode=0o755)
    for folder, rights in ((place, 0o700), (tmp_path / "shared", 0o755)):
        assert run("build", pictures, "--collection", folder).exit_code == 0
        assert stat.S_IMODE(folder.stat().st_mode) == rights


def test_search_prints_neighbours_best_first_and_json_as_the_design_says(built: Path, pictures: Path):
    file = pictures / "a" / "picture-3.png"
    text = run("search", file, "--collection", built, "--count", 3)
    assert text.stdout.splitlines()[0] == f"1.000\t{file}"
    assert len(text.stdout.splitlines()) == 3
    told = json.loads(run("search", file, "--collection", built, "--count", 2, "--json").stdout)
    assert list(told) == [
        "schema_version", "collection", "generation", "exact", "recall", "milliseconds", "neighbours",
    ]  # fmt: skip
    assert (told["exact"], told["recall"], told["generation"]) == (True, 1.0, "000001")
    first = told["neighbours"][0]
    assert list(first) == [
        "rank", "similarity", "path", "paths", "image_id", "content_hash", "width", "height",
    ]  # fmt: skip
    assert (first["rank"], first["path"], first["paths"]) == (1, str(file), [str(file)])
    assert first["similarity"] >= 0.999999


def test_status_lists_what_cannot_be_searched_why_and_what_to_do(built: Path, pictures: Path):
    for number in range(22):
        (pictures / f"broken-{number:02}.jpg").write_bytes(b"no picture")
    run("build", "--collection", built)
    draw(pictures / "late.png", seed=70)
    run("build", "--collection", built, "--limit", 0)
    text = run("status", "--collection", built).stdout
    assert "9 searchable, from 32 files (22 failed, 1 pending)" in text
    assert f"{pictures / 'broken-00.jpg'}\n" in text and "save it as JPEG or PNG." in text
    assert "Not read yet: 1 file\n" in text and f"{pictures / 'late.png'}\n" in text
    assert "broken-20.jpg" not in text and "... and 2 more: seer status --all" in text
    whole = run("status", "--collection", built, "--all").stdout
    assert [f"broken-{number:02}.jpg" in whole for number in range(22)] == [True] * 22 and "more" not in whole
    told = json.loads(run("status", "--collection", built, "--json").stdout)
    assert [failure["path"] for failure in told["failures"]] == [
        str(pictures / f"broken-{number:02}.jpg") for number in range(22)
    ]
    assert [(file["path"], file["what_to_do"]) for file in told["pending_files"]] == [
        (str(pictures / "late.png"), "Run seer build.")
    ]
    needed = {"images", "files", "failed", "pending", "generation", "model", "dimension", "index", "recall"}
    assert needed <= set(told)


def test_the_only_collection_is_found_and_of_several_one_must_be_chosen(
    pictures: Path, tmp_path: Path, by_pixels: None
):
    missing = run("status")
    assert (missing.exit_code, missing.stderr) == (
        1,
        "seer: There is no collection yet. Make one: seer build PICTURES\n",
    )
    run("build", pictures)
    assert run("status").exit_code == 0
    draw(tmp_path / "other" / "one.png", seed=3)
    run("build", tmp_path / "other")
    several = run("search", pictures / "a" / "picture-3.png")
    assert several.exit_code == 1
    assert "There are 2 collections" in several.stderr and several.stderr.count("collections/") == 2
    assert run("build", pictures, "--json").stdout.count('"embedded": 0') == 1


@pytest.mark.parametrize(("arguments", "status"), [
    (["build", "/no/such/folder"], 1),
    (["build", "--collection", "/tmp/never-made-collection-of-seer"], 1),
    (["build", ".", "--max-megapixels", "0"], 2),
    (["build", ".", "--limit", "-3"], 2),
    (["build", ".", "--device", "gpu"], 1),
    (["search", __file__, "--at-least", "2"], 2),
    (["search", __file__, "--count", "0"], 2),
    (["search"], 2),
    (["search", "/no/such/file.jpg"], 2),
    (["build", "--nonsense"], 2),
    (["nonsense"], 2),
    (["--help"], 0),
    (["--version"], 0),
])  # fmt: skip
def test_exit_statuses(arguments: list[str], status: int):
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output


def test_a_computer_without_the_page_has_all_commands_but_those_of_the_page():
    assert set(page_command.commands) - set(cli.commands) == {"ui", "demo"}
    assert run("models", "list").exit_code == 0


def test_a_failed_command_leaves_no_new_collection_behind(seer_home: Path, tmp_path: Path):
    assert run("build", "/no/such/folder").exit_code == 1
    (tmp_path / "mistaken").mkdir()
    (tmp_path / "mistaken" / "notes.txt").write_text("no picture")
    told = run("build", tmp_path / "mistaken")
    assert told.exit_code == 1 and "(1 other file), and no collection was made" in told.stderr
    assert not list(seer_home.rglob("*"))


def test_a_folder_that_is_emptied_later_stays_a_collection(built: Path, pictures: Path):
    shutil.rmtree(pictures)
    pictures.mkdir()
    told = run("build", pictures, "--collection", built, "--accept-removals")
    assert told.exit_code == 0 and "0 images can be searched" in told.stdout


def test_a_folder_is_forgotten_and_its_pictures_leave_the_answers_at_once(built: Path, pictures: Path, tmp_path: Path):
    draw(tmp_path / "other" / "one.png", seed=77)
    run("build", tmp_path / "other", "--collection", built)
    unknown = run("forget", tmp_path / "elsewhere", "--collection", built)
    assert unknown.exit_code == 1 and f"\n  {pictures}" in unknown.stderr
    told = run("forget", pictures, "--collection", built)
    assert told.stdout == "9 files left the collection; seer prune gives back their space.\n"
    answer = json.loads(run("search", tmp_path / "other" / "one.png", "--collection", built, "--json").stdout)
    assert [one["path"] for one in answer["neighbours"]] == [str(tmp_path / "other" / "one.png")]
    assert json.loads(run("build", "--collection", built, "--json").stdout)["found"] == 1


def test_a_name_that_is_not_utf8_is_escaped_in_json_and_whole_in_base64(built: Path, pictures: Path):
    odd = Path(os.fsdecode(os.fsencode(pictures) + b"/caf\xe9\n.png"))
    draw(odd, seed=40)
    run("build", "--collection", built)
    first = json.loads(run("search", odd, "--collection", built, "--json").stdout)["neighbours"][0]
    assert first["path"].endswith("caf\\xe9\n.png")
    assert base64.b64decode(first["path_bytes"]) == os.fsencode(odd)
    assert run("search", odd, "--collection", built).stdout.splitlines()[0].endswith("caf\\xe9\\n.png")


def test_a_search_from_an_image_of_the_collection_and_the_status_do_without_torch(built: Path, pictures: Path):
    file = pictures / "a" / "picture-3.png"
    for command in ("--help", "status --collection PLACE", "search FILE --collection PLACE"):
        words = [{"PLACE": str(built), "FILE": str(file)}.get(word, word) for word in command.split()]
        code = (
            "import sys\nfrom indexer.cli import cli\n"
            f"cli({words!r}, standalone_mode=False)\n"
            "assert 'torch' not in sys.modules, 'torch was imported'"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_ctrl_c_keeps_the_batch_in_hand_and_the_next_build_goes_on(place: Path, tmp_path: Path, by_pixels: None):
    folder = tmp_path / "many"
    for seed in range(400):
        draw(folder / f"picture-{seed:03d}.png", seed)
    code = (
        "from tests.indexer import pixel_backbone; pixel_backbone.install()\n"
        "from indexer.cli import cli\n"
        f"cli(['build', {str(folder)!r}, '--collection', {str(place)!r}])"
    )
    build = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_rows(place)
    build.send_signal(signal.SIGINT)
    _, said = build.communicate(timeout=60)
    assert build.returncode == 130, said
    assert "Run again to go on" in said and "Traceback" not in said
    told = json.loads(run("build", "--collection", place, "--json").stdout)
    assert 0 < told["embedded"] < 400
    assert (told["images"], told["pending"]) == (400, 0)


def wait_for_rows(place: Path) -> None:
    rows = place / "stores" / "000001" / "rows.f16"
    for _ in range(600):
        if rows.is_file() and rows.stat().st_size:
            return
        time.sleep(0.05)
    pytest.fail("the build never wrote a row")


def test_search_names_every_file_of_an_image_and_says_when_there_is_no_answer(
    built: Path, pictures: Path, tmp_path: Path
):
    file = pictures / "a" / "picture-3.png"
    copy = shutil.copy(file, pictures / "copy.png")
    run("build", "--collection", built)
    assert run("search", file, "--collection", built, "--count", 1).stdout == f"1.000\t{file}\n1.000\t{copy}\n"
    outside = draw(tmp_path / "outside.png", seed=800)
    nothing = run("search", outside, "--collection", built, "--at-least", 1)
    assert (nothing.exit_code, nothing.stdout) == (0, "") and "Nothing is that similar." in nothing.stderr


def test_a_query_that_is_no_picture_is_named(built: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    result = run("search", tmp_path / "broken.jpg", "--collection", built)
    assert result.exit_code == 1
    assert f"seer: {tmp_path / 'broken.jpg'} cannot be searched with. The content is no picture" in result.stderr


def test_the_log_file_has_every_step_and_every_reason(built: Path, pictures: Path):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    run("build", "--collection", built)
    log = (built / "build.log").read_text()
    assert "generation published" in log
    assert "broken.jpg: " in log


def test_doctor_names_no_folder_of_the_person(pictures: Path, seer_home: Path, by_pixels: None):
    run("build", pictures)
    (manifest,) = seer_home.rglob("manifest.json")
    healthy = run("doctor").stdout
    manifest.write_text("[]")
    damaged = run("doctor")
    for told in (healthy, damaged.stdout):
        assert "faiss" in told and "torch" in told
        for private in (str(seer_home), str(pictures), pictures.name, str(Path.home()) + "/", "/tmp/"):
            assert private not in told.replace("make one: seer build PICTURES", "")
    assert "1. 9 images" in healthy and " bad " not in f" {healthy} "
    assert "1. CollectionDamaged" in damaged.stdout and damaged.exit_code == 1
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    assert [finding["name"] for finding in findings if finding["state"] == "bad"] == ["collections"]


def test_doctor_finds_two_faiss_wheels(monkeypatch: pytest.MonkeyPatch):
    from indexer import doctor

    monkeypatch.setattr(doctor, "_read_version", lambda name: "1.15.1")
    result = run("doctor")
    assert result.exit_code == 1
    assert "overwrite each other" in result.stdout and "pip uninstall faiss-cpu faiss-gpu" in result.stdout
