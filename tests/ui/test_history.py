"""What was searched with before: undone step by step, and opened again."""

from tests.ui.conftest import Gallery
from tests.ui.test_pages import list_cards, open_page, press
from ui.keys import Action, Key


def test_changes_of_the_query_are_undone_one_by_one(shown: Gallery):
    five, six, seven = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6, 7))
    page = open_page()
    assert not [button for button in page.button if button.key == Key.UNDO]
    press(page, Action.SIMILAR, five)
    press(page, Action.PLUS, six)
    press(page, Action.MINUS, seven)
    first = list_cards(page)
    page.button(key=Key.UNDO).click().run()
    assert page.query_params["term"] == [five, six] and list_cards(page) != first
    page.button(key=Key.UNDO).click().run()
    assert page.query_params == {"image": five}
    page.button(key=Key.UNDO).click().run()
    assert page.query_params == {} and not [button for button in page.button if button.key == Key.UNDO]


def test_another_page_of_an_answer_is_no_step_and_comes_back_with_it(shown: Gallery):
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(image=five, count="12")
    page.query_params["page"] = "2"
    second = list_cards(page.run())
    press(page, Action.SIMILAR, six)
    page.button(key=Key.UNDO).click().run()
    assert page.query_params == {"image": five, "count": "12", "page": "2"} and list_cards(page) == second


def test_recent_queries_are_opened_again_the_latest_first(shown: Gallery):
    five, six = (shown.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(image=five)
    press(page, Action.SIMILAR, six)
    press(page, Action.SIMILAR, five)
    labels = [button.label for button in page.button if str(button.key).startswith(f"{Key.RECENT}-")]
    assert [label.replace("\\", "") for label in labels] == ["picture-05.jpg", "picture-06.jpg"]
    page.button(key=f"{Key.RECENT}-1").click().run()
    assert page.query_params == {"image": six} and list_cards(page)[0] == six
