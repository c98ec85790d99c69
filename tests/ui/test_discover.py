"""Discover, Duplicates, Map, Favourites and Status as a person uses them, without a browser."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.testing.v1 import AppTest

from indexer import background
from indexer.collection import Collection, ImageKind
from indexer.exports import export_duplicates
from indexer.overview import Map, Overview, find_inside
from indexer.survey import survey_collection
from tests.indexer.making import build, draw
from tests.ui.conftest import HOSTILE_NAMES, REPOSITORY, Gallery
from tests.ui.test_pages import list_cards, open_page, press, read_texts
from ui.keys import Action, Key
from ui.map_drawing import MOST_CORNERS, pack_map, read_lasso
from ui.resources import choose_collection


@pytest.fixture(scope="module")
def seen(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """A gallery with near-copies, surveyed."""
    folder = tmp_path_factory.mktemp("seen")
    pictures, place = folder / "pictures", folder / "collection"
    for seed in range(40):
        draw(pictures / f"picture-{seed:02d}.jpg", seed, quality=92)
    draw(pictures / HOSTILE_NAMES[1], 100)
    for quality in (70, 80):
        with Image.open(pictures / "picture-07.jpg") as picture:
            picture.save(pictures / f"copy-{quality}.jpg", quality=quality)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEER_HOME", str(folder / "home"))
        build(place, pictures, batch_size=16)
    survey_collection(place)
    return Gallery(pictures, place)


@pytest.fixture
def own(seen: Gallery, tmp_path: Path):
    """A copy of it, that may be changed."""
    place = shutil.copytree(seen.place, tmp_path / "place")
    choose_collection(place)
    yield Gallery(seen.pictures, place)
    choose_collection(None)


@pytest.fixture
def shown(seen: Gallery):
    choose_collection(seen.place)
    yield seen
    choose_collection(None)


def open_view(name: str, **parameters: str) -> AppTest:
    page = open_page(**parameters)
    page.switch_page(str(REPOSITORY / "ui" / "views" / f"{name}.py"))
    for key, value in parameters.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    return page


def find_component(page: AppTest, key: Key):
    return next(one.proto for one in page.get("bidi_component") if one.proto.id.endswith(f"-{key}"))


def read_data(page: AppTest, key: Key) -> list | dict:
    return json.loads(find_component(page, key).json)


def send(page: AppTest, key: Key, action: str, value: object) -> AppTest:
    """What the browser sends when something of a component is pressed."""
    states = page._tree.get_widget_states()
    told = json.dumps([{"event": action, "value": value}])
    states.widgets.add(id=_make_trigger_id(find_component(page, key).id, "events"), json_trigger_value=told)
    return page._run(states)


# --- discover ----------------------------------------------------------------------------------------------------


def test_the_start_shows_groups_and_leads_into_them_and_out_again(shown: Gallery):
    page = open_page()
    with shown.open() as collection:
        overview = Overview(collection)
        groups = overview.list_groups()
        expected = [image.content_hash for image in overview.list_group(groups[0].number, count=48)]
    cards = read_data(page, Key.GROUPS)
    assert [card["title"] for card in cards][0] == f"{groups[0].size} images"
    assert cards[0]["images"][0]["image"] == groups[0].images[0].content_hash
    send(page, Key.GROUPS, Action.ENTER, groups[0].number)
    assert page.query_params == {"group": str(groups[0].number)} and list_cards(page) == expected
    press(page, Action.SIMILAR, expected[1])
    assert page.query_params == {"image": expected[1]} and list_cards(page)[0] == expected[1]
    page = open_page(group=str(groups[0].number))
    page.button(key=Key.UP).click().run()
    assert page.query_params == {} and len(read_data(page, Key.GROUPS)) == len(groups)


def test_every_way_to_look_stands_in_the_url(shown: Gallery):
    page = open_page()
    ways = next(one for one in page.get("button_group") if one.key == Key.SHOW)
    with shown.open() as collection:
        overview = Overview(collection)
        expected = {
            "differ": [one.content_hash for one in overview.list_exemplars(48)],
            "unusual": [one.image.content_hash for one in overview.list_outliers(48)],
        }
    for show, hashes in expected.items():
        ways.set_value(show).run()
        assert page.query_params["show"] == show and list_cards(page) == hashes
        ways = next(one for one in page.get("button_group") if one.key == Key.SHOW)


def test_a_surprise_is_the_same_for_who_opens_the_link(shown: Gallery):
    page = open_page(show="surprise")
    page.button(key=Key.SURPRISE).click().run()
    drawn = list_cards(page)
    assert list_cards(open_page(**{name: page.query_params[name] for name in ("show", "surprise")})) == drawn


@pytest.mark.parametrize("value", ["x", "-1", "99", "9" * 30, "²", ""])
def test_a_group_that_is_not_there_is_a_sentence_or_counts_as_not_given(shown: Gallery, value: str):
    page = open_page(group=value, part=value, show=value, surprise=value)
    nothing = [box.value for box in page.info]
    assert nothing == ["There is nothing in this group any more. Go back to all groups."] or not nothing


def test_without_a_survey_there_are_images_and_a_way_to_make_one(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(own.place / "generations" / "000001" / "survey")
    started = []
    monkeypatch.setattr("ui.work.start", lambda folder, command: started.append((folder, command)))
    page = open_page()
    assert len(list_cards(page)) == 43
    page.button(key=Key.SURVEY).click().run()
    assert started == [(own.place, "survey")]


def test_what_is_at_work_is_shown_and_asked_to_stop(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(own.place / "generations" / "000001" / "survey")
    work = background.Work(command="seer survey", is_running=True, is_ours=True, line="linking 5/43")
    stopped = []
    monkeypatch.setattr("ui.work.read_work", lambda folder: work)
    monkeypatch.setattr("ui.work.stop", stopped.append)
    page = open_page()
    assert "seer survey is at work: linking 5/43" in read_texts(page)
    page.button(key=Key.STOP).click().run()
    assert stopped == [own.place]


# --- duplicates --------------------------------------------------------------------------------------------------


def test_near_duplicates_stand_together_and_are_told_apart_for_good(own: Gallery):
    page = open_view("duplicates")
    (group,) = read_data(page, Key.DUPLICATES)
    assert {card["name"] for card in group} == {"picture-07.jpg", "copy-70.jpg", "copy-80.jpg"}
    assert [card["is_kept"] for card in group].count(True) == 1 and group[0]["line"] == "first of the group"
    send(page, Key.DUPLICATES, Action.APART, f"{group[0]['image']} {group[1]['image']}")
    (rest,) = read_data(page, Key.DUPLICATES)
    assert len(rest) == 2 and not {group[0]["image"], group[1]["image"]} <= {card["image"] for card in rest}
    assert "1 pair was told apart." in read_texts_of(page)
    page.button(key=Key.TAKE_BACK).click().run()
    assert len(read_data(page, Key.DUPLICATES)[0]) == 3


def read_texts_of(page: AppTest) -> list[str]:
    return [text.value for text in page.text]


def test_the_bound_and_what_to_keep_stand_in_the_url(own: Gallery):
    page = open_view("duplicates")
    page.number_input(key=Key.BOUND).set_value(0.3).run()
    assert page.query_params["bound"] == "0.3" and len(read_data(page, Key.DUPLICATES)) >= 2
    page.number_input(key=Key.BOUND).set_value(1.0).run()
    assert "no near-duplicates with this bound" in page.success[0].value
    for nonsense in ("x", "nan", "2", "-1"):
        assert len(read_data(open_view("duplicates", bound=nonsense), Key.DUPLICATES)) == 1


def test_the_list_of_near_duplicates_is_a_table(own: Gallery):
    with own.open() as collection:
        groups = Overview(collection).find_duplicates()
    rows = list(csv.reader(io.StringIO(export_duplicates(groups, "largest").decode("utf-8-sig"))))
    assert len(rows) == 4 and [row[1] for row in rows[1:]].count("keep") == 1
    assert {Path(row[3]).name for row in rows[1:]} == {"picture-07.jpg", "copy-70.jpg", "copy-80.jpg"}


def test_without_neighbours_there_is_a_way_to_find_them(own: Gallery):
    shutil.rmtree(own.place / "generations" / "000001" / "graph")
    page = open_view("duplicates")
    assert "have not been found yet" in page.info[0].value and page.button(key=Key.SURVEY)


# --- the map -----------------------------------------------------------------------------------------------------


def test_a_lasso_selects_what_lies_in_it(shown: Gallery):
    page = open_view("map", lasso="-1.1,-1.1;1.1,-1.1;1.1,1.1;-1.1,1.1")
    assert "43 images selected." in read_texts_of(page) and len(list_cards(page)) == 43
    data = read_data(page, Key.MAP)
    assert data["count"] == 43 and data["source"].startswith("/map/000001-")
    page.button(key=Key.UP).click().run()
    assert page.query_params == {}
    send(page, Key.MAP, "lasso", "0,0;0.001,0;0,0.001")
    assert page.query_params["lasso"] == "0,0;0.001,0;0,0.001"


def test_a_click_on_the_map_searches_on(shown: Gallery):
    content_hash = shown.find_hash("picture-05.jpg")
    page = send(open_view("map"), Key.MAP, Action.SIMILAR, content_hash)
    assert page.query_params["image"] == content_hash and list_cards(page)[0] == content_hash


@pytest.mark.parametrize(
    "text", ["", "x", "1,2", "1,2;3,4", "1,2;3,4;5", "nan,1;2,3;4,5", "1e9,1;2,3;4,5", "1,2;" * 999]
)
def test_a_lasso_that_makes_no_sense_is_none(text: str):
    assert read_lasso(text) == []
    assert len(read_lasso(";".join(["0.5,0.5"] * MOST_CORNERS))) == MOST_CORNERS


def test_points_in_a_polygon_are_those_that_a_walk_around_it_finds():
    random = np.random.default_rng(0)
    places = random.uniform(-1, 1, (400, 2)).astype(np.float32)
    nothing = np.zeros((400, 32), np.uint8), np.zeros(400, np.int32)
    for corners in (3, 5, 12, 40):
        polygon = [tuple(corner) for corner in random.uniform(-1, 1, (corners, 2))]
        drawn = Map(places=places, image_ids=np.arange(400), hashes=nothing[0], groups=nothing[1], how="pca")
        found = set(find_inside(drawn, polygon).tolist())
        assert found == {number for number, place in enumerate(places) if is_inside(place, polygon)}


def is_inside(place: np.ndarray, polygon: list) -> bool:
    """By the ray to the right, one side after the other."""
    crossings = 0
    for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        (low_x, low_y), (high_x, high_y) = sorted((one, other), key=lambda corner: corner[1])
        if low_y <= place[1] < high_y:
            crossings += low_x + (place[1] - low_y) / (high_y - low_y) * (high_x - low_x) > place[0]
    return crossings % 2 == 1


def test_the_bytes_of_a_map_are_places_groups_and_hashes(shown: Gallery):
    with shown.open() as collection:
        found = Overview(collection).read_map()
        data = pack_map(found)
        first = collection.read_image(int(found.image_ids[0])).content_hash
    count = len(found.places)
    assert len(data) == count * (8 + 1 + 32) and data[9 * count : 9 * count + 32].hex() == first
    np.testing.assert_array_equal(np.frombuffer(data[: 8 * count], "<f4").reshape(-1, 2), found.places)


# --- favourites, status ------------------------------------------------------------------------------------------


def test_what_is_marked_stands_on_its_page(own: Gallery):
    five, six = (own.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    with own.open() as collection:
        collection.decisions.mark(ImageKind.FAVOURITE, five)
        collection.decisions.mark(ImageKind.FAVOURITE, "0" * 64)
        collection.decisions.mark(ImageKind.HIDDEN, six)
        collection.decisions.keep_bookmark(f"image={five}&count=12", HOSTILE_NAMES[1])
    page = open_view("favourites")
    assert list_cards(page) == [five] and "1 more are marked" in page.caption[-1].value
    page = open_view("favourites", kind="hidden")
    page.button(key=f"{Key.BACK}-{six}").click().run()
    with own.open() as collection:
        assert collection.decisions.list_marked(ImageKind.HIDDEN) == []
    page = open_view("favourites", kind="bookmarks")
    (link,) = [one for one in page.get("page_link") if "count=12" in str(one.proto)]
    assert link
    page.button(key=f"{Key.FORGET_BOOKMARK}-0").click().run()
    assert "No answer is kept yet" in page.info[0].value


def test_a_build_is_started_from_the_status_page(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr("ui.work.start", lambda folder, command: started.append(command))
    page = open_view("status")
    page.button(key=Key.BUILD).click().run()
    assert started == ["build"]


def test_a_rebuilt_collection_under_the_open_page_is_taken_up(own: Gallery, tmp_path: Path):
    page = open_page()
    assert read_data(page, Key.GROUPS)
    draw(tmp_path / "more" / "new.png", 777)
    build(own.place, tmp_path / "more")
    page.run()
    assert not page.exception and len(list_cards(page)) == 44, "the new generation has no survey yet"


def test_the_process_of_a_command_is_started_looked_at_and_ended(own: Gallery):
    shutil.rmtree(own.place / "generations" / "000001" / "survey")
    background.start(own.place, "survey")
    work = background.read_work(own.place)
    assert work.is_ours and work.command == "seer survey"
    _, process = background._started[own.place]
    assert process.wait(120) == 0
    ended = background.read_work(own.place)
    assert not ended.is_running and ended.status == 0 and "Generation 000001" in ended.line
    with Collection(own.place) as collection:
        assert Overview(collection).list_groups()
    background.stop(own.place)
