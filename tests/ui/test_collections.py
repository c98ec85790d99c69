"""Several collections at one page: which is shown stands in the URL, and the rest of the page keeps to it."""

import shutil
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

import ui.cli
from tests.indexer.making import build, draw
from tests.ui.conftest import REPOSITORY, Gallery, start_server
from tests.ui.test_pages import list_cards, open_page, press, read_error, read_texts
from ui.keys import Action, Key
from ui.resources import choose_collection, find_chosen, list_collections, list_shown
from ui.shelves import name_folders


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """`cats` with one picture and `dogs` with two."""
    for number, name in enumerate(("cats", "dogs"), start=1):
        for seed in range(number):
            draw(tmp_path / "pictures" / name / f"{name}-{seed}.png", 10 * number + seed)
        build(tmp_path / name, tmp_path / "pictures" / name)
    places = [tmp_path / "cats", tmp_path / "dogs"]
    choose_collection(*places)
    yield places
    choose_collection(None)


def choose(page: AppTest, name: str) -> AppTest:
    page.selectbox(key=Key.COLLECTION).select(name).run()
    assert not page.exception
    return page


def test_the_first_is_shown_and_another_one_is_chosen(two: list[Path]):
    page = open_page()
    assert page.selectbox(key=Key.COLLECTION).value == "cats" and "cats-0.png" in read_texts(page)
    choose(page, "dogs")
    assert page.query_params == {"collection": "dogs"} and {"dogs-0.png", "dogs-1.png"} <= set(read_texts(page))
    assert {one.folder for one in list_shown()} == set(two)


def test_what_is_pressed_keeps_the_collection_and_another_one_begins_at_its_start(two: list[Path]):
    page = open_page(collection="dogs")
    shown = list_cards(page)
    press(page, Action.SIMILAR, shown[1])
    assert page.query_params == {"collection": "dogs", "image": shown[1]} and len(list_cards(page)) == 2
    assert {link.proto.query_string for link in page.get("page_link")} == {"collection=dogs"}
    page.switch_page(str(REPOSITORY / "ui" / "views" / "status.py"))
    page.query_params["collection"] = "dogs"
    page.run()
    assert str(two[1].parent / "pictures" / "dogs") in read_texts(page)
    assert choose(page, "cats").query_params == {"collection": "cats"}
    assert str(two[0].parent / "pictures" / "cats") in read_texts(page)


def test_a_step_back_leads_to_the_collection_that_it_was_made_in(two: list[Path]):
    page = open_page(collection="dogs")
    shown = list_cards(page)
    press(page, Action.SIMILAR, shown[1])
    choose(page, "cats")
    page.button(key=Key.UNDO).click().run()
    assert page.query_params == {"collection": "dogs", "image": shown[1]} and list_cards(page)[0] == shown[1]
    choose(page, "cats")
    page.button(key=f"{Key.RECENT}-0").click().run()
    assert page.query_params == {"collection": "dogs", "image": shown[1]} and not page.warning


def test_a_name_that_is_not_there_says_which_are(two: list[Path]):
    page = open_page(collection="../../etc")
    assert "there are: cats, dogs" in read_error(page)
    assert page.selectbox(key=Key.COLLECTION).value is None
    assert "dogs-0.png" in read_texts(choose(page, "dogs"))


def test_one_collection_has_no_switch(shown: Gallery):
    assert not [one for one in open_page().selectbox if one.key == Key.COLLECTION]


def test_what_is_made_later_in_the_default_place_joins_and_the_first_stays(seer_home: Path, tmp_path: Path):
    draw(tmp_path / "pictures" / "a.png", 1)
    build(seer_home / "collections" / "second", tmp_path / "pictures")
    choose_collection(None)
    assert len(list_cards(open_page())) == 1 and list_collections() == ["second"]
    build(seer_home / "collections" / "first", tmp_path / "pictures")
    page = open_page()
    assert page.selectbox(key=Key.COLLECTION).options == ["first", "second"]
    assert page.selectbox(key=Key.COLLECTION).value == "second"
    shutil.rmtree(seer_home / "collections" / "second")
    assert "There is no collection in" in read_error(open_page())
    assert find_chosen() == "" and len(list_cards(open_page(collection="first"))) == 1


def test_folders_that_are_called_alike_have_names_of_their_own():
    folders = [Path("/a/x"), Path("/b/x"), Path("/b/y")]
    assert name_folders(folders) == {"x in /a": folders[0], "x in /b": folders[1], "y": folders[2]}


def test_pictures_of_each_collection_that_was_looked_at_are_served(two: list[Path], tmp_path: Path):
    with_dogs = open_page(collection="dogs")
    images = [list_cards(open_page())[0], list_cards(with_dogs)[0]]
    process, address = start_server(
        tmp_path / "home", "ui", *(f"--collection={place}" for place in two), "--port", "0"
    )
    try:
        assert urlopen(f"{address}/t/{images[0]}.webp").status == 200
        with pytest.raises(OSError, match="404"):  # Nobody has asked for that collection yet.
            urlopen(f"{address}/t/{images[1]}.webp")
    finally:
        process.kill()
        process.communicate()


def test_a_folder_without_a_collection_is_refused_before_anything_is_served(two: list[Path], tmp_path: Path):
    ended = CliRunner().invoke(ui.cli.main, ["ui", "--collection", str(two[0]), "--collection", str(tmp_path)])
    assert ended.exit_code and "There is no collection in" in ended.output
