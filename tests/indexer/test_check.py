"""Check: each damage is found, none is served as a wrong answer, and what can be derived is put right."""

import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from indexer import generations
from indexer.catalog import Catalog
from indexer.check import check_collection
from indexer.cli import cli
from indexer.collection import Collection
from indexer.errors import CollectionError
from indexer.layout import CATALOG, CURRENT, THUMBNAILS
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")


def rot(path: Path) -> None:
    """A flipped byte that leaves the stamps as they were, as a disk does it."""
    stamp = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


def damage_thumbnail(place: Path) -> None:
    with closing(sqlite3.connect(place / THUMBNAILS)) as connection, connection:
        connection.execute("UPDATE thumbnails SET webp = substr(webp, 1, 40)")


STORE, GENERATION = Path("stores/000001"), Path("generations/000001")
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a flipped byte in a row": ("stores", lambda place: flip(place / STORE / "rows.f16")),
    "a flipped byte in a norm": ("stores", lambda place: flip(place / STORE / "norms.f32")),
    "a flipped byte in a checksum": ("stores", lambda place: flip(place / STORE / "crc.u32")),
    "rows cut off": ("stores", lambda place: cut(place / STORE / "rows.f16", 4 * 192 * 2 + 5)),
    "a store that is gone": ("stores", lambda place: shutil.rmtree(place / STORE)),
    "a flipped byte in the image numbers": ("generations", lambda place: flip(place / GENERATION / "image_ids.npy")),
    "rot in the image numbers": ("generations", lambda place: rot(place / GENERATION / "image_ids.npy")),
    "image numbers that are gone": ("generations", lambda place: (place / GENERATION / "image_ids.npy").unlink()),
    "no CURRENT": ("generations", lambda place: (place / CURRENT).unlink()),
    "a CURRENT of nonsense": ("generations", lambda place: (place / CURRENT).write_text("7\n")),
    "no thumbnails": ("thumbnails", lambda place: (place / THUMBNAILS).unlink()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damage_is_found_told_and_repaired(damage: str, place: Path, pictures: Path):
    build(place, pictures)
    part, harm = DAMAGE[damage]
    harm(place)
    if not damage.startswith("rot"):  # that one only a check can know
        assert_no_wrong_answer(place, pictures)
    found = check_collection(place)
    assert not found.is_sound
    assert part in {problem.part for problem in found.problems}, found.problems
    assert all("--repair" in problem.text or part == "stores" for problem in found.problems), found.problems
    assert all(problem.text.count("Run ") == 1 for problem in found.problems), found.problems
    repaired = check_collection(place, repair=True)
    assert repaired.is_sound, repaired.problems
    assert build(place).embedded == repaired.waiting
    assert not check_collection(place).problems
    with Collection(place) as collection:
        assert collection.read_status().images == 9
        for file in pictures.rglob("*.png"):
            neighbours = collection.find_similar(file.read_bytes(), count=9)
            assert neighbours[0].path == file and len(neighbours) == 9
            assert collection.read_thumbnail(neighbours[0].content_hash)


def assert_no_wrong_answer(place: Path, pictures: Path) -> None:
    with Collection(place) as collection:
        for file in pictures.rglob("*.png"):
            try:
                assert collection.find_similar(file.read_bytes(), count=1)[0].path == file
            except CollectionError:
                continue


def test_a_sound_collection_is_called_so_and_left_alone(place: Path, pictures: Path):
    build(place, pictures)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and "lock" not in path.name}
    report = check_collection(place)
    assert report.is_sound and not report.problems
    assert (report.files, report.rows, report.generations, report.thumbnails, report.sample) == (9, 9, 1, 9, 9)
    after = {path: path.read_bytes() for path in before}
    assert {path.name for path in before if before[path] != after[path]} <= {CATALOG}
    assert generations.read_current(place) == "000001"


def test_what_a_repair_gave_up_waits_for_a_build_and_is_said(place: Path, pictures: Path):
    build(place, pictures)
    flip(place / STORE / "rows.f16")
    told = CliRunner().invoke(cli, ["check", "--repair", "--collection", str(place)]).stdout
    assert told.endswith("All is well.\n1 file to be read by the next build; run seer build.\n")
    build(place)
    assert CliRunner().invoke(cli, ["check", "--collection", str(place)]).stdout.endswith("All is well.\n")


def test_a_picture_folder_that_is_away_is_told_as_one_and_not_file_by_file(
    place: Path, pictures: Path, tmp_path: Path
):
    other = draw(tmp_path / "other" / "one.png", 80).parent
    build(place, pictures, other)
    pictures.rename(tmp_path / "away")
    (other / "one.png").unlink()
    texts = [problem.text for problem in check_collection(place, sample=0).problems]
    assert [text.split(".")[0] for text in texts] == [
        f"There is no folder {pictures} any more", "1 of 10 files are not there any more",
    ]  # fmt: skip
    assert "mount it" in texts[0] and "seer relocate" in texts[0]


def test_a_thumbnail_that_is_no_picture_is_found_and_made_again(place: Path, pictures: Path):
    build(place, pictures)
    damage_thumbnail(place)
    assert "9 of 9 thumbnails" in check_collection(place).problems[0].text
    assert check_collection(place, repair=True).is_sound
    with Collection(place) as collection:
        first = collection.find_similar((pictures / "a" / "picture-1.png").read_bytes(), count=1)[0]
        with Image.open(io.BytesIO(collection.read_thumbnail(first.content_hash))) as thumbnail:
            assert thumbnail.format == "WEBP"


def test_files_that_changed_or_went_are_told(place: Path, pictures: Path):
    build(place, pictures)
    (pictures / "a" / "picture-1.png").unlink()
    draw(pictures / "a" / "picture-3.png", seed=60)
    texts = [problem.text for problem in check_collection(place, sample=0).problems]
    assert texts == [
        "1 of 9 files are not there any more. Run seer build.",
        "1 of 9 files have changed. Run seer build.",
    ]


def test_other_bytes_under_an_old_stamp_are_told(place: Path, pictures: Path):
    build(place, pictures)
    file = pictures / "a" / "picture-1.png"
    stamp, data = file.stat(), file.read_bytes()
    file.write_bytes(draw(pictures.parent / "other.png", seed=61).read_bytes().ljust(len(data), b"\0")[: len(data)])
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    problems = check_collection(place).problems
    assert [problem.part for problem in problems] == ["sample"]
    assert str(file) in problems[0].text


def test_an_embedding_that_comes_out_otherwise_is_told(place: Path, pictures: Path, monkeypatch):
    build(place, pictures)
    from tests.indexer import pixel_backbone

    embed = pixel_backbone.PixelBackbone.embed
    monkeypatch.setattr(pixel_backbone.PixelBackbone, "embed", lambda self, pixels: embed(self, pixels)[:, ::-1])
    problems = check_collection(place).problems
    assert len(problems) == 9 and all("is embedded otherwise now" in problem.text for problem in problems)


def test_a_collection_of_nothing_is_sound(place: Path):
    place.mkdir()
    Catalog(place / CATALOG).close()
    assert check_collection(place).is_sound


def test_the_command_says_what_it_found_and_its_exit_status_is_the_verdict(place: Path, pictures: Path):
    build(place, pictures)
    given = ["check", "--collection", str(place)]
    done = CliRunner().invoke(cli, given)
    assert done.exit_code == 0 and done.stdout.endswith("All is well.\n"), done.output
    flip(place / STORE / "rows.f16")
    failed = CliRunner().invoke(cli, given)
    assert failed.exit_code == 1 and "1 of 9 rows" in failed.stdout
    told = json.loads(CliRunner().invoke(cli, [*given, "--repair", "--json"]).stdout)
    assert told["is_sound"] and told["problems"][0]["is_repaired"]


def test_a_repair_that_was_cut_off_is_told_and_ended(place: Path, pictures: Path):
    build(place, pictures)
    flip(place / STORE / "rows.f16")

    def fall(step: str) -> None:
        if step == "store replaced":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_collection(place, repair=True, sample=0, on_step=fall)
    problems = check_collection(place, sample=0).problems
    assert [problem.part for problem in problems] == ["generations"]
    assert "another has taken the place of" in problems[0].text and "--repair" in problems[0].text
    assert check_collection(place, repair=True, sample=0).is_sound
    assert not check_collection(place, sample=0).problems
