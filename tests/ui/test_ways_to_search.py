"""From every page with images a press leads to the search, with what was pressed alone, and back."""

import pytest

from indexer.collection import ImageKind
from tests.ui.conftest import Gallery
from tests.ui.test_discover import find_component, open_view, seen, send, shown  # noqa: F401 - fixtures
from tests.ui.test_pages import list_cards, open_page, press
from ui.keys import Action, Key

WHOLE = "-1,-1;1,-1;1,1;-1,1"


@pytest.fixture
def five(shown: Gallery) -> str:  # noqa: F811
    """The content hash of an image that is a favourite."""
    content_hash = shown.find_hash("picture-05.jpg")
    with shown.open() as collection:
        collection.decisions.mark(ImageKind.FAVOURITE, content_hash)
    yield content_hash
    with shown.open() as collection:
        collection.decisions.mark(ImageKind.FAVOURITE, content_hash, is_so=False)


def test_a_favourite_leads_to_its_neighbours(five: str):
    page = open_view("favourites", kind="Favourites")
    assert list_cards(page) == [five]
    press(page, Action.SIMILAR, five)
    assert page.query_params == {"image": five} and list_cards(page)[0] == five and len(list_cards(page)) == 24
    assert page.button(key=Key.START_OVER)


@pytest.mark.parametrize(("action", "spelled"), [(Action.PLUS, "{}"), (Action.MINUS, "-{}")])
def test_plus_and_minus_begin_a_query_there(five: str, action: Action, spelled: str):
    page = open_view("favourites")
    press(page, action, five)
    found = page.query_params.get("term") or page.query_params.get("image")
    assert found in (spelled.format(five), [spelled.format(five)]) and len(list_cards(page)) == 24


def test_a_card_under_the_lasso_leads_to_its_neighbours(shown: Gallery):  # noqa: F811
    page = open_view("map", lasso=WHOLE, page="1")
    wanted = list_cards(page)[3]
    press(page, Action.SIMILAR, wanted)
    assert page.query_params == {"image": wanted} and list_cards(page)[0] == wanted


def test_a_point_of_the_map_leads_to_its_neighbours(shown: Gallery):  # noqa: F811
    page = open_view("map")
    wanted = shown.find_hash("picture-06.jpg")
    send(page, Key.MAP, Action.SIMILAR, wanted)
    assert page.query_params == {"image": wanted} and list_cards(page)[0] == wanted


def test_an_image_opened_from_near_duplicates_leads_to_its_neighbours(shown: Gallery):  # noqa: F811
    page = open_view("duplicates", bound="0.5", mode="same picture")
    groups = find_component(page, Key.DUPLICATES)
    wanted = shown.find_hash("picture-07.jpg")
    assert wanted in groups.json
    send(page, Key.DUPLICATES, Action.OPEN, wanted)
    page.button(key=Key.LARGE_SIMILAR).click().run()
    assert page.query_params == {"image": wanted} and list_cards(page)[0] == wanted


def test_on_the_search_page_a_press_keeps_how_many(shown: Gallery):  # noqa: F811
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(image=five, count="12")
    press(page, Action.SIMILAR, six)
    assert page.query_params == {"image": six, "count": "12"}
