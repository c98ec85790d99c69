"""A page with a password in a real Chromium, on files whose names would like to be more than names."""

import csv
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Error

from tests.indexer.making import build, draw
from tests.ui.conftest import BUG_SECRET, HOSTILE_NAMES, Gallery, select_button, start_server
from tests.ui.test_browser import Visit
from tests.ui.test_locked import OPEN_SETTINGS
from tests.ui.test_password import PASSWORD
from ui.headers import HARDENED
from ui.keys import Action, Key
from ui.texts import BUG, UNSEEN_BREAK, show_path

pytestmark = pytest.mark.browser
FORMULA_NAMES = ("=1+1.jpg", "+SUM(A1).jpg", "-2+3.jpg", "@SUM(A1).jpg")
MARKED_NAMES = (
    *("$\\alpha$ $$x^2$$.jpg", ":material/home: :red[x] :smile:.jpg", "![x](x) ~~x~~ # &lt;b&gt;.jpg"),
    *('" onerror=alert(1) x=".jpg', "<script>alert(1)<.jpg", "<svg onload=alert(1)>.jpg", "{{7*7}} ${7*7} %s.jpg"),
    *("www.evil.example.jpg", "a@evil.example.jpg", "    four.jpg", "1. hello.jpg", "- x.jpg"),
    *("photo\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe.jpg", "\N{ZERO WIDTH SPACE}two\nlines\x1b[31m.jpg"),
)
STRANGE_NAMES = (*HOSTILE_NAMES, *FORMULA_NAMES, *MARKED_NAMES)
NO_PICTURES = ("<img src=x onerror=alert(2)>.jpg", "[y](javascript:alert(2)).jpg", "=2+2.jpg", "@y.jpg", "$\\beta$.jpg")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """One image for each name, and files that are no pictures for some."""
    folder = tmp_path_factory.mktemp("strange")
    pictures, place = folder / "=pictures", folder / "collection"
    for seed, name in enumerate(STRANGE_NAMES):
        draw(pictures / name, seed)
    for name in NO_PICTURES:
        (pictures / ("broken " + name)).write_bytes(b"not a picture")
        (pictures / name).write_bytes(b"not a picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEER_HOME", str(folder / "home"))
        report = build(place, pictures)
    assert (report.images, report.failed) == (len(STRANGE_NAMES), 2 * len(NO_PICTURES))
    return Gallery(pictures, place)


@pytest.fixture(scope="module")
def bug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path; while there is a file, the program of the server has a bug."""
    return tmp_path_factory.mktemp("bug") / "bug"


@pytest.fixture(scope="module")
def locked(strange: Gallery, bug: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`seer ui` with a password from the environment."""
    before = f"""
import pathlib, indexer.collection
def break_down(name):
    whole = getattr(indexer.collection.Collection, name)
    def broken(self, *arguments, **options):
        if pathlib.Path({str(bug)!r}).exists():
            raise RuntimeError({BUG_SECRET!r})
        return whole(self, *arguments, **options)
    setattr(indexer.collection.Collection, name, broken)
break_down("read_status"); break_down("find_image")
"""
    home = tmp_path_factory.mktemp("locked-home")
    arguments = ("ui", "--collection", str(strange.place), "--port", "0")
    process, address = start_server(home, *arguments, before=before, SEER_PASSWORD=PASSWORD, **OPEN_SETTINGS)
    yield address
    process.kill()
    process.communicate()


class KnownVisit(Visit):
    """A tab of a person who has typed the password, and everything that came over the WebSocket."""

    def __init__(self, browser, server: str, password: str = PASSWORD) -> None:
        super().__init__(browser, server, http_credentials={"username": "me", "password": password})
        self.messages: list[bytes] = []
        self.page.on("websocket", lambda stream: stream.on("framereceived", self._keep))

    def _keep(self, message: str | bytes) -> None:
        self.messages.append(message.encode() if isinstance(message, str) else message)


@pytest.fixture
def visit(browser, locked: str) -> Iterator[KnownVisit]:
    visit = KnownVisit(browser, locked)
    yield visit
    visit.context.close()
    assert not visit.complaints
    assert not [url for url in visit.requests if not url.startswith((locked, "data:", "blob:"))]


def test_the_browser_asks_for_the_password_and_shows_nothing_without(browser, locked: str):
    guessing = KnownVisit(browser, locked, "another password")
    assert guessing.page.goto(locked).status == 401
    assert guessing.page.inner_text("body").strip() == "This page has a password."
    guessing.context.close()
    giving_up = Visit(browser, locked)
    assert see_without(giving_up, locked) in ("This page has a password.", "ERR_INVALID_AUTH_CREDENTIALS")
    giving_up.context.close()


def see_without(visit: Visit, address: str) -> str:
    """What a browser shows whose person types no password: the page of the refusal, or one of its own."""
    try:
        assert visit.page.goto(address).status == 401
        return visit.page.inner_text("body").strip()
    except Error as error:
        return re.search("ERR_[A-Z_]+", str(error))[0]


def test_with_the_password_a_picture_is_dropped_and_found(visit: KnownVisit, strange: Gallery, tmp_path: Path):
    visit.open()
    visit.wait_for_pictures()
    assert sorted(visit.list_names()) == sorted(show_path(Path(name).name) for name in STRANGE_NAMES)
    # A name that is not in the collection, of content that is.
    for name in ("<img src=x onerror=alert(3)>[z](javascript:alert(3)) $\\gamma$.jpg", "=3+3.jpg"):
        upload = shutil.copy(strange.pictures / FORMULA_NAMES[0], tmp_path / name)
        visit.page.locator("input[type=file]").first.set_input_files(upload)
        visit.wait_for_query(name.replace("\\", "\\\\"))
        assert visit.list_names()[0] == FORMULA_NAMES[0]
        assert visit.page.locator(f".st-key-{Key.QUERY}").get_by_text(name, exact=True).count() == 1
    for name in ("<img src=x onerror=alert(4)> $\\delta$ :red[x].jpg", "1. www.x.one.jpg", "- a@b.two.jpg"):
        (tmp_path / name).write_bytes(b"not a picture")
        visit.page.locator("input[type=file]").first.set_input_files(tmp_path / name)
        told = visit.page.get_by_role("alert").get_by_text(" cannot be searched with")
        visit.wait_until(f"document.querySelector('[role=alert]')?.innerText.includes({name[-9:]!r})")
        assert told.inner_text().replace(UNSEEN_BREAK, "").startswith(f"{name} cannot be searched with")
        assert not visit.page.locator("[role=alert] :is(a, li)").count()
    assert not visit.page.locator('a[href^="javascript:"], img[onerror], .katex').count()


def settle(visit: KnownVisit) -> None:
    """A click or a key goes nowhere while the page is being drawn."""
    visit.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()


def test_no_name_is_more_than_a_name_wherever_it_is_shown(visit: KnownVisit, strange: Gallery):
    visit.open()
    for name in MARKED_NAMES:
        visit.page.locator(select_button(Action.OPEN, strange.find_hash(Path(name).name))).click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_text(show_path(strange.pictures / name), exact=True).wait_for()
        title = dialog.get_by_role("heading").first.text_content().replace(UNSEEN_BREAK, "")
        assert title == show_path(Path(name).name)
        dialog.locator("a").wait_for()
        assert [link.get_attribute("href")[:3] for link in dialog.locator("a").all()] == ["/o/"]
        settle(visit)
        visit.page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        settle(visit)
    assert not visit.page.locator('a[href^="javascript:"], img[onerror], .katex, .stMain script').count()


def test_the_table_of_failures_and_its_download_hold_text_only(visit: KnownVisit, strange: Gallery):
    visit.open()
    visit.page.get_by_role("link", name="Not searchable").click()
    cells = visit.page.locator(f".st-key-{Key.TABLE} td:first-child")
    cells.first.wait_for()
    shown = cells.all_text_contents()
    settle(visit)
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name="Download all as CSV").click()
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text(encoding="utf-8-sig"))))
    expected = [str(strange.pictures / name) for name in NO_PICTURES]
    expected += [str(strange.pictures / f"broken {name}") for name in NO_PICTURES]
    assert sorted(row["file"] for row in rows) == sorted(shown) == sorted(expected)
    assert not visit.page.locator('a[href^="javascript:"], img[onerror], .katex').count()


def test_the_browser_would_run_nothing_of_a_name_that_became_html(browser, locked: str):
    visit = KnownVisit(browser, locked)
    visit.open()
    for html in ("<img src=/favicon.png onload=alert(5)>", "<a id=it href='javascript:alert(6)'>x</a>"):
        visit.page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", html)
    visit.page.evaluate("document.getElementById('it').click()")
    visit.page.wait_for_timeout(500)
    visit.context.close()
    assert len(visit.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in visit.complaints), visit.complaints


def test_a_bug_of_the_program_stays_in_the_terminal(browser, locked: str, strange: Gallery, bug: Path):
    visit = KnownVisit(browser, locked)
    visit.open()
    bug.touch()
    try:
        visit.messages.clear()
        visit.page.reload()
        visit.page.get_by_role("alert").get_by_text(BUG).wait_for()
        picture = visit.page.request.get(f"{locked}/t/{strange.find_hash(FORMULA_NAMES[0])}.webp")
        told = picture.body()
    finally:
        bug.unlink()
    seen = b"".join(visit.messages) + visit.page.content().encode() + told
    visit.context.close()
    assert picture.status == 500 and BUG.encode() in told
    assert all(picture.headers.get(name.lower()) == value for name, value in HARDENED.items()), picture.headers
    for private in (BUG_SECRET, "RuntimeError", "Traceback", "read_status", "find_image", 'File "', str(strange.place)):
        assert private.encode() not in seen, private
