"""The pages as a person uses them, without a browser: the script runs, and what it shows is read."""

import json
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.BidiComponent_pb2 import BidiComponent
from streamlit.testing.v1 import AppTest

from indexer.collection import hash_content, show_similarity
from indexer.query_model import QueryModel
from indexer.snapshot import Snapshot
from tests.indexer.making import build, draw
from tests.ui.conftest import BROKEN, HOSTILE_NAMES, REPOSITORY, Gallery
from ui.keys import Action, Key
from ui.resources import choose_collection

SCRIPT = REPOSITORY / "ui" / "script.py"
UPLOAD = f"{Key.UPLOAD}-0"


def open_page(**parameters: str) -> AppTest:
    """The start page at this URL."""
    page = AppTest.from_file(str(SCRIPT), default_timeout=60)
    for name, value in parameters.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def find_count(page: AppTest):
    """The control for how many neighbours there are on a page."""
    return next(one for one in page.get("button_group") if one.key == Key.COUNT)


def list_pictures(page: AppTest) -> list:
    """What `st.image` was told: `.url` and `.alt` of every picture."""
    return [picture for element in page.get("image") for picture in element.proto.imgs]


def find_gallery(page: AppTest) -> BidiComponent:
    return next(one.proto for one in page.get("bidi_component") if one.proto.id.endswith(f"-{Key.GALLERY}"))


def read_cards(page: AppTest) -> list[dict]:
    """What the browser is told of every card, in their order."""
    return json.loads(find_gallery(page).json)


def list_cards(page: AppTest) -> list[str]:
    """The cards in their order: their content hashes."""
    return [card["image"] for card in read_cards(page)]


def press(page: AppTest, action: Action, content_hash: str) -> AppTest:
    """What the browser sends when a button of a card is pressed."""
    states = page._tree.get_widget_states()
    pressed = json.dumps([{"event": action, "value": content_hash}])
    states.widgets.add(id=_make_trigger_id(find_gallery(page).id, "events"), json_trigger_value=pressed)
    return page._run(states)


def read_texts(page: AppTest) -> list[str]:
    """What stands in the page as plain text, the lines under cards included."""
    has_cards = any(one.proto.id.endswith(f"-{Key.GALLERY}") for one in page.get("bidi_component"))
    cards = read_cards(page) if has_cards else []
    lines = [card[part] for card in cards for part in ("line", "files") if card[part]]
    return [text.value for text in page.text] + lines


def ask(gallery: Gallery, name: str, **options: object) -> list[str]:
    """What the collection itself answers: content hashes."""
    with gallery.open() as collection:
        image_id = collection.find_image(gallery.find_hash(name))
        return [neighbour.content_hash for neighbour in collection.find_similar_to(image_id, **options)]


def upload(page: AppTest, path: Path) -> AppTest:
    return page.file_uploader(key=UPLOAD).upload(path.name, path.read_bytes(), "image/jpeg").run()


# --- searching ---------------------------------------------------------------------------------------------------


def test_without_a_query_there_are_images_to_begin_with(shown: Gallery):
    page = open_page()
    with shown.open() as collection:
        expected = [image.content_hash for image in collection.list_images(count=48)]
    assert list_cards(page) == expected
    assert len(expected) == 30


def test_a_click_on_an_image_searches_on_from_it_and_says_so_in_the_url(shown: Gallery):
    content_hash = shown.find_hash("picture-05.jpg")
    page = open_page()
    press(page, Action.SIMILAR, content_hash)
    assert page.query_params == {"image": content_hash}
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=24)
    second = list_cards(page)[1]
    press(page, Action.SIMILAR, second)
    assert page.query_params["image"] == second
    assert list_cards(page)[0] == second


def test_similarities_are_shown_and_only_the_image_itself_has_one(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12")
    with shown.open() as collection:
        found = collection.find_similar_to(collection.find_image(shown.find_hash("picture-05.jpg")), 12)
    shown_texts = read_texts(page)
    for neighbour in found:
        assert show_similarity(neighbour) in shown_texts
    assert shown_texts.count("1.000") == 1


def test_a_link_opens_the_same_page_for_everybody(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12", page="2")
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=12, first=12)
    assert find_count(page).value in (12, [12])


def test_how_many_is_changed_and_the_answer_begins_anew(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12", page="2")
    find_count(page).set_value(48).run()
    assert page.query_params["count"] == "48"
    assert "page" not in page.query_params
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=48)


@pytest.mark.parametrize("page", ["0000000019999999999", "000000001" + "9" * 4400, "-1", "x", "1001", "²"])
def test_a_page_that_there_cannot_be_is_the_first(shown: Gallery, page: str):
    image = shown.find_hash("picture-05.jpg")
    assert list_cards(open_page(image=image, count="12", page=page)) == ask(shown, "picture-05.jpg", count=12)


def test_paging_on_goes_through_all_neighbours_once(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12")
    seen = list_cards(page)
    for number in (2, 3):
        page.get("pagination")[0].set_value(number).run()
        assert page.query_params["page"] == str(number)
        seen += list_cards(page)
    assert seen == ask(shown, "picture-05.jpg", count=1000)


def test_more_is_loaded_below_what_is_there(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12")
    first = list_cards(page)
    page.button(key=Key.MORE).click().run()
    assert "count" not in page.query_params and list_cards(page)[:12] == first and len(list_cards(page)) == 24
    page.button(key=Key.MORE).click().run()
    assert len(list_cards(page)) == 30 and not [button for button in page.button if button.key == Key.MORE]


def test_a_lower_bound_leaves_out_what_is_less_similar(shown: Gallery):
    with shown.open() as collection:
        found = collection.find_similar_to(collection.find_image(shown.find_hash("picture-05.jpg")), 30)
    bound = round(found[9].similarity - 0.005, 2)
    page = open_page(image=found[0].content_hash)
    assert page.slider(key=Key.SIMILARITY).value == (0.0, 1.0)
    page.slider(key=Key.SIMILARITY).set_value((bound, 1.0)).run()
    assert page.query_params["at_least"] == str(bound) and "at_most" not in page.query_params
    assert list_cards(page) == [one.content_hash for one in found if one.similarity >= bound]


def test_an_upper_bound_passes_over_what_is_more_similar(shown: Gallery):
    with shown.open() as collection:
        found = collection.find_similar_to(collection.find_image(shown.find_hash("picture-05.jpg")), 30)
    bounds = {"at_least": str(found[9].similarity), "at_most": str(found[4].similarity)}
    page = open_page(image=found[0].content_hash, **bounds)
    assert page.slider(key=Key.SIMILARITY).value == (found[9].similarity, found[4].similarity)
    assert list_cards(page) == [one.content_hash for one in found[4:10]]
    page.slider(key=Key.SIMILARITY).set_value((0.0, 0.02)).run()
    assert page.query_params["at_most"] == "0.02" and "at_least" not in page.query_params
    assert "Widen the bounds" in page.info[0].value
    page.slider(key=Key.SIMILARITY).set_value((0.0, 1.0)).run()
    assert page.query_params == {"image": found[0].content_hash}
    page = open_page(image=found[0].content_hash, at_least="-0.5")
    assert page.slider(key=Key.SIMILARITY).min == -1.0
    assert list_cards(open_page(image=found[0].content_hash, at_least="0.9", at_most="0.1")) == list_cards(page)[:24]


def test_a_page_beyond_the_last_says_so_and_leads_back(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), page="9")
    assert "nothing on page 9" in page.info[0].value
    assert page.get("pagination")[0].value == 9


def test_a_bound_that_nothing_reaches_says_so(shown: Gallery, near_copy: Path):
    page = upload(open_page(at_least="1.0"), near_copy)
    assert "Lower the bound" in page.info[0].value
    assert list_cards(page) == []


@pytest.mark.parametrize("value", ["", "x", "-1.5e3", "nan", "inf", "1000000000000", "²", "12 OR 1=1"])
def test_a_value_in_the_url_that_makes_no_sense_counts_as_not_given(shown: Gallery, value: str):
    nonsense = dict.fromkeys(("count", "at_least", "at_most", "exact", "page"), value)
    page = open_page(image=shown.find_hash("picture-05.jpg"), **nonsense)
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=24)


def test_start_over_forgets_the_query(shown: Gallery, near_copy: Path):
    page = upload(open_page(count="12"), near_copy)
    assert page.button(key=Key.START_OVER).click().run().query_params == {"count": "12"}
    assert len(list_cards(page)) == 30


def test_the_footer_says_what_answered(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"))
    line = next(text for text in read_texts(page) if "generation" in text)
    assert "30 images · model seer-mini · generation 000001 · searched exactly · " in line
    assert line.endswith(" ms")
    assert Key.EXACT not in [one.key for one in page.toggle], "there is nothing to switch"


def test_an_approximate_answer_says_so_and_the_switch_makes_it_exact(shown: Gallery, monkeypatch: pytest.MonkeyPatch):
    asked = []
    rank = Snapshot.rank

    def note(snapshot: Snapshot, *arguments: object, is_exact: bool, **more: object) -> object:
        asked.append(is_exact)
        return rank(snapshot, *arguments, is_exact=True, **more)

    monkeypatch.setattr(Snapshot, "rank", note)
    monkeypatch.setattr(Snapshot, "is_approximate", True)
    monkeypatch.setattr(Snapshot, "warm_up", lambda snapshot: snapshot.exact)
    monkeypatch.setattr(Snapshot, "is_answered_exactly", lambda snapshot, allowed: False)
    monkeypatch.setattr(Snapshot, "read_recall", lambda snapshot, allowed: 0.985)
    page = open_page(image=shown.find_hash("picture-05.jpg"))
    assert any(" · searched approximately, recall 0.985 · " in text for text in read_texts(page))
    page.toggle(key=Key.EXACT).set_value(True).run()
    assert page.query_params["exact"] == "1"
    assert any(" · searched exactly · " in text for text in read_texts(page))
    page.toggle(key=Key.EXACT).set_value(False).run()
    assert "exact" not in page.query_params
    assert asked == [False, True, False]


def test_pictures_come_from_our_own_addresses(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"))
    urls = [picture.url for picture in list_pictures(page)]
    assert urls == [f"http://localhost/t/{shown.find_hash('picture-05.jpg')}.webp"]


# --- an upload ---------------------------------------------------------------------------------------------------


def test_an_upload_finds_the_image_that_it_was_made_from(shown: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    assert list_cards(page)[0] == shown.find_hash("picture-07.jpg")
    assert "1.000" not in read_texts(page)
    assert not any("in the collection" in text.value for text in page.markdown)


def test_an_upload_that_the_collection_has_is_recognised(shown: Gallery):
    page = upload(open_page(), shown.pictures / "picture-07.jpg")
    assert "1.000" in read_texts(page)
    assert any("This picture is in the collection" in text.value for text in page.markdown)


def test_the_way_back_from_a_neighbour_leads_to_the_upload(shown: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    first = list_cards(page)
    press(page, Action.SIMILAR, first[3])
    assert list_cards(page)[0] == first[3]
    page.query_params.clear()
    page.query_params["query"] = hash_content(near_copy.read_bytes()).hex()
    assert list_cards(page.run()) == first


def test_an_upload_comes_before_the_image_in_the_url(shown: Gallery, near_copy: Path):
    page = upload(open_page(image=shown.find_hash("picture-05.jpg"), count="12"), near_copy)
    assert page.query_params == {"count": "12", "query": hash_content(near_copy.read_bytes()).hex()}
    assert list_cards(page)[0] == shown.find_hash("picture-07.jpg")


def test_an_upload_that_is_no_picture_is_refused_with_the_reason(shown: Gallery, tmp_path: Path):
    (tmp_path / "no_picture*.jpg").write_bytes(b"what is this?")
    page = upload(open_page(), tmp_path / "no_picture*.jpg")
    said = page.error[0].value.replace("\\", "")
    assert said.startswith("no_picture*.jpg cannot be searched with.")
    assert said.endswith("Choose another picture.")


def test_while_the_model_loads_images_are_answered_and_an_upload_waits(
    shown: Gallery, near_copy: Path, monkeypatch: pytest.MonkeyPatch
):
    told, may_load = [], threading.Event()
    load = QueryModel.load

    def wait_for_it(model: QueryModel, manifest: dict) -> object:
        assert may_load.wait(30)
        return load(model, manifest)

    @contextmanager
    def tell(text: str):
        told.append(text)
        may_load.set()
        yield

    monkeypatch.setattr(QueryModel, "load", wait_for_it)
    monkeypatch.setattr(streamlit, "spinner", tell)
    choose_collection(shown.place)
    assert len(list_cards(open_page(image=shown.find_hash("picture-05.jpg")))) == 24
    assert not may_load.is_set()
    page = upload(open_page(), near_copy)
    assert "model is loading" in told[0]
    assert list_cards(page)[0] == shown.find_hash("picture-07.jpg")


# --- an image opened large ---------------------------------------------------------------------------------------


def test_an_image_opens_large_with_its_paths_size_and_date(shown: Gallery):
    content_hash = shown.find_hash("picture-03.jpg")
    page = open_page()
    press(page, Action.OPEN, content_hash)
    assert list_pictures(page)[-1].url == f"http://localhost/o/{content_hash}"
    paths = {shown.pictures / "picture-03.jpg", shown.pictures / "copies" / "the-same.jpg"}
    assert {code.value for code in page.code} == {str(path) for path in paths}
    facts = next(text for text in read_texts(page) if "140 × 120 px" in text)
    assert "JPEG" in facts
    assert f"{max(path.stat().st_size for path in paths) / 1000:.0f} KB" in facts
    page.button(key=Key.LARGE_SIMILAR).click().run()
    assert page.query_params["image"] == content_hash


def test_a_card_that_is_not_shown_opens_nothing(shown: Gallery):
    page = press(open_page(image=shown.find_hash("picture-05.jpg"), count="12"), Action.OPEN, "0" * 64)
    assert not page.code
    assert len(list_cards(page)) == 12


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_file_name_is_never_read_as_markdown(shown: Gallery, name: str):
    page = open_page(image=shown.find_hash(name))
    assert name in read_texts(page)
    assert list_pictures(page)[0].alt == f"Query: {name}"
    assert name in [card["name"] for card in read_cards(page)]
    assert not any(name in text.value for text in page.markdown)


# --- what can be wrong -------------------------------------------------------------------------------------------


def read_error(page: AppTest) -> str:
    assert not page.exception
    return page.error[0].value.replace("\\", "")


def test_a_link_to_an_image_that_is_gone_says_so_and_shows_others(shown: Gallery):
    for gone in ("0" * 64, "no hash", "../../etc/passwd"):
        page = open_page(image=gone)
        assert "no longer, in the collection" in page.warning[0].value
        assert len(list_cards(page)) == 30


def test_without_a_collection_the_page_says_how_to_make_one_and_takes_it_up(seer_home: Path, tmp_path: Path):
    choose_collection(None)
    page = open_page()
    assert "seer build PICTURES" in read_error(page)
    draw(tmp_path / "pictures" / "a.png", 1)
    build(seer_home / "collections" / "first", tmp_path / "pictures")
    assert len(list_cards(page.run())) == 1
    assert not page.error
    build(seer_home / "collections" / "second", tmp_path / "pictures")
    assert not page.run().error, "what was chosen stays chosen"


def test_a_collection_where_nothing_could_be_read_says_so(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"no")
    build(tmp_path / "place", tmp_path / "pictures")
    choose_collection(tmp_path / "place")
    page = open_page()
    said = [*(box.value for box in page.info), *(box.value for box in page.error)]
    assert any("seer build" in text for text in said)


def test_a_generation_that_vanished_is_a_sentence(shown: Gallery, tmp_path: Path):
    shutil.copytree(shown.place, tmp_path / "place")
    choose_collection(tmp_path / "place")
    page = open_page(image=shown.find_hash("picture-05.jpg"))
    assert list_cards(page)
    shutil.rmtree(tmp_path / "place" / "generations")
    choose_collection(tmp_path / "place")
    assert "seer build" in read_error(page.run())
    shutil.rmtree(tmp_path / "place")
    assert "There is no collection in" in read_error(page.run())


def test_a_collection_that_was_deleted_and_made_anew_is_shown_anew(tmp_path: Path):
    draw(tmp_path / "one" / "old.png", 1)
    draw(tmp_path / "two" / "new.png", 2)
    build(tmp_path / "place", tmp_path / "one")
    choose_collection(tmp_path / "place")
    page = open_page()
    assert "old.png" in read_texts(page)
    # Moved, not removed: the new catalog must not get the old one's inode by chance.
    (tmp_path / "place").rename(tmp_path / "before")
    build(tmp_path / "place", tmp_path / "two")
    assert "new.png" in read_texts(page.run())


# --- status ------------------------------------------------------------------------------------------------------


def open_status() -> AppTest:
    page = open_page()
    page.switch_page(str(REPOSITORY / "ui" / "views" / "status.py")).run()
    assert not page.exception
    return page


def test_the_status_page_has_counts_model_generation_and_folders(shown: Gallery):
    page = open_status()
    counts = {metric.label: metric.value for metric in page.metric}
    assert counts == {"Images": "30", "Files": str(31 + BROKEN), "Failed": str(BROKEN), "Pending": "0"}
    texts = read_texts(page)
    assert "seer-mini" in texts
    assert any(text.startswith("000001 of ") for text in texts)
    assert str(shown.pictures) in texts
    assert any("--retry-failed" in box.value for box in page.info)


def test_the_status_page_says_what_builds_pass_over(tmp_path: Path):
    draw(tmp_path / "one" / "a.png", 1)
    build(tmp_path / "place", tmp_path / "one", exclude=["*.tmp.png", "[x](javascript:1)"])
    choose_collection(tmp_path / "place")
    assert "*.tmp.png\n[x](javascript:1)" in read_texts(open_status())


def test_the_status_page_leads_to_what_cannot_be_searched(shown: Gallery):
    assert "cannot be searched" in open_status().get("page_link")[-1].proto.label
