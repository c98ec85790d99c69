"""A byte that changed in any file of a collection: found by a check, never served as a wrong answer, put right."""

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from indexer import thumbnails
from indexer.check import check_collection
from indexer.collection import Collection
from indexer.errors import CollectionUnwritable
from indexer.layout import CURRENT, GENERATIONS, THUMBNAILS
from indexer.thumbnails import ThumbnailReader, ThumbnailWriter
from tests.danger.oracle import Truth, list_files, read_truth, require_equal, require_no_wrong
from tests.danger.tally import add
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels", "in_one_process")

SEED = 4
FLIPS = 12
STORE, GENERATION = Path("stores/000001"), Path("generations/000002")
VITAL = (
    *(STORE / name for name in ("rows.f16", "norms.f32", "crc.u32")),
    *(GENERATION / name for name in ("image_ids.npy", "manifest.json")),
)
"""A flip in one of these is a damage; in the others it may be none."""
HARMLESS = (Path(CURRENT), GENERATION / "verified.json")


@pytest.fixture
def lived(place: Path, pictures: Path) -> Path:
    """A collection with two generations on one store."""
    build(place, pictures)
    draw(pictures / "more.png", 50)
    build(place)
    return place


@pytest.fixture
def truth(lived: Path, pictures: Path) -> Truth:
    """What it answers."""
    return read_truth(lived, pictures)


def flip(path: Path, chance: random.Random, *, keeps_stamp: bool) -> None:
    """Change one bit; with the stamp kept it is the disk that did it, and not a program."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    with path.open("r+b") as file:
        file.write(data)
    if keeps_stamp:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    add("faults injected")


@pytest.mark.parametrize("keeps_stamp", [True, False], ids=["rot", "written"])
@pytest.mark.parametrize("name", [*VITAL, *HARMLESS], ids=lambda name: name.name)
def test_a_flipped_bit_is_found_and_never_answered(
    name: Path, keeps_stamp: bool, lived: Path, truth: Truth, pictures: Path, tmp_path: Path
):
    chance = random.Random(f"{SEED} {name}")
    kept = shutil.copytree(lived, tmp_path / "kept")
    for _ in range(FLIPS):
        flip(lived / name, chance, keeps_stamp=keeps_stamp)
        require_no_wrong(lived, truth, pictures, is_damaged=True)
        found = check_collection(lived, sample=0)
        assert not (name in VITAL and found.is_sound)
        assert check_collection(lived, repair=True).is_sound
        build(lived)
        require_equal(lived, truth, pictures)
        shutil.rmtree(lived)
        shutil.copytree(kept, lived)


@pytest.mark.parametrize("keeps_stamp", [True, False], ids=["rot", "written"])
@pytest.mark.parametrize("name", ["index.faiss", "held_out.npz"])
def test_a_flipped_bit_in_an_approximate_index_is_found_and_never_answered(
    name: str, keeps_stamp: bool, approximate: Path, pictures: Path, tmp_path: Path
):
    truth, chance = read_truth(approximate, pictures), random.Random(f"{SEED} {name}")
    kept = shutil.copytree(approximate, tmp_path / "kept")
    for _ in range(FLIPS // 3):
        flip(approximate / "generations" / "000001" / name, chance, keeps_stamp=keeps_stamp)
        require_no_wrong(approximate, truth, pictures, is_damaged=True)
        assert not check_collection(approximate, sample=0).is_sound
        assert check_collection(approximate, repair=True).is_sound
        build(approximate)
        require_equal(approximate, truth, pictures)
        shutil.rmtree(approximate)
        shutil.copytree(kept, approximate)


def test_a_flipped_bit_in_a_thumbnail_is_found_and_the_picture_made_anew(lived: Path, pictures: Path):
    shown = read_thumbnails(lived, pictures)
    chance = random.Random(SEED)
    for _ in range(4 * FLIPS):
        connection = connect_to_thumbnails(lived)
        content, webp = chance.choice(connection.execute("SELECT content_hash, webp FROM thumbnails").fetchall())
        changed = bytearray(webp)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        connection.execute("UPDATE thumbnails SET webp = ? WHERE content_hash = ?", (bytes(changed), content))
        connection.close()
        add("faults injected")
        assert read_thumbnails(lived, pictures) == shown
        assert "1 of 10 thumbnails" in check_collection(lived, sample=0, repair=True).problems[0].text
        assert check_collection(lived, sample=0).is_sound


def test_a_flipped_bit_anywhere_in_the_file_of_thumbnails_shows_no_other_picture(
    lived: Path, pictures: Path, tmp_path: Path
):
    shown = read_thumbnails(lived, pictures)
    whole, chance = (lived / THUMBNAILS).read_bytes(), random.Random(SEED)
    for number in range(2 * FLIPS):
        (lived / THUMBNAILS).write_bytes(whole)
        for _ in range(20):
            flip(lived / THUMBNAILS, chance, keeps_stamp=True)
        assert read_thumbnails(lived, pictures) == shown
        draw(pictures / "latest.png", 100 + number)
        assert build(lived).embedded == 1
        assert check_collection(lived, sample=0, repair=True).is_sound


def read_thumbnails(place: Path, pictures: Path) -> dict[Path, bytes]:
    with Collection(place) as collection:
        found = {file: collection.find_similar(file.read_bytes(), 1)[0].content_hash for file in list_files(pictures)}
        found.pop(pictures / "latest.png", None)
        return {file: collection.read_thumbnail(content) for file, content in found.items()}


def connect_to_thumbnails(place: Path):
    return sqlite3.connect(place / THUMBNAILS, isolation_level=None)


@pytest.mark.parametrize("gone", [GENERATION / "image_ids.npy", Path(CURRENT), Path(GENERATIONS)], ids=str)
def test_what_is_derived_may_be_deleted(gone: Path, lived: Path, truth: Truth, pictures: Path):
    (shutil.rmtree if (lived / gone).is_dir() else Path.unlink)(lived / gone)
    add("faults injected")
    require_no_wrong(lived, truth, pictures, is_damaged=True)
    assert build(lived).embedded == 0
    require_equal(lived, truth, pictures)


@pytest.mark.parametrize("name", ["rows.f16", "norms.f32", "crc.u32"])
def test_a_store_cut_at_any_byte_is_told_and_filled_again(
    name: str, lived: Path, truth: Truth, pictures: Path, tmp_path: Path
):
    chance, kept = random.Random(name), shutil.copytree(lived, tmp_path / "kept")
    for _ in range(FLIPS):
        os.truncate(lived / STORE / name, chance.randrange((lived / STORE / name).stat().st_size))
        add("faults injected")
        require_no_wrong(lived, truth, pictures, is_damaged=True)
        assert not check_collection(lived, sample=0).is_sound
        build(lived)
        require_equal(lived, truth, pictures)
        shutil.rmtree(lived)
        shutil.copytree(kept, lived)


def test_a_reader_that_is_open_takes_up_what_comes_after_a_deleted_generation(place: Path, pictures: Path):
    build(place, pictures)
    with Collection(place) as reader:
        assert reader.read_status().images == 9
        shutil.rmtree(place / GENERATIONS)
        draw(pictures / "new.png", 51)
        build(place)
        assert reader.read_status().images == 10


def test_thumbnails_that_turn_out_damaged_while_they_are_written_are_set_aside(tmp_path: Path):
    path = tmp_path / THUMBNAILS
    writer = ThumbnailWriter(path)
    writer.write([(bytes([key]) * 32, bytes(900)) for key in range(0, 250, 2)])
    writer.close()
    writer = ThumbnailWriter(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    add("faults injected")
    late = [(bytes([key]) * 32, b"webp") for key in range(1, 250, 2)]
    writer.write(late)
    assert writer.keep_only({key for key, _ in late[1:]}) == 1
    writer.close()
    assert path.with_name("thumbnails.sqlite.damaged").exists()
    reader = ThumbnailReader(path)
    assert [reader.read(key) for key, _ in late] == [None, *(webp for _, webp in late[1:])]
    reader.close()


def test_thumbnails_that_another_program_has_locked_are_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(thumbnails, "BUSY_SECONDS", 0.05)
    path = tmp_path / THUMBNAILS
    ThumbnailWriter(path).close()
    writer = ThumbnailWriter(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for attempt in (lambda: ThumbnailWriter(path), lambda: writer.write([(b"key", b"webp")])):
        with pytest.raises(CollectionUnwritable, match="locked"):
            attempt()
        add("faults injected")
    other.close()
    writer.write([(b"key", b"webp")])
    writer.close()
    assert not path.with_name("thumbnails.sqlite.damaged").exists()
