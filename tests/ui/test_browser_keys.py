"""Keys, focus, the clipboard on any page, and what is pressed in an image that is open, in a real Chromium."""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.ui.conftest import CARDS, Gallery, select_button
from tests.ui.test_browser import Visit
from ui.keys import Action, Key

pytestmark = pytest.mark.browser
FOCUS = "[document.activeElement.name ?? '', document.activeElement.value ?? '']"


@pytest.fixture
def visit(browser, desk, server: str) -> Iterator[Visit]:
    one = Visit(browser, server, desk)
    yield one
    one.close()
    assert not one.complaints


def rest(visit: Visit) -> None:
    """Until the script has ended; the page may be one without cards."""
    visit.page.wait_for_timeout(150)
    visit.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()


def test_who_marks_a_favourite_by_key_stays_on_it(visit: Visit, gallery: Gallery):
    five = gallery.find_hash("picture-05.jpg")
    visit.open(f"/?image={five}")
    heart = visit.page.locator(select_button(Action.FAVOURITE, five))
    for pressed in ("true", "false"):
        heart.focus()
        visit.page.keyboard.press("Enter")
        visit.page.locator(f"{select_button(Action.FAVOURITE, five)}[aria-pressed={pressed}]").wait_for()
        visit.settle()
        assert visit.page.evaluate(FOCUS) == [Action.FAVOURITE, five]


def test_arrows_are_the_cards_own_only_where_nothing_else_has_the_focus(visit: Visit, gallery: Gallery):
    visit.open(f"/?image={gallery.find_hash('picture-05.jpg')}&count=12")
    visit.settle()
    visit.page.locator(f".st-key-{Key.PAGE} button").last.focus()
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.evaluate(f"document.activeElement.closest('.st-key-{Key.PAGE}') !== null")
    visit.page.evaluate("document.activeElement.blur()")
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.evaluate(FOCUS)[0] == Action.SIMILAR


def test_escape_does_not_leave_the_page(visit: Visit):
    visit.page.goto("about:blank")
    visit.open()
    visit.settle()
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_timeout(500)
    assert visit.page.url.startswith(visit.server)


@pytest.mark.parametrize("page", ["favourites", "status"])
def test_from_any_page_the_slash_leads_to_the_place_for_a_picture(visit: Visit, page: str):
    visit.open()
    visit.page.get_by_role("link", name=page.capitalize(), exact=True).click()
    visit.page.get_by_role("heading", name=page.capitalize()).wait_for()
    rest(visit)
    visit.page.keyboard.press("/")
    visit.page.locator("[data-testid=stFileUploader]:focus-within").wait_for()
    assert urlsplit(visit.page.url).path == "/"


def test_what_is_pasted_on_another_page_is_searched_with(visit: Visit, gallery: Gallery, near_copy: Path):
    visit.open()
    visit.page.get_by_role("link", name="Status", exact=True).click()
    visit.page.get_by_role("heading", name="Status").wait_for()
    rest(visit)
    visit.page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const carried = new DataTransfer();
          carried.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
          document.body.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: carried }));
        }""",
        base64.b64encode(near_copy.read_bytes()).decode(),
    )
    visit.page.locator(f"{CARDS} button[value='{gallery.find_hash('picture-07.jpg')}']").first.wait_for()
    visit.page.locator(f".st-key-{Key.QUERY}").get_by_text("pasted.jpg").wait_for()


def test_a_neighbour_in_an_open_image_is_searched_from_and_the_image_closes(visit: Visit, gallery: Gallery):
    five = gallery.find_hash("picture-05.jpg")
    visit.open(f"/?image={five}")
    visit.page.locator(select_button(Action.OPEN, five)).click()
    near = visit.page.get_by_role("dialog").locator(f".st-key-{Key.LARGE_GALLERY} button[name={Action.SIMILAR}]").first
    wanted = near.get_attribute("value")
    near.click()
    visit.page.wait_for_url(f"**image={wanted}")
    visit.page.get_by_role("dialog").wait_for(state="detached")
    visit.page.locator(f"{CARDS}:first-child button[value='{wanted}']").first.wait_for()


def test_an_image_of_another_page_leads_to_the_search_and_back(visit: Visit, gallery: Gallery):
    five = gallery.find_hash("picture-05.jpg")
    visit.open(f"/?image={five}")
    visit.page.locator(select_button(Action.FAVOURITE, five)).dispatch_event("click")
    visit.settle()
    visit.page.get_by_role("link", name="Favourites", exact=True).click()
    visit.page.get_by_role("heading", name="Favourites").wait_for()
    visit.page.locator(select_button(Action.SIMILAR, five)).click()
    visit.page.locator(f".st-key-{Key.QUERY} img").wait_for()
    visit.page.locator(CARDS).nth(23).wait_for()
    assert urlsplit(visit.page.url)[2:4] == ("/", f"image={five}")
    visit.page.go_back()
    visit.page.get_by_role("heading", name="Favourites").wait_for()
    assert urlsplit(visit.page.url).path == "/favourites"
    visit.page.locator(select_button(Action.FAVOURITE, five)).dispatch_event("click")
    visit.page.get_by_text("Nothing is marked yet.").wait_for()
