"""What a build passes over is remembered by the collection, until something else is said."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer import schema
from indexer.cli import cli
from indexer.collection import Collection
from indexer.layout import CATALOG
from tests.indexer.making import build, draw

pytestmark = pytest.mark.usefixtures("by_pixels")


def test_a_build_that_says_nothing_passes_over_what_the_last_one_did(place: Path, pictures: Path):
    assert build(place, pictures, exclude=("b", "*-1.png")).found == 3
    draw(pictures / "b" / "new.png", seed=30)
    assert build(place).found == 3
    with Collection(place) as collection:
        assert collection.read_status().excluded == ["*-1.png", "b"]


def test_what_is_said_takes_the_place_of_what_was(place: Path, pictures: Path):
    build(place, pictures, exclude=("b",))
    assert build(place, exclude=("a",)).found == 5
    assert build(place).found == 5
    assert build(place, exclude=("",)).found == 9
    assert build(place).found == 9


def test_what_is_excluded_later_leaves_the_answers_at_once_and_comes_back_unembedded(place: Path, pictures: Path):
    build(place, pictures)
    assert build(place, exclude=("b",)).removed == 5
    with Collection(place) as collection:
        found = collection.find_similar((pictures / "a" / "picture-1.png").read_bytes(), count=9)
        assert {neighbour.path.parent.name for neighbour in found} == {"a"}
    back = build(place, exclude=("",))
    assert (back.found, back.embedded) == (9, 0)


def test_a_name_that_is_no_text_can_be_excluded(place: Path, pictures: Path):
    odd = os.fsdecode(b"\xff.png")
    draw(pictures / odd, seed=40)
    build(place, pictures, exclude=(odd,))
    assert build(place).found == 9


@pytest.mark.parametrize("glob", ["b/", "./b", "{}/b", "b/*", "a/../b"])
def test_a_folder_can_be_named_as_people_name_it(place: Path, pictures: Path, glob: str):
    report = build(place, pictures, exclude=(glob.format(pictures),))
    assert (report.found, report.unmatched) == (4, ())
    assert build(place).found == 4


def test_where_the_picture_folder_itself_lies_does_not_matter(place: Path, pictures: Path):
    assert build(place, pictures, exclude=(f"*{pictures.parent.name}*", f"*/{pictures.name}/*")).found == 9


def test_a_glob_that_matches_nothing_is_told_by_the_build_it_was_given_with(place: Path, pictures: Path):
    given = ["build", str(pictures), "--collection", str(place), "--exclude", "B", "--exclude", "a"]
    told = CliRunner().invoke(cli, given).stdout
    assert "Nothing matches --exclude B:" in told and "--exclude a" not in told
    assert "Nothing matches" not in CliRunner().invoke(cli, ["build", "--collection", str(place)]).stdout


def test_status_shows_it(place: Path, pictures: Path):
    build(place, pictures, exclude=("b", "*.tif"))
    shown = CliRunner().invoke(cli, ["status", "--collection", str(place)]).stdout
    assert "excluded    *.tif, b\n" in shown


def test_a_catalog_from_before_opens_as_it_is_and_is_brought_up_to_date_by_a_build(place: Path, pictures: Path):
    build(place, pictures)
    with closing(sqlite3.connect(place / CATALOG)) as connection:
        connection.executescript("DROP TABLE mounts; ALTER TABLE files DROP COLUMN inode; PRAGMA user_version = 1")
        connection.executescript("DROP TABLE excluded")
    with Collection(place) as collection:
        assert collection.read_status().excluded == []
        assert len(collection.find_similar((pictures / "a" / "picture-1.png").read_bytes(), count=9)) == 9
    report = build(place, exclude=("b",))
    assert (report.found, report.embedded) == (4, 0)
    with closing(sqlite3.connect(place / CATALOG)) as connection:
        assert schema.read_value(connection, "PRAGMA user_version") == len(schema.MIGRATIONS)
