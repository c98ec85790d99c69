"""Discover, the tray, the map and near-duplicates in a real Chromium: what a person does, and sees, also in the URL."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from indexer.collection import ImageKind
from tests.ui.conftest import CARDS, HOSTILE_NAMES, Gallery, select_button, start_server
from tests.ui.test_browser import Visit
from tests.ui.test_discover import seen  # noqa: F401 - a fixture
from ui.keys import Action, Key
from ui.map_drawing import GONE

pytestmark = pytest.mark.browser
GROUP_CARDS, MAP = f".st-key-{Key.GROUPS} li", f".st-key-{Key.MAP} section"

EXPECTED = ("/_stcore/", "GL Driver Message")
"""Streamlit asks below a page that is opened by its own address, where nothing is; a browser without a graphics card
says that its drawing is slow."""


@pytest.fixture(scope="module")
def surveyed(seen: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, str]]:  # noqa: F811
    process, address = start_server(
        tmp_path_factory.mktemp("home"), "ui", "--collection", str(seen.place), "--port", "0"
    )
    yield seen, address
    process.kill()
    process.communicate()


@pytest.fixture
def visit(browser, desk, surveyed: tuple[Gallery, str]) -> Iterator[Visit]:
    one = Visit(browser, surveyed[1], desk)
    yield one
    complaints = [text for text in one.complaints if not any(known in text for known in EXPECTED)]
    one.close()
    assert not complaints and all(url.startswith((surveyed[1], "data:", "blob:")) for url in one.requests)


def open_at(visit: Visit, address: str, selector: str) -> None:
    visit.page.goto(visit.server + address)
    visit.page.locator(selector).first.wait_for()
    settle(visit)


def settle(visit: Visit) -> None:
    visit.page.wait_for_timeout(150)
    visit.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()


def read_url(visit: Visit) -> dict[str, list[str]]:
    return parse_qs(urlsplit(visit.page.evaluate("location.href")).query)


def test_from_the_start_into_a_group_to_an_image_and_back(visit: Visit, surveyed: tuple[Gallery, str]):
    open_at(visit, "/", GROUP_CARDS)
    visit.page.locator(f"{GROUP_CARDS} button").first.click()
    visit.page.wait_for_url("**group=0**")
    visit.page.locator(f"{CARDS} img").first.wait_for()
    settle(visit)
    first = visit.page.locator(f"{CARDS} button[name={Action.SIMILAR}]").first
    content_hash = first.get_attribute("value")
    first.click()
    visit.page.wait_for_url(f"**image={content_hash}")
    visit.page.locator(f".st-key-{Key.QUERY} img").wait_for()
    visit.page.go_back()
    visit.page.wait_for_url("**group=0**")
    visit.page.go_back()
    visit.page.locator(GROUP_CARDS).first.wait_for()
    assert read_url(visit) == {}


def test_more_and_less_like_this_stand_on_the_card_that_is_pointed_at(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    five, six = (gallery.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    open_at(visit, f"/?image={five}&count=48", f"{CARDS} img")
    card = visit.page.locator(f"{CARDS}:has(button[value='{six}'])")
    more = card.locator("fieldset")
    assert more.evaluate("one => getComputedStyle(one).opacity") == "0"
    card.scroll_into_view_if_needed()
    card.hover()
    box = card.bounding_box()
    visit.page.mouse.move(box["x"] + 43, box["y"] + 43)
    shown = f"document.querySelector(`{CARDS}:has(button[value='{six}']) fieldset`)"
    visit.wait_until(f"getComputedStyle({shown}).opacity == 1")
    card.locator(f"button[name={Action.MINUS}]").click()
    visit.page.wait_for_url("**term=**")
    settle(visit)
    assert read_url(visit)["term"] == [five, f"-{six}"]
    assert visit.page.locator(f".st-key-{Key.QUERY} img[alt='Unlike: picture-06.jpg']").count() == 1


def test_arrows_walk_over_the_cards_and_enter_searches_on(visit: Visit, surveyed: tuple[Gallery, str]):
    five = surveyed[0].find_hash("picture-05.jpg")
    open_at(visit, f"/?image={five}", f"{CARDS} img")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowRight")
    focused = visit.page.evaluate("document.activeElement.value")
    second = visit.page.locator(f"{CARDS} button[name={Action.SIMILAR}]").nth(1).get_attribute("value")
    assert focused == second
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url(f"**image={second}")
    settle(visit)
    visit.page.keyboard.press("/")
    assert visit.page.evaluate("document.activeElement.closest('[data-testid=stFileUploader]') !== null")
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_url(f"**image={five}")


def test_keys_do_nothing_while_somebody_types(visit: Visit, surveyed: tuple[Gallery, str]):
    five = surveyed[0].find_hash("picture-05.jpg")
    open_at(visit, f"/?image={five}", f"{CARDS} img")
    field = visit.page.locator(f".st-key-{Key.SORT} input")
    field.click()
    for key in ("ArrowRight", "/", "Escape"):
        visit.page.keyboard.press(key)
    settle(visit)
    assert read_url(visit) == {"image": [five]}


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_picture_from_the_clipboard_or_dropped_anywhere_is_searched_with(
    visit: Visit, surveyed: tuple[Gallery, str], near_copy: Path, way: str
):
    open_at(visit, "/", GROUP_CARDS)
    data = base64.b64encode(near_copy.read_bytes()).decode()
    visit.page.evaluate(
        """([data, way]) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const carried = new DataTransfer();
          carried.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
          const told = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(way === "paste"
            ? new ClipboardEvent("paste", { ...told, clipboardData: carried })
            : new DragEvent("drop", { ...told, dataTransfer: carried }));
        }""",
        [data, way],
    )
    visit.page.wait_for_url("**query=**")
    visit.page.locator(f".st-key-{Key.QUERY} img[alt='Query: pasted.jpg']").wait_for()
    settle(visit)
    assert visit.list_names()[0] in ("picture-07.jpg", "copy-70.jpg", "copy-80.jpg")


def test_a_box_is_drawn_on_the_picture(visit: Visit, surveyed: tuple[Gallery, str]):
    five = surveyed[0].find_hash("picture-05.jpg")
    open_at(visit, f"/?image={five}", f"{CARDS} img")
    visit.page.locator(f".st-key-{Key.TRAY}-like-0").get_by_role("button", name="Part").click()
    picture = visit.page.locator(f"[class*=st-key-{Key.PART}-0-box] img")
    picture.wait_for()
    settle(visit)
    box = picture.bounding_box()
    visit.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    visit.page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
    visit.page.mouse.up()
    visit.page.wait_for_url("**term=**")
    (term,) = read_url(visit)["term"]
    numbers = [int(number) for number in term.partition("@")[2].split(",")]
    assert term.startswith(five)
    assert all(abs(number - at) < 30 for number, at in zip(numbers, (250, 250, 500, 500), strict=True)), numbers


def test_why_it_matched_is_drawn(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    five, six = (gallery.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    open_at(visit, f"/?image={five}&count=48", f"{CARDS} img")
    visit.page.locator(select_button(Action.OPEN, six)).click()
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_text("Why it matched").click()
    lit = dialog.locator("img[alt='What matched in picture-06.jpg']")
    lit.wait_for()
    assert lit.evaluate("image => image.decode().then(() => image.naturalWidth)") == 448


def test_the_map_is_moved_zoomed_clicked_and_selected_from(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    section = visit.page.locator(MAP)
    for name in ("in", "left", "out", "whole"):
        before = int(section.get_attribute("data-frames"))
        section.locator(f"button[name={name}]").click()
        visit.wait_until(f"Number(document.querySelector('{MAP}').dataset.frames) > {before}")
    section.locator("button[name=lasso]").click()
    box = section.bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.9), (0.02, 0.9)]
    visit.page.mouse.move(box["x"] + corners[0][0] * box["width"], box["y"] + corners[0][1] * box["height"])
    visit.page.mouse.down()
    for x, y in corners[1:]:
        visit.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    visit.page.mouse.up()
    visit.page.wait_for_url("**lasso=**")
    visit.page.locator(f"{CARDS} img").first.wait_for()
    settle(visit)
    told = visit.page.get_by_text("images selected.")
    assert int(told.inner_text().split()[0]) >= 35
    assert len(visit.page.locator(f"{CARDS} img").all()) >= 35
    visit.page.go_back()
    visit.page.wait_for_url("**/map")


def test_a_point_of_the_map_leads_to_its_image(visit: Visit, surveyed: tuple[Gallery, str]):
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    place = visit.page.evaluate(
        f"""() => {{
          const view = document.querySelector("{MAP}").view;
          const [x, y] = view.toScreen([view.places[0], view.places[1]]);
          const box = view.canvas.getBoundingClientRect();
          return [box.left + x, box.top + y, view.hashOf(view.find({{ clientX: box.left + x, clientY: box.top + y }}))];
        }}"""
    )
    visit.page.mouse.move(place[0], place[1])
    visit.page.locator(f"{MAP} aside img").wait_for()
    visit.page.mouse.click(place[0], place[1])
    visit.page.wait_for_url(f"**image={place[2]}")
    visit.page.locator(f".st-key-{Key.QUERY} img").wait_for()


@pytest.fixture(scope="module")
def touched(browser) -> Iterator[object]:
    """A profile of a browser with a small window and a screen that is touched."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    yield context
    context.close()


@pytest.fixture
def phone(browser, touched, surveyed: tuple[Gallery, str]) -> Iterator[Visit]:
    one = Visit(browser, surveyed[1], touched)
    one.session = one.context.new_cdp_session(one.page)
    open_at(one, "/map", f"{MAP}[data-ready=yes]")
    yield one
    one.close()


def touch(visit: Visit, kind: str, *fingers: tuple[float, float, int]) -> None:
    """What the fingers do that are down; each is its place and its number."""
    points = [{"x": x, "y": y, "id": number} for x, y, number in fingers]
    visit.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def find_point(visit: Visit) -> tuple[float, float]:
    """Where in the window an image of the map can be touched, in the middle half of it."""
    x, y = visit.page.evaluate(
        f"""() => {{
          const view = document.querySelector("{MAP}").view, box = view.canvas.getBoundingClientRect();
          const places = [...view.groups.keys()].map((number) => view.toScreen(view.places.subarray(2 * number)));
          const apart = ([x, y]) => Math.max(Math.abs(x / view.width - 0.5), Math.abs(y / view.height - 0.5));
          const [x, y] = places.toSorted((one, other) => apart(one) - apart(other))[0];
          return [box.left + x, box.top + y];
        }}"""
    )
    return x, y


def read_view(visit: Visit, what: str) -> float:
    return visit.page.evaluate(f"document.querySelector('{MAP}').view.{what}")


def test_two_fingers_zoom_the_map_and_open_no_picture(phone: Visit):
    (x, y), scale = find_point(phone), read_view(phone, "scale")
    touch(phone, "touchStart", (x, y, 1))
    touch(phone, "touchStart", (x, y, 1), (x + 60, y, 2))
    for step in range(0, 61, 10):
        touch(phone, "touchMove", (x, y, 1), (x + 60 + step, y, 2))
    assert read_view(phone, "scale") > 1.5 * scale
    touch(phone, "touchEnd", (x, y, 1))
    before = read_view(phone, "x")
    for step in range(0, 41, 10):
        touch(phone, "touchMove", (x + step, y, 1))
    assert read_view(phone, "x") < before, "the finger that stayed goes on"
    touch(phone, "touchEnd")
    phone.page.wait_for_timeout(500)
    settle(phone)
    assert read_url(phone) == {}


@pytest.mark.parametrize("stays", [0, 1])
def test_two_fingers_open_no_picture_whichever_goes_first_and_however_little_they_move(phone: Visit, stays: int):
    x, y = find_point(phone)
    touch(phone, "touchStart", (x, y, 1))
    touch(phone, "touchStart", (x, y, 1), (x + 60, y, 2))
    touch(phone, "touchMove", (x, y, 1), (x + 62, y, 2))
    touch(phone, "touchEnd", ((x, y, 1), (x + 62, y, 2))[stays])
    touch(phone, "touchEnd")
    phone.page.wait_for_timeout(500)
    settle(phone)
    assert read_url(phone) == {}


def test_one_finger_opens_what_it_points_at(phone: Visit):
    x, y = find_point(phone)
    touch(phone, "touchStart", (x, y, 1))
    touch(phone, "touchEnd")
    phone.page.wait_for_url("**image=**")


def test_what_is_in_sight_on_the_map_stays_when_the_window_changes(visit: Visit):
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    section = visit.page.locator(MAP)
    for name in ("in", "in", "left"):
        section.locator(f"button[name={name}]").click()
    before = {name: read_view(visit, name) for name in ("x", "y", "scale")}
    resize(visit, 1100, 700)
    assert {name: read_view(visit, name) for name in ("x", "y", "scale")} == before
    assert abs(read_view(visit, "canvas.width") - read_view(visit, "root.offsetWidth")) <= 1
    section.locator("button[name=whole]").click()
    resize(visit, 900, 500)
    assert read_view(visit, "scale") == read_view(visit, "least"), "who sees all of it goes on to see it"


def resize(visit: Visit, width: int, height: int) -> None:
    before = read_view(visit, "width")
    visit.page.set_viewport_size({"width": width, "height": height})
    visit.wait_until(f"document.querySelector('{MAP}').view.width !== {before}")


def forgive(visit: Visit, part: str, times: int) -> None:
    """So many complaints are what a test asks for."""
    asked_for = [text for text in visit.complaints if part in text and "/_stcore/" not in text]
    assert len(asked_for) == times, visit.complaints
    visit.complaints = [text for text in visit.complaints if text not in asked_for]


def test_points_that_are_others_by_the_time_they_are_fetched_are_named_anew(
    visit: Visit, surveyed: tuple[Gallery, str]
):
    gallery, _ = surveyed
    five, fetched = gallery.find_hash("picture-05.jpg"), []

    def hide_first(route) -> None:
        fetched.append(route.request.url)
        if len(fetched) == 1:
            with gallery.open() as collection:
                collection.decisions.mark(ImageKind.HIDDEN, five)
        route.continue_()

    visit.page.route("**/map/*.bin", hide_first)
    try:
        open_at(visit, "/map", f"{MAP}[data-ready=yes]")
        assert read_view(visit, "data.count") == 42 and len(set(fetched)) == 2
        assert not visit.page.locator(f"{MAP} > p").is_visible()
        forgive(visit, "/map/", times=1)
    finally:
        with gallery.open() as collection:
            collection.decisions.mark(ImageKind.HIDDEN, five, is_so=False)


def test_a_map_that_cannot_be_fetched_says_so_and_stops_asking(visit: Visit):
    fetched = []

    def refuse(route) -> None:
        fetched.append(route.request.url)
        route.fulfill(status=404, body="Not found")

    visit.page.route("**/map/*.bin", refuse)
    visit.page.goto(visit.server + "/map")
    visit.page.get_by_text(GONE).wait_for()
    visit.page.wait_for_timeout(2500)
    assert len(fetched) == 3
    visit.page.unroute("**/map/*.bin")
    visit.page.reload()
    visit.page.locator(f"{MAP}[data-ready=yes]").wait_for()
    assert not visit.page.get_by_text(GONE).is_visible()
    forgive(visit, "/map/", times=3)


def test_what_is_in_sight_stays_when_an_image_is_hidden(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    six = gallery.find_hash("picture-06.jpg")
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    visit.page.locator(f"{MAP} button[name=in]").click()
    scale = read_view(visit, "scale")
    try:
        with gallery.open() as collection:
            collection.decisions.mark(ImageKind.HIDDEN, six)
        visit.page.locator(f"{MAP} button[name=all]").click()
        visit.wait_until(f"document.querySelector('{MAP}').view.groups?.length === 42")
        assert read_view(visit, "scale") == scale
    finally:
        with gallery.open() as collection:
            collection.decisions.mark(ImageKind.HIDDEN, six, is_so=False)


WITHOUT_WEBGL = """
const open = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === "webgl" ? null : open.call(this, kind, ...more);
};
"""


@pytest.mark.parametrize("drawn_by", ["webgl", "canvas"])
def test_a_map_that_is_moved_is_a_sample_at_most_and_all_of_it_at_rest(visit: Visit, drawn_by: str):
    """As for a browser that cannot keep up."""
    if drawn_by == "canvas":
        visit.page.add_init_script(WITHOUT_WEBGL)
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    assert visit.page.locator(MAP).get_attribute("data-drawn-by") == drawn_by
    visit.page.evaluate(
        f"""() => {{
          const view = document.querySelector("{MAP}").view, paint = view.paint;
          window.painted = [];
          view.paint = (view, count) => {{ painted.push(count); paint(view, count); }};
          view.moving = 20;
        }}"""
    )
    visit.page.locator(f"{MAP} button[name=left]").click()
    visit.wait_until("painted.at(-1) === 43")
    assert visit.page.evaluate("painted") == [20, 43]


def test_the_points_stand_where_the_pointer_finds_them(visit: Visit):
    visit.page.add_init_script(WITHOUT_WEBGL)
    open_at(visit, "/map", f"{MAP}[data-ready=yes]")
    missing = visit.page.evaluate(
        f"""() => {{
          const view = document.querySelector("{MAP}").view, {{ width, height }} = view.canvas;
          const {{ data }} = view.canvas.getContext("2d").getImageData(0, 0, width, height);
          const at = (number) => view.toScreen(view.places.subarray(2 * number)).map(Math.floor);
          const alphaOf = ([x, y]) => data[4 * (y * width + x) + 3];
          return [...view.groups.keys()].filter((number) => !alphaOf(at(number)));
        }}"""
    )
    assert missing == []


@pytest.mark.long
def test_near_duplicates_are_told_apart_in_the_page(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    open_at(visit, "/duplicates", f".st-key-{Key.DUPLICATES} li")
    buttons = visit.page.get_by_role("button", name="is no duplicate")
    assert buttons.count() == 2
    buttons.first.click()
    visit.page.get_by_text("1 pair was told apart.").wait_for()
    settle(visit)
    visit.page.get_by_role("button", name="Take back the last").click()
    visit.wait_until(f"document.querySelectorAll('.st-key-{Key.DUPLICATES} li').length === 3")


@pytest.mark.long
def test_a_pair_that_was_told_apart_is_found_by_its_pictures_and_taken_back(
    visit: Visit, surveyed: tuple[Gallery, str]
):
    gallery, _ = surveyed
    five, six, seven = (gallery.find_hash(f"picture-0{number}.jpg") for number in (5, 6, 7))
    with gallery.open() as collection:
        collection.decisions.tell_apart(five, six)
        collection.decisions.tell_apart(six, seven)
    open_at(visit, "/duplicates", f".st-key-{Key.DUPLICATES} li")
    visit.page.get_by_text("See them").click()
    pairs = visit.page.locator(f".st-key-{Key.TELL_APART} li")
    pairs.first.wait_for()
    visit.wait_for_pictures()
    assert pairs.count() == 2 and pairs.nth(1).locator("img").count() == 2
    pairs.nth(1).get_by_role("button", name="Take back: picture-0").click()
    visit.page.get_by_text("1 pair was told apart.").wait_for()
    with gallery.open() as collection:
        assert collection.decisions.list_apart() == {frozenset((six, seven))}
        collection.decisions.tell_apart(six, seven, is_so=False)


@pytest.mark.long
def test_the_paths_of_one_file_that_is_there_thrice_can_be_read(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    open_at(visit, "/duplicates", f".st-key-{Key.DUPLICATES} li")
    visit.page.get_by_role("radio", name="same file").click()
    visit.page.wait_for_url("**mode=same+file**")
    card = visit.page.locator(f".st-key-{Key.DUPLICATES} ul.files > li")
    card.wait_for()
    settle(visit)
    assert card.count() == 1 and card.get_by_text("3 files").is_visible()
    paths = card.locator("div p").all_inner_texts()
    assert [path.split("/")[-1] for path in paths] == ["older.jpg", "newer.jpg", "picture-11.jpg"]
    assert card.locator("mark").all_inner_texts() == ["keep"] and paths[0].startswith("keep")
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name="All as CSV").click()
    assert waiting.value.path().read_text("utf-8-sig").count("again") == 2
    card.get_by_role("button", name="Open older.jpg").click()
    visit.page.get_by_role("dialog").get_by_text(str(gallery.pictures / "again" / "newer.jpg")).wait_for()


WORKS = """
import sys, indexer.background as background
code = "import time; print('embedding 2/9', flush=True); time.sleep(120)"
background.spell_command = lambda folder, command: [sys.executable, "-c", code]
"""


@pytest.mark.long
def test_a_server_that_is_started_again_shows_its_work_and_stops_it(
    browser, seen: Gallery, tmp_path: Path  # noqa: F811
):
    place = shutil.copytree(seen.place, tmp_path / "place")
    for number, before in enumerate((WORKS, "")):
        process, address = start_server(
            tmp_path / "home", "ui", "--collection", str(place), "--port", "0", before=before
        )
        visit = Visit(browser, address)
        visit.page.goto(f"{address}/status")
        if number == 0:
            visit.page.get_by_role("button", name="Look for new pictures").click()
        visit.page.get_by_text("seer build is at work: embedding 2/9").wait_for()
        if number == 1:
            visit.page.get_by_role("button", name="Stop").click()
            visit.page.get_by_role("button", name="Look for new pictures").wait_for()
        visit.context.close()
        process.kill()
        process.communicate()


def test_a_hostile_file_name_stays_text_everywhere(visit: Visit, surveyed: tuple[Gallery, str]):
    content_hash = surveyed[0].find_hash(HOSTILE_NAMES[1])
    for address, selector in ((f"/?image={content_hash}", f"{CARDS} img"), ("/?show=unusual", f"{CARDS} img")):
        open_at(visit, address, selector)
        assert visit.page.locator(f'img[alt*="{HOSTILE_NAMES[1]}"]').count() >= 1
        assert visit.page.locator("img[src='x']").count() == 0


@pytest.mark.parametrize(
    "address", ["/", "/?show=unusual", "/map", "/duplicates", "/duplicates?mode=same+file", "/favourites"]
)
def test_nothing_stands_beside_a_narrow_page(visit: Visit, address: str):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    open_at(visit, address, f".st-key-{Key.FOOTER}")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
