"""Marks outlive whatever is done to their collection, and a check looks at them."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.check import check_collection
from indexer.collection import Collection
from indexer.errors import CollectionDamaged, CollectionUnwritable
from indexer.layout import CATALOG, MARKS
from indexer.upkeep import prune_collection, relocate_folder
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")
PICTURE = random.Random(3).randbytes(9000)


@pytest.fixture
def kept(place: Path, pictures: Path) -> str:
    """A collection with a kept query. Returns: its hash."""
    build(place, pictures)
    with Collection(place) as collection:
        return collection.marks.keep_query(PICTURE, "mine.jpg")


def remove_one_and_prune(place: Path, pictures: Path) -> None:
    (pictures / "a" / "picture-1.png").unlink()
    build(place)
    prune_collection(place)


def move(place: Path, pictures: Path) -> None:
    pictures.rename(pictures.with_name("elsewhere"))
    relocate_folder(place, pictures, pictures.with_name("elsewhere"))
    build(place)


def change_model(place: Path, pictures: Path) -> None:
    build(place, model="another-model")


def make_anew(place: Path, pictures: Path) -> None:
    """As a person does whose catalog is beyond repair."""
    for entry in place.iterdir():
        if entry.name != MARKS:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    build(place, pictures)


def repair(place: Path, pictures: Path) -> None:
    shutil.rmtree(place / "stores")
    check_collection(place, repair=True)
    build(place)


def build_again(place: Path, pictures: Path) -> None:
    draw(pictures / "new.png", 77)
    build(place)


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    change.__name__: change for change in (build_again, remove_one_and_prune, move, change_model, make_anew, repair)
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_outlives_a_change_to_the_byte(change: str, place: Path, pictures: Path, kept: str):
    before = (place / MARKS).read_bytes()
    CHANGES[change](place, pictures)
    assert (place / MARKS).read_bytes() == before
    with Collection(place) as collection:
        assert collection.marks.open_query(kept).picture == PICTURE


def test_a_build_takes_no_notice_of_damaged_marks(place: Path, pictures: Path, kept: str):
    (place / MARKS).write_bytes(b"nonsense" * 500)
    build_again(place, pictures)
    assert (place / MARKS).read_bytes() == b"nonsense" * 500
    with Collection(place) as collection:
        assert collection.find_similar((pictures / "new.png").read_bytes(), 1)[0].is_same
        with pytest.raises(CollectionDamaged):
            collection.marks.open_query(kept)


def test_a_check_looks_at_marks_and_its_repair_keeps_the_damaged_file(place: Path, kept: str):
    found = check_collection(place)
    assert (found.is_sound, found.marks) == (True, 1)
    data = bytearray((place / MARKS).read_bytes())
    data[data.index(PICTURE[5000:5100])] ^= 1
    (place / MARKS).write_bytes(data)
    told = check_collection(place, sample=0)
    assert [problem.part for problem in told.problems] == ["marks"]
    assert "seer check --repair" in told.problems[0].text and not told.is_sound
    assert (place / MARKS).read_bytes() == data, "without --repair nothing is changed"
    repaired = check_collection(place, sample=0, repair=True)
    assert repaired.is_sound and f"{MARKS}.damaged-1" in repaired.problems[0].text
    assert (place / f"{MARKS}.damaged-1").read_bytes() == data
    assert not check_collection(place, sample=0).problems


def test_marks_are_looked_at_even_where_the_catalog_is_beyond_repair(place: Path, kept: str):
    whole = (place / CATALOG).read_bytes()
    (place / CATALOG).write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    (place / MARKS).write_bytes(b"nonsense" * 500)
    parts = [problem.part for problem in check_collection(place, repair=True).problems]
    assert parts == ["marks", "catalog"]
    assert (place / f"{MARKS}.damaged-1").exists()


def test_an_answer_is_the_same_from_what_was_kept(place: Path, pictures: Path, tmp_path: Path):
    build(place, pictures)
    query = draw(tmp_path / "query.jpg", 3, quality=40).read_bytes()
    with Collection(place) as collection:
        first = collection.find_similar(query, 9)
        content_hash = collection.marks.keep_query(query, "query.jpg")
    with Collection(place) as collection:
        assert collection.find_similar(collection.marks.open_query(content_hash).picture, 9) == first


def test_a_folder_that_may_not_be_written_keeps_nothing_and_gives_what_it_has(place: Path, kept: str):
    for folder in (place, *place.parents):
        if folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o555 if folder == place else 0o755)
    (place / MARKS).chmod(0o444)
    child = os.fork()
    if child == 0:
        # Another user than root, for whom read-only means nothing.
        os.setuid(65534 if os.geteuid() == 0 else os.geteuid())
        os._exit(ask_of_read_only(place, kept))
    assert os.waitpid(child, 0)[1] == 0
    place.chmod(0o755)


def ask_of_read_only(place: Path, kept: str) -> int:
    """An exit status: 0 if all is as it should be."""
    try:
        with Collection(place) as collection:
            collection.marks.keep_query(b"another", "another.jpg")
    except CollectionUnwritable:
        with Collection(place) as collection:
            return int(collection.marks.open_query(kept).picture != PICTURE)
    return 2
