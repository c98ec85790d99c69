"""The query tray as a person uses it: several pictures, wanted and unwanted, parts, and what may be answered."""

import csv
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from indexer.collection import Filter, ImageKind, Query, Region, Term
from indexer.exports import MISSING, export_json, export_originals, export_table
from tests.indexer.making import build, draw
from tests.ui.conftest import REPOSITORY, Gallery
from tests.ui.test_pages import ask, list_cards, open_page, press, read_cards, read_texts, upload
from ui.keys import Action, Key
from ui.resources import choose_collection


@pytest.fixture
def own(gallery: Gallery, tmp_path: Path):
    """A copy of the gallery, whose marks may be changed."""
    place = shutil.copytree(gallery.place, tmp_path / "place")
    (place / "marks.sqlite").unlink(missing_ok=True)
    choose_collection(place)
    yield Gallery(gallery.pictures, place)
    choose_collection(None)


def find(gallery: Gallery, *terms: tuple[str, float] | tuple[str, float, Region], count: int = 24, **more) -> list[str]:
    """What the collection itself answers to these images: content hashes."""
    with gallery.open() as collection:
        made = [
            Term(collection.find_image(gallery.find_hash(name)), weight, *region) for name, weight, *region in terms
        ]
        return [one.content_hash for one in collection.find(Query(*made), count, **more).neighbours]


def read_terms(page: AppTest) -> list[str]:
    found = page.query_params.get("term", [])
    return [found] if isinstance(found, str) else found


def test_more_and_less_like_an_image_join_the_query(shown: Gallery):
    first, plus, minus = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6, 7))
    page = open_page(image=first)
    press(page, Action.PLUS, plus)
    assert read_terms(page) == [first, plus] and "image" not in page.query_params
    press(page, Action.MINUS, minus)
    assert read_terms(page) == [first, plus, f"-{minus}"]
    expected = find(shown, ("picture-05.jpg", 1), ("picture-06.jpg", 1), ("picture-07.jpg", -1))
    assert list_cards(page) == expected
    alts = [picture.alt for element in page.get("image") for picture in element.proto.imgs]
    assert alts == ["Query: picture-05.jpg", "Query: picture-06.jpg", "Unlike: picture-07.jpg"]
    assert all(card["word"] is None for card in read_cards(page)), "of a sum of pictures a similarity has no word"


def test_a_picture_that_stands_twice_counts_twice(shown: Gallery):
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(term=[five, five, six])
    assert list_cards(page) == find(shown, ("picture-05.jpg", 2), ("picture-06.jpg", 1))


def test_a_term_is_turned_and_removed(shown: Gallery):
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(term=[five, six])
    page.button(key=f"{Key.TRAY}_flip_1").click().run()
    assert read_terms(page) == [five, f"-{six}"]
    page.button(key=f"{Key.TRAY}_remove_1").click().run()
    assert page.query_params == {"image": five}
    page.button(key=f"{Key.TRAY}_flip_0").click().run()
    assert list_cards(page) == find(shown, ("picture-05.jpg", -1)), "the least like it come first"


def test_a_part_of_an_image_is_searched_with(shown: Gallery):
    five = shown.find_hash("picture-05.jpg")
    page = open_page(image=five)
    page.slider(key=f"{Key.PART}-0-across").set_value((0.0, 0.5)).run()
    assert read_terms(page) == [f"{five}@0,0,500,1000"]
    page.slider(key=f"{Key.PART}-0-down").set_value((0.25, 1.0)).run()
    assert read_terms(page) == [f"{five}@0,250,500,750"]
    assert list_cards(page) == find(shown, ("picture-05.jpg", 1, Region(0, 30, 70, 90)))
    page.button(key=f"{Key.PART}-0-whole").click().run()
    assert page.query_params == {"image": five}


def test_a_part_of_an_upload_is_searched_with(shown: Gallery, near_copy: Path):
    page = upload(open_page(), near_copy)
    page.slider(key=f"{Key.PART}-0-across").set_value((0.0, 0.5)).run()
    with shown.open() as collection:
        query = Query(Term(near_copy.read_bytes(), 1.0, Region(0, 0, 50, 86)))
        expected = [one.content_hash for one in collection.find(query, 24).neighbours]
    assert list_cards(page) == expected


def test_several_pictures_at_once_are_one_query(shown: Gallery, near_copy: Path):
    page = open_page()
    page.file_uploader[0].upload("a.jpg", near_copy.read_bytes(), "image/jpeg")
    page.file_uploader[0].upload("b.jpg", (shown.pictures / "picture-05.jpg").read_bytes(), "image/jpeg").run()
    assert [term.startswith("up:") for term in read_terms(page)] == [True, True]
    with shown.open() as collection:
        query = Query(Term(near_copy.read_bytes()), Term((shown.pictures / "picture-05.jpg").read_bytes()))
        assert list_cards(page) == [one.content_hash for one in collection.find(query, 24).neighbours]


def test_the_next_picture_is_added_or_taken_away_if_that_is_chosen(shown: Gallery, near_copy: Path):
    five = shown.find_hash("picture-05.jpg")
    page = open_page(image=five)
    joining = next(one for one in page.get("button_group") if one.key == Key.JOINING)
    joining.set_value("be taken away").run()
    page.file_uploader[0].upload("a.jpg", near_copy.read_bytes(), "image/jpeg").run()
    first, second = read_terms(page)
    assert first == five and second.startswith("-up:")


def test_pictures_that_cancel_each_other_out_are_a_sentence(shown: Gallery):
    five = shown.find_hash("picture-05.jpg")
    page = open_page(term=[five, f"-{five}"])
    assert "cancel each other out" in page.error[0].value
    assert page.button(key=Key.START_OVER)


def test_a_term_that_is_gone_is_said_and_the_rest_is_searched_with(shown: Gallery):
    five = shown.find_hash("picture-05.jpg")
    page = open_page(term=["0" * 64, five, "nonsense"])
    assert "no longer, in the collection" in page.warning[0].value
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=24)


# --- which images, in which order --------------------------------------------------------------------------------


def test_filters_stand_in_the_url_and_are_the_collections(shown: Gallery):
    five = shown.find_hash("picture-05.jpg")
    page = open_page(image=five)
    page.multiselect(key=Key.FORMATS).set_value(["TIFF"]).run()
    assert page.query_params["format"] == "TIFF" and list_cards(page) == [shown.find_hash("scan.tiff")]
    page.multiselect(key=Key.FORMATS).set_value([]).run()
    copies = str(shown.pictures / "copies")
    page.selectbox(key=Key.UNDER).set_value(copies).run()
    assert page.query_params["under"] == copies and list_cards(page) == [shown.find_hash("picture-03.jpg")]
    page.button(key=Key.NO_FILTERS).click().run()
    assert page.query_params == {"image": five}
    page.multiselect(key=Key.SHAPES).set_value(["landscape", "square"]).run()
    assert page.query_params["shape"] == ["landscape", "square"] and len(list_cards(page)) == 24
    page.multiselect(key=Key.SHAPES).set_value(["portrait"]).run()
    assert "No image passes the filter" in page.error[0].value
    page.multiselect(key=Key.SHAPES).set_value([]).run()
    page.number_input(key=Key.LEAST_PX).set_value(121).run()
    assert "No image passes the filter" in page.error[0].value
    page.button(key=f"{Key.NO_FILTERS}-there").click().run()
    assert list_cards(page) == ask(shown, "picture-05.jpg", count=24)


def test_days_are_filtered_by(own: Gallery):
    with own.open() as collection:
        changed = collection.list_images(count=1)[0].modified.date()
    five = own.find_hash("picture-05.jpg")
    page = open_page(image=five, since=str(changed))
    assert len(list_cards(page)) == 24
    assert all(one.min.year <= 1900 and one.max.year > 2200 for one in page.date_input), "old photos can be reached"
    assert "No image passes" in open_page(image=five, until="2001-01-01").error[0].value
    for nonsense in ({"since": "x"}, {"since": "0001-01-01"}, {"since": "2020-01-02", "until": "2020-01-01"}):
        assert len(list_cards(open_page(image=five, **nonsense))) == 24


@pytest.mark.parametrize("under", ["/", "\0", "..", "/nowhere", "a\nb"])
def test_a_folder_of_no_picture_lets_nothing_through(shown: Gallery, under: str):
    page = open_page(image=shown.find_hash("picture-05.jpg"), under=under)
    assert "No image passes" in page.error[0].value or page.query_params["under"] == "/"


def test_search_within_an_answer(shown: Gallery):
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    with shown.open() as collection:
        found = collection.find_similar_to(collection.find_image(five), 30)
    page = open_page(image=five, at_least=str(found[9].similarity))
    page.button(key=Key.WITHIN).click().run()
    assert "image" not in page.query_params and "within" in page.query_params
    page.query_params["image"] = six
    page.run()
    expected = find(shown, ("picture-06.jpg", 1), where=Filter(images=[one.image_id for one in found[:10]]))
    assert list_cards(page) == expected and len(expected) == 10
    page.button(key=Key.LEAVE_WITHIN).click().run()
    assert list_cards(page) == ask(shown, "picture-06.jpg", count=24)


def test_an_earlier_answer_keeps_its_conditions_and_may_stand_in_another_one(shown: Gallery):
    five, six, seven = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6, 7))
    page = open_page(image=five, format="TIFF")
    assert list_cards(page) == [shown.find_hash("scan.tiff")]
    page.button(key=Key.WITHIN).click().run()
    page.query_params["image"] = six
    assert list_cards(page.run()) == [shown.find_hash("scan.tiff")]
    with shown.open() as collection:
        bounds = [collection.find_similar_to(collection.find_image(one), 30)[9].similarity for one in (five, six)]
    page = open_page(image=five, at_least=str(bounds[0]))
    page.button(key=Key.WITHIN).click().run()
    for name, value in (("image", six), ("at_least", str(bounds[1]))):
        page.query_params[name] = value
    both = set(list_cards(page.run()))
    page.button(key=Key.WITHIN).click().run()
    assert len(page.query_params["within"]) == 2
    page.query_params["image"] = seven
    assert set(list_cards(page.run())) == both and 0 < len(both) < 10


def test_an_earlier_answer_is_not_changed_by_a_picture_of_this_tab(own: Gallery, near_copy: Path):
    choose_collection(own.place, keeps=False)
    five = own.find_hash("picture-05.jpg")
    with own.open() as collection:
        found = collection.find_similar_to(collection.find_image(five), 30)
    page = upload(open_page(), near_copy)
    page.query_params["within"] = f"term={five}&at_least={found[9].similarity}"
    page.run()
    assert set(list_cards(page)) == {one.content_hash for one in found[:10]}


def test_how_many_lie_between_the_bounds_is_told(shown: Gallery):
    with shown.open() as collection:
        found = collection.find_similar_to(collection.find_image(shown.find_hash("picture-05.jpg")), 30)
    bounds = {"at_least": str(found[9].similarity), "at_most": str(found[4].similarity), "count": "12"}
    assert "6 images lie between these bounds." in read_texts(open_page(image=found[0].content_hash, **bounds))


def test_one_page_is_sorted_by_what_is_chosen(shown: Gallery):
    page = open_page(image=shown.find_hash("picture-05.jpg"), count="12")
    nearest = {card["image"]: card["name"] for card in read_cards(page)}
    page.selectbox(key=Key.SORT).set_value("name").run()
    assert page.query_params["sort"] == "name"
    assert list_cards(page) == sorted(nearest, key=lambda one: nearest[one].casefold())


def test_near_copies_are_folded_under_the_first_and_unfolded_again(tmp_path: Path, shown: Gallery):
    folder = tmp_path / "pictures"
    for seed in range(20):
        draw(folder / f"{seed:02d}.png", seed)
    for quality in (60, 70, 80):
        with Image.open(folder / "07.png") as picture:
            picture.convert("RGB").save(folder / f"07-copy-{quality}.jpg", quality=quality)
    build(tmp_path / "place", folder)
    copied = Gallery(folder, tmp_path / "place")
    choose_collection(copied.place)
    page = open_page(image=copied.find_hash("07.png"), count="48")
    assert {card["name"] for card in read_cards(page)[1:4]} == {f"07-copy-{quality}.jpg" for quality in (60, 70, 80)}
    page.toggle(key=Key.FOLD).set_value(True).run()
    assert page.query_params["fold"] == "1"
    cards = read_cards(page)
    assert cards[0]["files"] == "07.png (+3 near copies)" and cards[0]["word"] == "same picture"
    assert not any("copy" in card["name"] for card in cards)
    page.toggle(key=Key.FOLD).set_value(False).run()
    assert "fold" not in page.query_params and len(read_cards(page)) == 23
    query = copied.find_hash("07.png")
    pages = [list_cards(open_page(image=query, fold="1", count="12", page=number)) for number in ("1", "2")]
    assert [len(one) for one in pages] == [12, 8] and pages[0] + pages[1] == list_cards(
        open_page(image=query, fold="1", count="48")
    ), "a page is full, and no copy comes again on the next one"


def test_a_collection_whose_images_are_all_hidden_says_so_and_has_the_way_back(own: Gallery):
    with own.open() as collection:
        hidden = [one.content_hash for one in collection.list_images(count=100)]
        for content_hash in hidden:
            collection.decisions.mark(ImageKind.HIDDEN, content_hash)
        assert collection.list_images(count=100) == []
    for page in (open_page(), open_page(image=hidden[0])):
        assert any("Every image is hidden" in box.value for box in page.info)
        assert not page.exception and list_cards(page) == []
    with own.open() as collection:
        collection.decisions.mark(ImageKind.HIDDEN, hidden[3], is_so=False)
    assert list_cards(open_page()) == [hidden[3]]


def test_marks_beyond_a_page_are_on_the_next_one(own: Gallery):
    with own.open() as collection:
        for number in range(100):
            collection.decisions.mark(ImageKind.HIDDEN, f"{number:064x}")
    page = open_page()
    page.switch_page(str(REPOSITORY / "ui" / "views" / "favourites.py"))
    page.query_params["kind"] = "hidden"
    page.run()
    assert len([one for one in page.button if one.label == "Show again"]) == 96
    page.query_params["page"] = "2"
    page.run()
    assert len([one for one in page.button if one.label == "Show again"]) == 4


def test_a_mark_that_cannot_be_kept_is_told_over_the_page(own: Gallery):
    (own.place / "marks.sqlite").mkdir()
    page = open_page()
    press(page, Action.FAVOURITE, list_cards(page)[0])
    assert "marks.sqlite" in page.toast[0].value and len(list_cards(page)) == 30


# --- what people decide ------------------------------------------------------------------------------------------


def test_a_favourite_is_marked_and_filtered_by(own: Gallery):
    five, six = (own.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = press(open_page(image=five), Action.FAVOURITE, six)
    assert [card["image"] for card in read_cards(page) if card["is_favourite"]] == [six]
    page.checkbox(key=Key.MARKED).set_value(True).run()
    assert page.query_params["marked"] == "1" and list_cards(page) == [six]
    press(page, Action.FAVOURITE, six)
    with own.open() as collection:
        assert collection.decisions.list_marked(ImageKind.FAVOURITE) == []


def test_a_hidden_image_is_in_no_answer(own: Gallery):
    five, six = (own.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = press(open_page(image=five, count="48"), Action.OPEN, six)
    page.button(key=Key.LARGE_HIDE).click().run()
    assert six not in list_cards(page) and len(list_cards(page)) == 29


def test_a_bookmark_keeps_the_link(own: Gallery):
    five = own.find_hash("picture-05.jpg")
    page = open_page(image=five, count="12")
    page.button(key=Key.BOOKMARK).click().run()
    with own.open() as collection:
        (kept,) = collection.decisions.list_bookmarks()
    assert (kept.link, kept.title) == (f"image={five}&count=12", "picture-05.jpg")


# --- to keep -----------------------------------------------------------------------------------------------------




def test_an_answer_is_exported_as_table_json_and_originals(shown: Gallery):
    with shown.open() as collection:
        answer = collection.find(Query.of(collection.find_image(shown.find_hash("picture-03.jpg"))), 30)
        table = list(csv.reader(io.StringIO(export_table(answer.neighbours).decode("utf-8-sig"))))
        told = json.loads(export_json(collection, answer, 1.5))
        packed = zipfile.ZipFile(io.BytesIO(export_originals(collection, answer.neighbours)))
    assert len(table) == 31 and table[1][0] == "1" and float(table[1][1]) == 1.0
    assert [one["content_hash"] for one in told["neighbours"]] == [row[-1] for row in table[1:]]
    names = packed.namelist()
    assert len(names) == 30 and names[0].startswith("0001-")
    first = answer.neighbours[0]
    assert packed.read(names[0]) == first.path.read_bytes()
    labels = [button.proto.label for button in open_page(image=first.content_hash).get("download_button")]
    assert labels[:2] == ["Table (CSV)", "For programs (JSON)"] and labels[2].startswith("Originals (ZIP, ")


def test_an_original_that_is_gone_is_named_in_the_zip(own: Gallery, tmp_path: Path):
    with own.open() as collection:
        answer = collection.find(Query.of(collection.find_image(own.find_hash("picture-05.jpg"))), 3)
        lost = answer.neighbours[1].path
        os.rename(lost, tmp_path / "away")
        try:
            packed = zipfile.ZipFile(io.BytesIO(export_originals(collection, answer.neighbours)))
        finally:
            os.rename(tmp_path / "away", lost)
    assert len(packed.namelist()) == 3 and packed.read(MISSING).decode() == f"{lost}\n"
