"""Uploads kept for links: opened by whoever has the link, forgotten on demand, and never in a search's way."""

import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.testing.v1 import AppTest

from indexer.check import check_collection
from indexer.collection import Query, Term, hash_content
from indexer.layout import MARKS
from tests.indexer.making import draw
from tests.ui.conftest import HOSTILE_NAMES, Gallery
from tests.ui.test_pages import UPLOAD, list_cards, open_page, open_status, press, read_texts, upload
from ui import resources
from ui.keys import Action, Key
from ui.resources import choose_collection, opened_early
from ui.texts import UNSEEN_BREAK, show_date
from ui.uploads import FORGOTTEN, GONE, NO_LINK, NOT_WANTED


@pytest.fixture
def own(gallery: Gallery, tmp_path: Path) -> Iterator[Gallery]:
    """The gallery in a copy of its own, chosen for the pages of this process."""
    place = tmp_path / "place"
    shutil.copytree(gallery.place, place)
    (place / MARKS).unlink(missing_ok=True)
    choose_collection(place)
    yield Gallery(gallery.pictures, place)
    choose_collection(None)


def damage(place: Path) -> None:
    (place / MARKS).write_bytes(b"nonsense" * 600)


def test_an_upload_has_a_link_that_opens_the_same_answer_elsewhere(own: Gallery, near_copy: Path):
    page = upload(open_page(count="12"), near_copy)
    content_hash = hash_content(near_copy.read_bytes()).hex()
    assert page.query_params == {"count": "12", "query": content_hash}
    other = open_page(query=content_hash, count="12")
    assert list_cards(other) == list_cards(page) and len(list_cards(page)) == 12
    assert near_copy.name in read_texts(other)
    until = show_date(datetime.now() + timedelta(days=30))
    for shown in (page, other):
        assert f"Kept for its link until {until}." in read_texts(shown)


def test_forget_it_deletes_it_and_its_link_says_so(own: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    content_hash = page.query_params["query"]
    page.button(key=Key.FORGET).click().run()
    assert not page.query_params and len(list_cards(page)) == 30
    assert page.toast[0].value == FORGOTTEN
    with own.open() as collection:
        assert collection.marks.open_query(content_hash) is None
    other = open_page(query=content_hash)
    assert other.warning[0].value == GONE and len(list_cards(other)) == 30


def test_start_over_leaves_the_link_as_it_is(own: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    content_hash = page.query_params["query"]
    page.button(key=Key.START_OVER).click().run()
    assert not page.query_params and len(list_cards(page)) == 30
    assert list_cards(open_page(query=content_hash))[0] == own.find_hash("picture-07.jpg")


def test_the_uploader_is_empty_once_its_picture_is_searched_from(own: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    assert page.file_uploader[0].value == []
    with pytest.raises(KeyError):
        page.file_uploader(key=UPLOAD)
    assert page.session_state[Key.OWN]
    choose_collection(own.place, keeps=False)
    page = upload(open_page(), near_copy)
    name, wanted = page.query_params["own"], list_cards(page)[1]
    press(page, Action.SIMILAR, wanted)
    assert page.file_uploader[0].value == []
    assert page.query_params == {"image": wanted} and list_cards(page)[0] == wanted
    # The browser's way back.
    page.query_params.clear()
    page.query_params["own"] = name
    assert list_cards(page.run())[0] == own.find_hash("picture-07.jpg")
    page.button(key=Key.START_OVER).click().run()
    assert len(list_cards(page)) == 30


def test_a_browser_that_tells_of_the_picture_once_more_changes_nothing(own: Gallery, near_copy: Path):
    page = open_page()
    page.file_uploader[0].upload(near_copy.name, near_copy.read_bytes(), "image/jpeg")
    told = page._tree.get_widget_states()
    found = list_cards(page.run())
    # What it tells of is no longer there.
    page._run(told)
    assert not page.error and list_cards(page) == found


def test_what_was_dropped_is_not_held_twice(own: Gallery, near_copy: Path, monkeypatch: pytest.MonkeyPatch):
    managers = []

    def watch(endpoint: str) -> MemoryUploadedFileManager:
        managers.append(MemoryUploadedFileManager(endpoint))
        return managers[-1]

    monkeypatch.setattr("streamlit.testing.v1.local_script_runner.MemoryUploadedFileManager", watch)
    page = upload(open_page(), near_copy)
    assert page.query_params["query"] and "test session id" in managers[-1].file_storage
    assert not any(managers[-1].file_storage.values())


@pytest.mark.parametrize("query", ["0" * 64, "no hash", "../../etc/passwd", "\0"])
def test_a_link_to_what_was_never_kept_says_so(own: Gallery, query: str):
    page = open_page(query=query)
    assert page.warning[0].value == GONE and len(list_cards(page)) == 30
    assert not (own.place / MARKS).exists()


def test_a_link_from_forgotten_in_another_tab_still_answers_where_the_picture_is(own: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    first = list_cards(page)
    with own.open() as collection:
        collection.marks.forget_queries()
    assert list_cards(page.run()) == first
    assert any("no longer kept" in text for text in read_texts(page))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_the_name_of_a_kept_upload_is_never_read_as_markdown(own: Gallery, near_copy: Path, name: str):
    page = open_page()
    page.file_uploader(key=f"{Key.UPLOAD}-0").upload(name, near_copy.read_bytes(), "image/jpeg").run()
    other = open_page(query=page.query_params["query"])
    assert name in read_texts(other)
    assert not any(name in text.value.replace(UNSEEN_BREAK, "") for text in other.markdown)


# --- where nothing is kept ---------------------------------------------------------------------------------------


def test_with_no_kept_uploads_a_search_leaves_nothing_behind(own: Gallery, near_copy: Path):
    choose_collection(own.place, keeps=False)
    page = upload(open_page(count="12"), near_copy)
    assert set(page.query_params) == {"count", "own"}
    assert list_cards(page)[0] == own.find_hash("picture-07.jpg")
    assert NOT_WANTED in read_texts(page)
    assert not (own.place / MARKS).exists()


def test_where_nothing_can_be_written_the_search_works_and_there_is_no_link(own: Gallery, near_copy: Path):
    (own.place / MARKS).mkdir()  # What stands in the way of a file stops root too.
    page = upload(open_page(), near_copy)
    assert set(page.query_params) == {"own"}
    assert list_cards(page)[0] == own.find_hash("picture-07.jpg")
    assert NO_LINK in read_texts(page)


def test_damaged_marks_cost_no_search_and_the_page_says_what_to_run(own: Gallery, near_copy: Path):
    kept = upload(open_page(), near_copy).query_params["query"]
    damage(own.place)
    page = upload(open_page(), near_copy)
    assert list_cards(page)[0] == own.find_hash("picture-07.jpg")
    assert any("seer check --repair" in text for text in read_texts(page))
    assert "seer check --repair" in open_page(query=kept).warning[0].value
    assert any("seer check --repair" in box.value for box in open_status().warning)
    assert check_collection(own.place, repair=True, sample=0).is_sound
    assert "query" in upload(open_page(), near_copy).query_params


def test_what_is_no_picture_is_not_kept(own: Gallery, tmp_path: Path):
    (tmp_path / "film.jpg").write_bytes(b"no picture")
    page = upload(open_page(), tmp_path / "film.jpg")
    assert "cannot be searched with" in page.error[0].value
    assert not page.query_params and not (own.place / MARKS).exists()


def test_from_what_is_no_picture_there_are_ways_on(own: Gallery, tmp_path: Path, near_copy: Path):
    (tmp_path / "film.jpg").write_bytes(b"no picture")
    page = upload(open_page(count="12"), tmp_path / "film.jpg")
    assert len(list_cards(page)) == 30 and page.error
    assert not page.run().error and page.query_params == {"count": "12"}, "it is told once"
    page = upload(open_page(), tmp_path / "film.jpg")
    page.file_uploader[0].upload(near_copy.name, near_copy.read_bytes(), "image/jpeg").run()
    assert not page.error and list_cards(page)[0] == own.find_hash("picture-07.jpg")


@pytest.fixture
def others(own: Gallery, tmp_path: Path) -> list[Path]:
    """Coarser copies of pictures 05 and 06; here nothing is kept."""
    choose_collection(own.place, keeps=False)
    paths = [tmp_path / f"other-{number}.jpg" for number in (5, 6)]
    for path, number in zip(paths, (5, 6), strict=True):
        with Image.open(own.pictures / f"picture-0{number}.jpg") as picture:
            picture.resize((100, 86)).save(path, quality=60)
    return paths


def drop(page: AppTest, *paths: Path) -> AppTest:
    for path in paths:
        page.file_uploader[0].upload(path.name, path.read_bytes(), "image/jpeg")
    page.run()
    assert not page.exception
    return page


def list_tray(page: AppTest) -> list[str]:
    return [picture.alt for element in page.get("image") for picture in element.proto.imgs]


def test_of_several_that_are_not_kept_each_is_searched_with_and_removed(own: Gallery, others: list[Path]):
    page = drop(open_page(), *others)
    assert list_tray(page) == ["Query: other-5.jpg", "Query: other-6.jpg"]
    nearest = {own.find_hash(f"picture-0{number}.jpg") for number in (5, 6)}
    assert set(list_cards(page)[:2]) == nearest
    page.button(key=f"{Key.TRAY}_remove_own0").click().run()
    assert list_tray(page) == ["Query: other-6.jpg"] and list_cards(page)[0] == own.find_hash("picture-06.jpg")


def test_what_is_not_kept_is_taken_away_where_that_is_asked_for(own: Gallery, others: list[Path]):
    six = own.find_hash("picture-06.jpg")
    with own.open() as collection:
        query = Query(Term(collection.find_image(six)), Term(others[0].read_bytes(), -1.0))
        expected = [one.content_hash for one in collection.find(query, 48).neighbours]
    page = open_page(image=six, count="48")
    page.segmented_control(key=Key.JOINING).set_value("be taken away").run()
    drop(page, others[0])
    assert list_tray(page) == ["Query: picture-06.jpg", "Unlike: other-5.jpg"] and page.query_params["image"] == six
    assert list_cards(page) == expected
    assert not [button for button in page.button if button.key in (Key.BOOKMARK, Key.WITHIN)], "no link names it"


def test_what_is_not_kept_means_nothing_in_another_tab(own: Gallery, others: list[Path]):
    link = drop(open_page(), others[0]).query_params["own"]
    page = open_page(own=link)
    assert "only in the tab" in page.warning[0].value and len(list_cards(page)) == 30
    page = drop(page, others[1])  # Another picture, in the other tab.
    page.query_params["own"] = link
    assert "only in the tab" in page.run().warning[0].value


@pytest.mark.parametrize("keeps", [True, False])
def test_one_that_is_no_picture_among_others_is_told_and_the_others_are_searched_with(
    own: Gallery, others: list[Path], tmp_path: Path, keeps: bool
):
    choose_collection(own.place, keeps=keeps)
    (tmp_path / "film.jpg").write_bytes(b"no picture")
    page = drop(open_page(), tmp_path / "film.jpg", others[0])
    assert "film" in page.error[0].value and len(page.error) == 1
    assert list_tray(page) == ["Query: other-5.jpg"]
    press(page, Action.SIMILAR, list_cards(page)[1])
    assert not page.error


def test_previews_of_a_full_tray_are_made_once(
    own: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []
    shrink = resources.shrink
    monkeypatch.setattr(resources, "shrink", lambda *given: made.append(given) or shrink(*given))
    paths = [draw(tmp_path / f"new-{seed}.jpg", 500 + seed) for seed in range(8)]
    page = drop(open_page(), *paths)
    page.run()
    assert len(list_tray(page)) == len(made) == 8


# --- all of them -------------------------------------------------------------------------------------------------


def test_the_status_page_says_how_much_is_kept_and_forgets_all(own: Gallery, near_copy: Path):
    assert "none" in read_texts(open_status())
    links = [upload(open_page(), path).query_params["query"] for path in (near_copy, own.pictures / "scan.tiff")]
    page = open_status()
    assert any(text.startswith("2 pictures, ") for text in read_texts(page))
    page.button(key=Key.FORGET_ALL).click().run()
    assert "none" in read_texts(page) and not [button for button in page.button if button.key == Key.FORGET_ALL]
    assert all(open_page(query=link).warning[0].value == GONE for link in links)


def test_what_is_due_is_deleted_when_a_server_starts(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    with own.open() as collection:
        collection.marks.keep_query(b"picture", "a.jpg")
        with opened_early():
            assert collection.marks.measure_queries()[0] == 1
        monkeypatch.setattr("indexer.marks.KEPT_SECONDS", -1)
        with opened_early():
            assert collection.marks.measure_queries()[0] == 0


def test_what_becomes_due_while_a_server_runs_is_deleted_too(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ui.resources.FORGET_EVERY_SECONDS", 0.05)
    with own.open() as collection, opened_early():
        collection.marks.keep_query(b"picture", "a.jpg")
        monkeypatch.setattr("indexer.marks.KEPT_SECONDS", -1)
        deadline = time.monotonic() + 20
        while collection.marks.measure_queries()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
