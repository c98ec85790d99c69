"""How the pages look in a real Chromium: in light, in dark, and on a visit.

Rule: what is measured is what is drawn; no test knows a colour of the theme.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.conftest import CARDS, Gallery, select_button
from tests.ui.test_browser import PATIENCE, QUIET, Visit
from ui.keys import Action, Key

pytestmark = pytest.mark.browser
TEXTS = """() => {
  const brush = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    .getContext('2d', {willReadFrequently: true});
  const read = (color) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = color;
    brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const lay = (top, share, ground) => ground.map((under, i) => top[i] * share + under * (1 - share));
  const drawn = new Map([[null, [255, 255, 255]]]);
  const draw = (element) => {
    if (!drawn.has(element)) {
      const style = getComputedStyle(element), color = read(style.backgroundColor);
      drawn.set(element, lay(color, color[3] * style.opacity, draw(element.parentElement)));
    }
    return drawn.get(element);
  };
  const shine = (color) => color.slice(0, 3)
    .map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const measure = (element) => {
    let share = 1;
    for (let up = element; up; up = up.parentElement) share *= getComputedStyle(up).opacity;
    return share;
  };
  const compare = (element, style, ground) => {
    const share = measure(element);
    const color = read(style.color);
    const [dark, bright] = [shine(lay(color, color[3] * share, ground)), shine(ground)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const shown = [];
  const look = (element, text, part) => {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element, part);
    if (!text.trim() || !box.width || !box.height || element.closest(':disabled, [data-testid=stIconMaterial]')) return;
    if (!measure(element)) return;  // A slider's ends are in sight while it is pointed at.
    const own = part && read(style.backgroundColor);
    // The number of a slider's knob stands above the knob, not on it.
    const under = draw(element.closest('[data-testid=stSliderThumbValue]')?.closest('.stSlider') ?? element);
    const ground = own && own[3] ? lay(own, own[3], under) : under;
    shown.push({text: text.trim(), ratio: compare(element, style, ground), is_dark: shine(ground) < 0.2});
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) look(texts.currentNode.parentElement, texts.currentNode.data, null);
  for (const input of document.querySelectorAll('input[placeholder]')) look(input, input.placeholder, '::placeholder');
  for (const element of document.body.querySelectorAll('*')) {
    const content = getComputedStyle(element, '::after').content;
    if (/^".*[a-z]/.test(content)) look(element, content, '::after');
  }
  return shown;
}"""
"""Every text in sight, and how far it stands out from what lies under it (WCAG 2, relative luminance)."""


@pytest.fixture(params=[{}])
def visit(browser, server: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A tab; a test may say what its browser is like."""
    visit = Visit(browser, server, **request.param)
    yield visit
    visit.context.close()
    assert not visit.complaints


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
LIGHT, DARK = {"color_scheme": "light"}, {"color_scheme": "dark"}


def require_contrast(visit: Visit, *expected: str) -> list[dict]:
    """These texts are in sight, and no text is fainter than 4.5 : 1. Returns: what `TEXTS` found."""
    for _ in range(PATIENCE // QUIET):
        visit.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
        visit.page.wait_for_timeout(QUIET)  # What fades in has done so.
        shown = visit.page.evaluate(TEXTS)
        if set(expected) <= {one["text"] for one in shown}:
            break
    assert set(expected) <= {one["text"] for one in shown}, shown
    assert not [one for one in shown if one["ratio"] < 4.5]
    return shown


@pytest.mark.parametrize("visit", [LIGHT, DARK], indirect=True, ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(visit: Visit, gallery: Gallery, tmp_path: Path):
    image = gallery.find_hash("picture-05.jpg")
    is_dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    visit.open(f"/?image={image}")
    visit.settle()
    visit.page.mouse.move(0, 0)
    visit.page.locator(select_button(Action.SIMILAR, image)).hover()
    shown = require_contrast(visit, "24", "0.00", "1.000", '"Find similar" / ""', "Start over")
    assert {one["is_dark"] for one in shown if one["text"] == "1.000"} == {is_dark}
    visit.page.locator(select_button(Action.OPEN, image)).click()
    visit.page.get_by_role("dialog").locator(f".st-key-{Key.LARGE_SIMILAR} button").wait_for()
    visit.wait_for_pictures()
    require_contrast(visit, "Find similar", "Download")
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("link", name="Status", exact=True).click()
    visit.page.get_by_text("Kept uploads").wait_for()
    require_contrast(visit, "Kept uploads", "Failed")
    visit.page.get_by_role("link", name="Not searchable", exact=True).click()
    visit.page.get_by_text("Download all as CSV").wait_for()
    require_contrast(visit, "Download all as CSV", "What to do")
    visit.page.goto(f"{visit.server}/?image={image}&page=40")
    visit.page.get_by_text("There is nothing on page 40.").wait_for()
    require_contrast(visit, "…", "40")
    (tmp_path / "no picture.jpg").write_bytes(b"no picture")
    visit.page.locator("input[type=file]").set_input_files(tmp_path / "no picture.jpg")
    visit.page.get_by_text("cannot be searched with").wait_for()
    require_contrast(visit, "Start over", "…")


@pytest.mark.parametrize("visit", [PHONE], indirect=True, ids=["phone"])
def test_on_a_phone_the_ways_to_the_pages_are_in_sight_and_cover_nothing(visit: Visit):
    visit.open()
    for name in ("Status", "Not searchable"):
        visit.page.get_by_role("link", name=name, exact=True).tap()
        heading = visit.page.get_by_role("heading", name=name)
        heading.wait_for()
        box = heading.bounding_box()
        place = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        assert visit.page.evaluate("place => document.elementFromPoint(...place).innerText", place) == name
    links = visit.page.locator(f".st-key-{Key.MENU} a")
    boxes = links.evaluate_all("links => links.map((link) => link.getBoundingClientRect().toJSON())")
    logo = visit.page.get_by_test_id("stHeaderLogo").bounding_box()
    edges = [logo["x"] + logo["width"], *(box[side] for box in boxes for side in ("left", "right")), 390]
    assert len(boxes) == 6 and edges == sorted(edges)


@pytest.mark.parametrize("visit", [PHONE], indirect=True, ids=["phone"])
def test_on_a_phone_the_table_is_read_from_top_to_bottom(visit: Visit):
    visit.open()
    visit.page.get_by_role("link", name="Not searchable", exact=True).tap()
    cells = visit.page.locator(f".st-key-{Key.TABLE} tbody tr:first-child td")
    cells.first.wait_for()
    assert cells.nth(2).get_attribute("data-name") == "What to do"
    boxes = cells.evaluate_all("cells => cells.map((cell) => cell.getBoundingClientRect().toJSON())")
    assert len(boxes) == 4
    assert all(box["left"] >= 0 and box["width"] > 300 and box["right"] <= 390 for box in boxes)
    assert all(upper["bottom"] <= lower["top"] + 1 for upper, lower in zip(boxes, boxes[1:], strict=False))
    assert visit.page.evaluate(
        f"[...document.querySelectorAll('.st-key-{Key.TABLE} td')].every(cell => cell.scrollWidth <= cell.clientWidth)"
    )


def test_no_card_is_framed_before_somebody_points_at_it(visit: Visit):
    visit.open()
    names, frames = visit.list_names(), f"{CARDS} button[name={Action.SIMILAR}]"
    framed = f"[...document.querySelectorAll('{frames}')].filter(one => getComputedStyle(one).outlineStyle !== 'none')"
    visit.page.locator(frames).nth(8).click()
    visit.wait_for_query(names[8])
    visit.settle()
    box = visit.page.locator(frames).nth(8).bounding_box()
    assert visit.page.evaluate(f"{framed}.length") == 0
    visit.page.mouse.move(box["x"] + 20, box["y"] + 30)
    visit.wait_until(f"{framed}.length === 1")
