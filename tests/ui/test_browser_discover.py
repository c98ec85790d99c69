"""Discover, the tray, the map and near-duplicates in a real Chromium: what a person does, and sees, also in the URL."""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.ui.conftest import CARDS, HOSTILE_NAMES, Gallery, select_button, start_server
from tests.ui.test_browser import Visit
from tests.ui.test_discover import seen  # noqa: F401 - a fixture
from ui.keys import Action, Key

pytestmark = pytest.mark.browser
GROUP_CARDS, MAP = f".st-key-{Key.GROUPS} li", f".st-key-{Key.MAP} section"


@pytest.fixture(scope="module")
def surveyed(seen: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, str]]:  # noqa: F811
    process, address = start_server(
        tmp_path_factory.mktemp("home"), "ui", "--collection", str(seen.place), "--port", "0"
    )
    yield seen, address
    process.kill()
    process.communicate()


@pytest.fixture
def visit(browser, surveyed: tuple[Gallery, str]) -> Iterator[Visit]:
    one = Visit(browser, surveyed[1])
    yield one
    # A page that is opened by its own address: Streamlit asks below it first, where nothing is. And a browser without a
    # graphics card says that its own drawing is slow.
    complaints = [text for text in one.complaints if "404" not in text and "GL Driver Message" not in text]
    one.context.close()
    assert not complaints and all(url.startswith((surveyed[1], "data:", "blob:")) for url in one.requests)


def open_at(visit: Visit, address: str, selector: str) -> None:
    visit.page.goto(visit.server + address)
    visit.page.locator(selector).first.wait_for()
    settle(visit)


def settle(visit: Visit) -> None:
    visit.page.wait_for_timeout(250)
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
    more = card.locator("nav")
    assert more.evaluate("nav => getComputedStyle(nav).opacity") == "0"
    card.scroll_into_view_if_needed()
    card.hover()
    box = card.bounding_box()
    visit.page.mouse.move(box["x"] + 43, box["y"] + 43)
    visit.wait_until(f"getComputedStyle(document.querySelector(`{CARDS}:has(button[value='{six}']) nav`)).opacity == 1")
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
    field = visit.page.locator(f".st-key-{Key.AT_LEAST} input")
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


def test_near_duplicates_are_told_apart_in_the_page(visit: Visit, surveyed: tuple[Gallery, str]):
    gallery, _ = surveyed
    open_at(visit, "/duplicates", f".st-key-{Key.DUPLICATES} li")
    buttons = visit.page.get_by_role("button", name="is no duplicate")
    assert buttons.count() == 2
    buttons.first.click()
    visit.page.get_by_text("1 pair was told apart.").wait_for()
    settle(visit)
    visit.page.get_by_role("button", name="Take back").click()
    visit.wait_until(f"document.querySelectorAll('.st-key-{Key.DUPLICATES} li').length === 3")


def test_a_hostile_file_name_stays_text_everywhere(visit: Visit, surveyed: tuple[Gallery, str]):
    content_hash = surveyed[0].find_hash(HOSTILE_NAMES[1])
    for address, selector in ((f"/?image={content_hash}", f"{CARDS} img"), ("/?show=unusual", f"{CARDS} img")):
        open_at(visit, address, selector)
        assert visit.page.locator(f'img[alt*="{HOSTILE_NAMES[1]}"]').count() >= 1
        assert visit.page.locator("img[src='x']").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/", "/?show=unusual", "/map", "/duplicates", "/favourites"])
def test_nothing_stands_beside_a_narrow_page(browser, surveyed: tuple[Gallery, str], address: str, scheme: str):
    narrow = Visit(browser, surveyed[1], viewport={"width": 390, "height": 844}, color_scheme=scheme)
    open_at(narrow, address, f".st-key-{Key.FOOTER}")
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 390
    narrow.context.close()
