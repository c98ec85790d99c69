"""A tab of a real Chromium, and when in it a person sees what was asked for.

Seen is a component's list when its data are others than before, all of its pictures within the window are decoded, and
two frames have been drawn since. Times are the browser's own, from the event that it got (a click, a drop, the start of
a navigation) on; what the script that drives it takes is not in them.

Rule: it only acts and reads the clock; what a figure is worth, others judge.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ui.keys import Action, Key

SHELL = "chromium-headless-shell"
"""Chromium without a window: the same pages in a tenth less time. For tests: figures are of what people have."""
BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    # Where macOS keeps them; `which` takes a whole path too.
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
QUIET = (
    *("--no-sandbox", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
)
FLAGS = (*QUIET, "--disable-gpu")
WITHOUT_WEBGL = (*FLAGS, "--disable-3d-apis")
WINDOW = {"width": 1280, "height": 900}
GALLERY, GROUPS, MAP = f".st-key-{Key.GALLERY} ul", f".st-key-{Key.GROUPS} ul", f".st-key-{Key.MAP} section"
WATCH = """
for (const kind of ["click", "change", "pointerup"]) {
  addEventListener(kind, () => { window.acted = performance.now(); }, { capture: true });
}
const isSeen = (picture) => {
  const box = picture.getBoundingClientRect();
  return box.bottom < 0 || box.top > innerHeight || (picture.complete && picture.naturalWidth > 0);
};
window.untilSeen = (selector, before) => new Promise((resolve) => {
  const look = () => {
    const list = document.querySelector(selector);
    const isNew = list?.wanted !== undefined && list.wanted !== before && list.children.length > 0;
    if (!isNew || ![...list.querySelectorAll("img")].every(isSeen)) requestAnimationFrame(look);
    else requestAnimationFrame(() => requestAnimationFrame(resolve));
  };
  look();
});
window.untilDrawn = (selector) => new Promise((resolve) => {
  const look = (now) => {
    if (document.querySelector(selector)?.dataset.frames > 0) resolve(now); else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
window.countFrames = () => {
  const frames = { at: [performance.now()], going: true };
  const next = (now) => { frames.at.push(now); if (frames.going) requestAnimationFrame(next); };
  requestAnimationFrame(next);
  window.frames_ = frames;
};
"""


def find_browser(names: Sequence[str] = BROWSERS) -> str | None:
    """The first of these that this computer has."""
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def open_browser(path: str, flags: Sequence[str] = FLAGS) -> Iterator[Any]:
    """Start a Chromium that talks to nobody but the pages it is shown."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(flags))
        yield chromium
        chromium.close()


@dataclass(frozen=True, kw_only=True)
class Scroll:
    """What happened while a page was scrolled from its top to its end."""

    pixels: int
    frames: int
    seconds: float
    longest_frame_ms: float
    pictures: int
    """That were drawn by the end."""
    messages: int
    """Sent to the server meanwhile: none where no script ran again."""


class Tab:
    """One tab at the page's address."""

    def __init__(self, context: Any, address: str) -> None:
        context.add_init_script(WATCH)
        self.page, self._address, self.messages = context.new_page(), address, 0
        self.page.on("websocket", lambda socket: socket.on("framesent", self._count))

    def _count(self, _: object) -> None:
        self.messages += 1

    def open(self, path: str, selector: str) -> float:
        """Go to an address. Returns: ms from the start of the navigation until a list of pictures is seen."""
        self.page.goto(self._address + path, wait_until="commit")
        self._wait(selector)
        return self.page.evaluate("performance.now()")

    def act(self, do: Any, selector: str = GALLERY) -> float:
        """Do what changes a list of pictures. Returns: ms from the browser's event until the new one is seen."""
        before = self.page.evaluate("selector => document.querySelector(selector)?.wanted", selector)
        do()
        self._wait(selector, before)
        return self.page.evaluate("performance.now() - acted")

    def _wait(self, selector: str, before: str | None = None) -> None:
        self.page.evaluate("([selector, before]) => untilSeen(selector, before)", [selector, before])

    def settle(self) -> None:
        """Until the script has ended, too."""
        self.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()

    def click_neighbour(self, number: int) -> float:
        """Search on from a card. Returns: as `act`."""
        tile = self.page.locator(f"{GALLERY} button[name={Action.SIMILAR}]").nth(number)
        return self.act(tile.click)

    def upload(self, picture: Path) -> float:
        """Hand a picture to the uploader. Returns: as `act`."""
        field = self.page.locator("input[type=file]").first
        return self.act(lambda: field.set_input_files(picture))

    def count_objects_bytes(self) -> int:
        """What the tab's own objects take, after it has thrown away what it can."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        used = session.send("Runtime.getHeapUsage")["usedSize"]
        session.detach()
        return int(used)

    def scroll_down(self, step_px: int = 400) -> Scroll:
        """Turn the wheel until the end is reached."""
        self.settle()
        messages, main = self.messages, self.page.locator('[data-testid="stMain"]')
        main.hover()
        self.page.evaluate("countFrames()")
        left = "([main]) => main.scrollHeight - main.clientHeight - main.scrollTop"
        handle = main.element_handle()
        while self.page.evaluate(left, [handle]) > 1:
            self.page.mouse.wheel(0, step_px)
            self.page.wait_for_timeout(16)
        at = self.page.evaluate("(frames_.going = false, frames_.at)")
        count = "selector => [...document.querySelectorAll(selector)].filter(one => one.naturalWidth > 0).length"
        return Scroll(
            pixels=self.page.evaluate("([main]) => Math.round(main.scrollTop)", [handle]),
            frames=len(at) - 1,
            seconds=(at[-1] - at[0]) / 1000,
            longest_frame_ms=max(after - before for before, after in zip(at, at[1:], strict=False)),
            pictures=self.page.evaluate(count, f"{GALLERY} img"),
            messages=self.messages - messages,
        )

    def open_map(self) -> float:
        """Go to the map. Returns: ms from the start of the navigation until its points are drawn."""
        self.page.goto(self._address + "/map", wait_until="commit")
        drawn = self.page.evaluate("selector => untilDrawn(selector)", MAP)
        self.settle()
        return drawn

    def pan(self, seconds: float, reach_px: int = 150) -> float:
        """Draw the map around in circles. Returns: how often it was drawn in a second."""
        box = self.page.locator(MAP).bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        now = f"[performance.now(), Number(document.querySelector('{MAP}').dataset.frames)]"
        self.page.mouse.move(*middle)
        self.page.mouse.down()
        started, frames = self.page.evaluate(now)
        at, drawn = started, frames
        while at - started < seconds * 1000:
            turn = (at - started) / 300
            self.page.mouse.move(middle[0] + reach_px * math.cos(turn), middle[1] + reach_px * math.sin(turn))
            at, drawn = self.page.evaluate(now)
        self.page.mouse.up()
        return (drawn - frames) / (at - started) * 1000

    def draw_lasso(self, corners: Sequence[tuple[float, float]]) -> float:
        """Select what lies in a polygon of the map's own coordinates. Returns: as `act`."""
        self.page.locator(f"{MAP} button[name=whole]").click()
        self.page.locator(f"{MAP} button[name=lasso]").click()
        box = self.page.locator(MAP).bounding_box()
        place = f"corner => document.querySelector('{MAP}').view.toScreen(corner)"
        points = [self.page.evaluate(place, list(corner)) for corner in (*corners, corners[0])]
        for number, (x, y) in enumerate(points):
            self.page.mouse.move(box["x"] + x, box["y"] + y, steps=1 if number == 0 else 8)
            if number == 0:
                self.page.mouse.down()
        return self.act(self.page.mouse.up)
