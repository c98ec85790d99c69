"""A catalog with flipped bits, or lost: `seer check` tells, unless the answers are right; no build ends in a bug."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.catalog import Work
from indexer.check import check_collection
from indexer.cli import cli
from indexer.collection import Collection
from indexer.errors import CollectionDamaged
from indexer.fetching import list_tasks
from indexer.job import build_collection
from indexer.layout import CATALOG, MARKS
from indexer.places import find_place
from indexer.schema import explain_damage
from indexer.settings import BuildSettings
from seer_model.errors import UserError
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")

FLIPS = 150
HEADER_BYTES = 100

Answers = dict[str, list[tuple[str, float]]]


@pytest.fixture
def whole(place: Path, pictures: Path) -> bytes:
    """The bytes of a catalog that nine pictures were built into."""
    build(place, pictures)
    return (place / CATALOG).read_bytes()


def flip(data: bytes, seed: int) -> bytes:
    """Turn one bit after the file's header, where something is written."""
    dice = random.Random(seed)
    changed = bytearray(data)
    changed[dice.choice([at for at in range(HEADER_BYTES, len(data)) if data[at]])] ^= 1 << dice.randrange(8)
    return bytes(changed)


def ask(place: Path, pictures: Path) -> Answers:
    """File name -> (path, similarity) of its neighbours; without those whose path leads nowhere."""
    with Collection(place) as collection:
        return {
            file.name: [
                (str(neighbour.path), round(neighbour.similarity, 4))
                for neighbour in collection.find_similar(file.read_bytes(), count=9)
                if neighbour.path.is_file()
            ]
            for file in pictures.rglob("*.png")
        }


def test_it_is_told_or_the_answers_are_right(place: Path, pictures: Path, whole: bytes):
    right, found = ask(place, pictures), 0
    for seed in range(FLIPS):
        (place / CATALOG).write_bytes(flip(whole, seed))
        try:
            is_sound = check_collection(place, sample=0).is_sound
        except UserError:
            is_sound = False
        found += not is_sound
        assert not is_sound or ask(place, pictures) == right, seed
    assert FLIPS / 2 < found < FLIPS


def test_bytes_in_sqlites_own_words_are_told_as_damage(place: Path, whole: bytes):
    changed = whole.replace(b"size_bytes INTEGER NOT NULL, mtime", b"size_bytes INTEGER NOT \xffULL, mtime")
    assert changed != whole
    (place / CATALOG).write_bytes(changed)
    with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
        Collection(place).read_status()
    with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
        build_collection(place, [], BuildSettings(workers=1))


def test_a_build_on_it_ends_with_a_sentence_or_well(place: Path, whole: bytes):
    for seed in range(FLIPS):
        (place / CATALOG).write_bytes(flip(whole, seed))
        try:
            build_collection(place, [], BuildSettings(workers=1, batch_size=4))
        except UserError:
            continue


def test_a_file_that_is_listed_twice_is_read_once():
    work = [Work(path=path, size_bytes=1, mtime_ns=0, inode=0, is_new=True, known=()) for path in ("a", "b", "a")]
    new: dict[str, bool] = {}
    assert [task.path for task in list_tasks(iter(work), 3, new)] == ["a", "b"] and set(new) == {"a", "b"}


def loosen_index(catalog: Path) -> None:
    """The index of rows by image keeps an entry that its table has lost."""
    read, write = "SELECT rowid, * FROM sqlite_schema WHERE name = 'rows_by_image'", "PRAGMA writable_schema = ON"
    with closing(sqlite3.connect(catalog)) as connection, connection:
        (entry,) = connection.execute(read)
        connection.execute(write)
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'rows_by_image'")
    with closing(sqlite3.connect(catalog)) as connection, connection:
        connection.execute("DELETE FROM rows WHERE row = 8")
        connection.execute(write)
        columns = "rowid, type, name, tbl_name, rootpage, sql"
        connection.execute(f"INSERT INTO sqlite_schema ({columns}) VALUES (?, ?, ?, ?, ?, ?)", entry)


def test_an_index_that_has_what_its_table_has_not_is_told_as_damage(place: Path, whole: bytes):
    loosen_index(place / CATALOG)
    with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
        build(place)
    with pytest.raises(CollectionDamaged, match="UNIQUE constraint failed"):
        add_row(place / CATALOG, 8)


def test_a_broken_rule_in_a_catalog_that_is_whole_stays_a_bug(place: Path, whole: bytes):
    with pytest.raises(sqlite3.IntegrityError):
        add_row(place / CATALOG, 9)
    with pytest.raises(IndexError), explain_damage(place / CATALOG):
        raise IndexError


def add_row(catalog: Path, row: int) -> None:
    with explain_damage(catalog), closing(sqlite3.connect(catalog)) as connection:
        connection.execute("INSERT INTO rows SELECT 1, ?, image_id FROM images ORDER BY image_id DESC LIMIT 1", (row,))


LOSSES = {
    "gone": lambda catalog: catalog.unlink(),
    "empty": lambda catalog: catalog.write_bytes(b""),
    "head overwritten": lambda catalog: catalog.write_bytes(b"\xff" * 4096 + catalog.read_bytes()[4096:]),
    "cut in its head": lambda catalog: catalog.write_bytes(catalog.read_bytes()[:50]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_collection_without_its_catalog_is_told_as_one_and_the_advice_leads_on(
    place: Path, pictures: Path, tmp_path: Path, whole: bytes, loss: str
):
    with Collection(place) as collection:
        kept = collection.marks.keep_query(b"a picture", "name.jpg")
    LOSSES[loss](place / CATALOG)
    for command in (["status"], ["check", "--repair"], ["build"], ["build", str(pictures)], ["search", __file__]):
        told = CliRunner().invoke(cli, [*command, "--collection", str(place)])
        assert told.exit_code == 1, told.output
        assert f"seer: The catalog of the collection in {place} is gone or unreadable" in told.stderr
    with pytest.raises(CollectionDamaged):
        Collection(place)
    (tmp_path / "aside").mkdir()
    for entry in place.iterdir():
        if entry.name != MARKS:
            entry.rename(tmp_path / "aside" / entry.name)
    assert build(place, pictures).embedded == 9
    with Collection(place) as collection:
        assert collection.marks.open_query(kept).picture == b"a picture"


def test_one_in_the_default_place_is_not_passed_over_for_another(pictures: Path, tmp_path: Path):
    draw(tmp_path / "other" / "one.png", 1)
    for folder in (pictures, tmp_path / "other"):
        assert CliRunner().invoke(cli, ["build", str(folder)]).exit_code == 0
    lost = find_place([pictures])
    (lost / CATALOG).unlink()
    told = CliRunner().invoke(cli, ["status"])
    assert told.exit_code == 1 and "There are 2 collections" in told.stderr and str(lost) in told.stderr
    told = CliRunner().invoke(cli, ["build", str(pictures)])
    assert told.exit_code == 1 and f"The catalog of the collection in {lost} is gone" in told.stderr


def test_a_models_name_that_a_flipped_bit_made_bytes_is_still_read(place: Path, whole: bytes):
    with closing(sqlite3.connect(place / CATALOG)) as connection, connection:
        connection.execute("UPDATE stores SET model = CAST(model AS BLOB)")
    assert build(place).unchanged == 9
