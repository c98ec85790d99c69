"""The page in a real Chromium: what a person does, what they see, and that nothing leaves this computer."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.ui.conftest import CARDS, DESK, HOSTILE_NAMES, Gallery, select_button
from ui.keys import Action, Key
from ui.texts import UNSEEN_BREAK

pytestmark = pytest.mark.browser
PATIENCE = 20_000
"""Milliseconds for the slowest step on a busy computer."""
QUIET = 150
"""Milliseconds between two looks."""
SCREENSHOTS = "SEER_SCREENSHOTS"
"""Where the walk's picture goes; the README's are taken by tests/ui/screenshots.py."""


class Visit:
    """A tab, and everything that it asked for or complained about."""

    def __init__(self, browser, server: str, context=None, **options: object) -> None:
        """`context`: a browser with its cache that other visits have, too; None: a new one."""
        self.server, self._is_own = server, context is None
        self.context = context or browser.new_context(**{**DESK, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("console", self._hear)

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def close(self) -> None:
        (self.context if self._is_own else self.page).close()

    def open(self, address: str = "/") -> None:
        self.page.goto(self.server + address)
        self.page.locator(f".st-key-{Key.FOOTER}").wait_for()
        self.page.locator(f"{CARDS} img").first.wait_for()

    def read_image(self) -> str | None:
        """The content hash in the URL."""
        return parse_qs(urlsplit(self.page.evaluate("location.href")).query).get("image", [None])[0]

    def wait_for_query(self, name: str) -> None:
        self.page.locator(f'.st-key-{Key.QUERY} img[alt="Query: {name}"]').wait_for()

    def settle(self) -> None:
        """Wait until nothing of the page before is in sight any more: at rest, and the same when looked at again."""
        before = None
        while (cards := self.page.locator(f".st-key-{Key.GALLERY}").inner_html()) != before:
            self.page.wait_for_timeout(QUIET)
            self.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
            before = cards

    def list_names(self) -> list[str]:
        """The file names of the cards, in the order in which they are seen."""
        self.settle()
        self.page.locator(f"{CARDS} img").first.wait_for()
        pictures = self.page.locator(f"{CARDS} img").all()
        shown = [picture.get_attribute("src") for picture in pictures]
        assert not [source for source in shown if not source.startswith("/t/")]
        return [picture.get_attribute("alt") for picture in pictures]

    def search_on(self, gallery: Gallery, name: str) -> None:
        self.page.locator(select_button(Action.SIMILAR, gallery.find_hash(name))).click()
        self.wait_for_query(name)
        self.settle()

    def wait_for_pictures(self) -> None:
        """Every picture in the page has arrived and is not broken."""
        self.wait_until("[...document.images].every(image => image.complete && image.naturalWidth > 0)")

    def wait_until(self, expression: str) -> None:
        """Wait until this JavaScript is true. The page's policy forbids what `wait_for_function` would do in it."""
        for _ in range(PATIENCE // QUIET):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(QUIET)
        raise AssertionError(f"never true: {expression}")


@pytest.fixture
def visit(browser, desk, server: str) -> Iterator[Visit]:
    visit = Visit(browser, server, desk)
    yield visit
    visit.close()
    assert not visit.complaints
    assert not [url for url in visit.requests if not url.startswith((server, "data:", "blob:"))]


def test_upload_then_neighbours_then_on_and_back_again(visit: Visit, gallery: Gallery, near_copy: Path, tmp_path: Path):
    visit.open()
    assert len(visit.list_names()) == 30

    visit.page.locator("input[type=file]").set_input_files(near_copy)
    visit.wait_for_query("near-copy.jpg")
    found = visit.list_names()
    assert found[0] == "picture-07.jpg"
    assert visit.read_image() is None and "?query=" in visit.page.url

    visit.search_on(gallery, found[0])
    assert visit.read_image() == gallery.find_hash(found[0])
    assert visit.list_names()[0] == found[0]
    visit.search_on(gallery, found[2])
    assert visit.read_image() == gallery.find_hash(found[2])
    assert visit.list_names()[0] == found[2]
    visit.wait_for_pictures()
    visit.page.screenshot(path=Path(os.environ.get(SCREENSHOTS) or tmp_path) / "walk.png")

    visit.page.go_back()
    visit.wait_for_query(found[0])
    assert visit.read_image() == gallery.find_hash(found[0])
    assert visit.list_names()[0] == found[0]
    visit.page.go_back()
    visit.wait_for_query("near-copy.jpg")
    assert visit.read_image() is None
    assert visit.list_names() == found
    visit.page.go_forward()
    visit.wait_for_query(found[0])
    assert visit.read_image() == gallery.find_hash(found[0])


def test_a_new_answer_begins_at_its_top(visit: Visit, gallery: Gallery):
    visit.open()
    main = visit.page.get_by_test_id("stMain")
    last = visit.list_names()[-1]
    main.evaluate("place => place.scrollTo(0, place.scrollHeight)")
    assert main.evaluate("place => place.scrollTop") > 100
    visit.search_on(gallery, last)
    visit.wait_until("document.querySelector('[data-testid=stMain]').scrollTop === 0")


@pytest.mark.long
def test_a_link_opens_the_same_page_in_another_browser(visit: Visit, browser, gallery: Gallery):
    visit.open()
    visit.search_on(gallery, "picture-05.jpg")
    visit.page.get_by_role("radio", name="12", exact=True).click()
    visit.page.wait_for_url("**count=12*")
    visit.page.get_by_role("button", name="Page 2", exact=True).click()
    visit.page.wait_for_url("**page=2*")
    names = visit.list_names()
    assert len(names) == 12
    other = Visit(browser, visit.server)
    other.open(visit.page.evaluate("location.pathname + location.search"))
    assert other.list_names() == names
    other.context.close()


@pytest.mark.long
def test_a_file_name_runs_nothing_and_links_nowhere(visit: Visit, gallery: Gallery):
    for name in HOSTILE_NAMES:
        visit.open()
        visit.search_on(gallery, name)
        assert visit.page.locator(f".st-key-{Key.QUERY}").get_by_text(name, exact=True).count() == 1
        visit.page.locator(select_button(Action.OPEN, gallery.find_hash(name))).click()
        visit.page.get_by_role("dialog").get_by_text(str(gallery.pictures / name), exact=True).wait_for()
        title = visit.page.get_by_role("dialog").get_by_role("heading").first.text_content()
        assert title.replace(UNSEEN_BREAK, "") == name
        assert not visit.page.locator('a[href^="javascript:"], img[onerror]').count()
        visit.page.keyboard.press("Escape")
        visit.page.get_by_role("dialog").wait_for(state="detached")


def test_a_picture_of_any_name_may_be_dropped(visit: Visit, near_copy: Path, tmp_path: Path):
    visit.open()
    for name in ("near-copy.CR3", "near-copy", "near-copy.txt"):
        visit.page.locator("input[type=file]").set_input_files(shutil.copy(near_copy, tmp_path / name))
        visit.wait_for_query(name)
        assert visit.list_names()[0] == "picture-07.jpg"
    assert not visit.page.get_by_test_id("stFileUploaderFile").count()


def test_an_upload_that_is_too_large_is_refused_in_a_sentence(visit: Visit, tmp_path: Path):
    visit.open()
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(106_000_000)
    visit.page.locator("input[type=file]").set_input_files(tmp_path / "huge.jpg")
    visit.page.get_by_text("must be 100.0MB or smaller").wait_for()
    assert len(visit.list_names()) == 30


def test_the_original_opens_large_and_searches_on(visit: Visit, gallery: Gallery):
    visit.open()
    visit.page.locator(select_button(Action.OPEN, gallery.find_hash("scan.tiff"))).click()
    dialog = visit.page.get_by_role("dialog")
    dialog.locator(f".st-key-{Key.LARGE} img").wait_for()
    visit.wait_for_pictures()
    assert dialog.locator(f".st-key-{Key.LARGE} img").evaluate("image => image.naturalWidth") == 140
    dialog.get_by_text(str(gallery.pictures / "scan.tiff")).wait_for()
    dialog.locator(f".st-key-{Key.LARGE_SIMILAR} button").click()
    visit.wait_for_query("scan.tiff")
    dialog.wait_for(state="detached")


def test_keyboard_alone_searches_on(visit: Visit, gallery: Gallery):
    visit.open()
    first = visit.list_names()[0]
    visit.page.get_by_role("button", name=f"Find similar to {first}", exact=True).focus()
    visit.page.keyboard.press("Enter")
    visit.wait_for_query(first)


def test_a_phone_sees_two_columns_and_scrolls_one_way_only(browser, server: str, gallery: Gallery):
    visit = Visit(browser, server, viewport={"width": 390, "height": 844})
    visit.open(f"/?image={gallery.find_hash('picture-05.jpg')}")
    visit.settle()
    lefts = visit.page.evaluate(
        f"[...document.querySelectorAll('{CARDS} img')].map(image => image.getBoundingClientRect().left)"
    )
    wide = visit.page.evaluate("document.querySelector('.stMain').scrollWidth")
    visit.context.close()
    assert len(set(lefts)) == 2
    assert wide <= 390


def test_every_picture_has_a_name_and_every_button_too(visit: Visit):
    visit.open()
    assert len(visit.list_names()) == 30
    assert not visit.page.locator("img:not([alt]), .stMain img[alt='']").count()
    buttons = visit.page.locator(".stMain button").all()
    assert len(buttons) > 60
    assert all((button.text_content() or button.get_attribute("aria-label") or "").strip() for button in buttons)
