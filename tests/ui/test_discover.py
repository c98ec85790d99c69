"""Discover, Duplicates, Map, Favourites and Status as a person uses them, without a browser."""

import csv
import io
import json
import os
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
from indexer.layout import BACKGROUND_LOG, CATALOG, HOLDER
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
    for name, changed in (("older.jpg", 1_000_000_000), ("newer.jpg", 2_000_000_000)):
        (pictures / "again").mkdir(exist_ok=True)
        shutil.copy(pictures / "picture-11.jpg", pictures / "again" / name)
        os.utime(pictures / "again" / name, (changed, changed))
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
    monkeypatch.setattr("ui.work.read_work", lambda folder, command=None: work)
    monkeypatch.setattr("ui.work.stop", stopped.append)
    page = open_page()
    assert "seer survey is at work: linking 5/43" in read_texts(page)
    page.button(key=Key.STOP).click().run()
    assert stopped == [own.place]


def test_a_command_that_was_stopped_has_not_failed_and_is_told_where_it_was_started(
    own: Gallery, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(own.place / "generations" / "000001" / "survey")
    stopped = background.Work(command="seer survey", is_running=False, is_ours=True, line="Interrupted.", status=130)
    told = {"survey": stopped, "build": background.NOTHING}
    monkeypatch.setattr("ui.work.read_work", lambda folder, command=None: told[command])
    page = open_page()
    assert [box.value for box in page.info if box.value.startswith("Stopped.")] and not page.warning
    page = open_view("status")
    assert not [box.value for box in page.info if "Stopped" in box.value] and not page.warning


@pytest.mark.parametrize(
    ("status", "line", "said"),
    [
        (1, "seer: There is no folder /pictures any more.", "without success: seer: There is no folder"),
        (1, "", "it said nothing"),
        (-9, "embedding 50/100", "(signal 9), perhaps because memory ran out. What it had done is kept"),
    ],
)
def test_how_a_command_failed_is_said_beside_its_button(
    own: Gallery, monkeypatch: pytest.MonkeyPatch, status: int, line: str, said: str
):
    ended = background.Work(command="seer build", is_running=False, is_ours=True, line=line, status=status)
    monkeypatch.setattr("ui.work.read_work", lambda folder, command=None: ended)
    page = open_view("status")
    assert said in page.warning[0].value.replace("\\", "").replace("\N{WORD JOINER}", "")
    assert page.button(key=Key.BUILD)


def test_a_build_that_was_killed_keeps_nobody_from_the_next_one(own: Gallery):
    (own.place / HOLDER).write_text('{"purpose": "build", "process": 4242, "since": 1700000000}')
    page = open_view("status")
    assert page.button(key=Key.BUILD) and not [text for text in read_texts_of(page) if "at work" in text]


def test_where_nothing_can_be_written_the_page_says_so(own: Gallery):
    (own.place / BACKGROUND_LOG).symlink_to(own.place / CATALOG / "below-a-file")
    page = open_view("status")
    page.button(key=Key.BUILD).click().run()
    assert "cannot be written" in page.toast[0].value and not page.exception


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


def tell_apart(own: Gallery, count: int) -> list[tuple[str, str]]:
    """So many pairs, one after another. Returns: the newest first."""
    with own.open() as collection:
        hashes = [image.content_hash for image in collection.list_images(count=count + 1)]
        pairs = list(zip(hashes, hashes[1:], strict=False))
        for pair in pairs:
            collection.decisions.tell_apart(*pair)
        assert collection.decisions.list_apart_newest_first() == [tuple(sorted(pair)) for pair in reversed(pairs)]
    return list(reversed(pairs))


def test_one_press_takes_back_the_newest_decision_and_no_other(own: Gallery):
    pairs = tell_apart(own, 5)
    page = open_view("duplicates")
    assert "5 pairs were told apart." in read_texts_of(page)
    page.button(key=Key.TAKE_BACK).click().run()
    with own.open() as collection:
        assert collection.decisions.list_apart() == set(map(frozenset, pairs[1:]))


def test_any_pair_that_was_told_apart_is_named_and_taken_back_alone(own: Gallery):
    pairs = tell_apart(own, 4)
    page = open_view("duplicates")
    told = read_data(page, Key.TELL_APART)
    assert [frozenset(one["pair"].split()) for one in told] == list(map(frozenset, pairs))
    with own.open() as collection:
        names = {collection.read_image(collection.find_image(one)).path.name for one in pairs[2]}
        assert {image["name"] for image in told[2]["images"]} == names
        assert {image["image"] for image in told[2]["images"]} == set(pairs[2])
    send(page, Key.TELL_APART, Key.TAKE_BACK, told[2]["pair"])
    for nonsense in ("", "x", "x y", f"{pairs[0][0]} {pairs[3][1]}"):
        send(page, Key.TELL_APART, Key.TAKE_BACK, nonsense)
    with own.open() as collection:
        assert collection.decisions.list_apart() == {frozenset(one) for one in pairs if one != pairs[2]}


def test_a_pair_whose_images_are_gone_can_be_taken_back_too(own: Gallery):
    with own.open() as collection:
        collection.decisions.tell_apart("0" * 64, "1" * 64)
    page = open_view("duplicates")
    (told,) = read_data(page, Key.TELL_APART)
    assert told["images"] == [{"image": None, "name": "not in the collection at present"}] * 2
    send(page, Key.TELL_APART, Key.TAKE_BACK, told["pair"])
    assert not [text for text in read_texts_of(page) if "told apart" in text]


def test_only_the_newest_pairs_are_listed(own: Gallery):
    pairs = tell_apart(own, 23)
    told = read_data(open_view("duplicates"), Key.TELL_APART)
    assert [frozenset(one["pair"].split()) for one in told] == list(map(frozenset, pairs[:20]))


def test_files_with_the_same_bytes_stand_on_one_card_each_with_its_path(own: Gallery):
    page = open_view("duplicates", mode="same file")
    ((card,),) = read_data(page, Key.DUPLICATES)
    assert card["image"] == own.find_hash("picture-11.jpg") and card["line"] == "3 files" and card["medoid"] is None
    folder = own.pictures / "again"
    assert card["files"][0] == {"path": str(folder / "older.jpg"), "is_kept": True}
    rest = [str(folder / "newer.jpg"), str(own.pictures / "picture-11.jpg")]
    assert card["files"][1:] == [{"path": path, "is_kept": False} for path in rest]
    assert "1 image, 3 files." in read_texts_of(page)
    send(page, Key.DUPLICATES, Action.OPEN, card["image"])
    assert page.get("dialog") or [one for one in page.code if "older.jpg" in one.value]


def test_the_kinds_of_duplicates_stand_in_the_url_and_the_first_needs_no_neighbours(own: Gallery):
    shutil.rmtree(own.place / "generations" / "000001" / "graph")
    page = open_view("duplicates")
    modes = next(one for one in page.get("button_group") if one.key == Key.MODE)
    assert modes.options == ["same file", "same picture", "same subject"]
    modes.set_value("same file").run()
    assert page.query_params["mode"] == "same file" and len(read_data(page, Key.DUPLICATES)[0]) == 1
    assert not page.info and not [one for one in page.number_input if one.key == Key.BOUND]
    next(one for one in page.get("button_group") if one.key == Key.MODE).set_value("same picture").run()
    assert "mode" not in page.query_params and "have not been found yet" in page.info[0].value


def test_a_hidden_image_is_among_no_files_with_the_same_bytes(own: Gallery):
    with own.open() as collection:
        collection.decisions.mark(ImageKind.HIDDEN, own.find_hash("picture-11.jpg"))
    page = open_view("duplicates", mode="same file")
    assert "No file is there twice" in page.success[0].value


def test_of_many_copies_of_a_file_some_paths_are_told_and_how_many_more_there_are(own: Gallery, tmp_path: Path):
    for number in range(120):
        draw(tmp_path / "many" / f"{number:03d}.png", 5000)
    for number in range(15):
        for name in ("one", "other"):
            draw(tmp_path / "twice" / f"{number}-{name}.png", 6000 + number)
    build(own.place, tmp_path / "many", tmp_path / "twice")
    page = open_view("duplicates", mode="same file")
    (cards,) = read_data(page, Key.DUPLICATES)
    assert len(cards[0]["files"]) == 100 and cards[0]["line"] == "120 files" and "20 more files" in cards[0]["more"]
    assert [card["line"] for card in cards] == ["120 files", "3 files", *["2 files"] * 10]
    page.get("pagination")[0].set_value(2).run()
    assert page.query_params["page"] == "2" and page.query_params["mode"] == "same file"
    assert len(read_data(page, Key.DUPLICATES)[0]) == 5
    assert "17 images, 153 files." in read_texts_of(page)


def read_texts_of(page: AppTest) -> list[str]:
    return [text.value for text in page.text]


def test_the_bound_and_what_to_keep_stand_in_the_url(own: Gallery):
    page = open_view("duplicates")
    page.number_input(key=Key.BOUND).set_value(0.7).run()
    assert page.query_params["bound"] == "0.7" and len(read_data(page, Key.DUPLICATES)) >= 2
    page.number_input(key=Key.BOUND).set_value(1.0).run()
    assert "no near-duplicates with this bound" in page.success[0].value
    for nonsense in ("x", "nan", "2", "-1"):
        assert len(read_data(open_view("duplicates", bound=nonsense), Key.DUPLICATES)) == 1


def test_what_keeps_a_pair_from_being_told_apart_is_said_over_the_page(own: Gallery):
    page = open_view("duplicates")
    (group,) = read_data(page, Key.DUPLICATES)
    (own.place / "marks.sqlite").unlink(missing_ok=True)
    (own.place / "marks.sqlite-journal").mkdir()  # What stands in the way of a file stops root too.
    send(page, Key.DUPLICATES, Action.APART, f"{group[0]['image']} {group[1]['image']}")
    assert "cannot be read or written now" in page.toast[0].value
    assert not page.exception and not page.error and len(read_data(page, Key.DUPLICATES)) == 1


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


def test_the_generations_on_the_disk_stand_on_the_status_page_and_which_of_them_answers(own: Gallery, tmp_path: Path):
    draw(tmp_path / "more" / "new.png", 778)
    build(own.place, tmp_path / "more")
    (told,) = [text for text in read_texts_of(open_view("status")) if "000001 of" in text]
    newer, older = told.split("\n")
    assert newer.startswith("000002 of 20") and newer.endswith(": 44 images, seer-mini (answers)")
    assert older.startswith("000001 of 20") and older.endswith(": 43 images, seer-mini")


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
    ended = background.read_work(own.place, "survey")
    assert not ended.is_running and ended.status == 0 and "Generation 000001" in ended.line
    with Collection(own.place) as collection:
        assert Overview(collection).list_groups()
    background.stop(own.place)
