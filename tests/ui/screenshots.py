"""The page as a person sees it, from the sample pictures: `python -m tests.ui.screenshots OUT [PAGES]`.

Writes search.png and start.png (those in the README), tray, why, map, duplicates, dark, phone, large and status; and
into the folder PAGES every page, light, dark and on a phone.

Rule: the same pictures, the same sizes and the same steps each time, so that two runs can be compared by eye.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from benchmarks.browser import BROWSERS, SHELL
from indexer.collection import Collection, ImageKind
from indexer.survey import survey_collection
from tests.indexer.making import build
from tests.ui.conftest import CARDS, find_browser, open_browser, select_button, start_server
from ui.keys import Action, Key
from ui.samples import gather_samples

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
QUERY = "cat.png"
PAGES = {
    "discover": "", "differ": "?show=differ", "map": "map", "duplicates": "duplicates", "favourites": "favourites",
    "not-searchable": "not-searchable", "status": "status",
}  # fmt: skip
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE}}


def main(out: Path, pages: Path | None = None) -> None:
    """Build the demo's collection, serve it, and take every picture."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        gather_samples(home / "pictures")
        (home / "pictures" / "broken.jpg").write_bytes(b"not a picture")
        build(home / "place", home / "pictures", batch_size=16)
        mark(home / "place")
        survey_collection(home / "place")
        content_hash = find_hash(home / "place", QUERY)
        process, server = start_server(home, "ui", "--collection", str(home / "place"), "--port", "0")
        try:
            with open_browser(find_browser((SHELL, *BROWSERS))) as browser:
                take_all(browser, server, content_hash, home)
                if pages is not None:
                    take_every_page(browser, server, content_hash, pages)
            shrink(home, out)
        finally:
            process.kill()
            process.communicate()


def take_all(browser, server: str, content_hash: str, out: Path) -> None:
    """Every picture, each in a tab of its own."""
    answer = f"{server}/?image={content_hash}"
    with open_page(browser, server) as page:
        page.screenshot(path=out / "start.png")
    with open_page(browser, answer) as page:
        page.screenshot(path=out / "search.png")
        page.locator(select_button(Action.OPEN, content_hash)).click()
        page.get_by_role("dialog").locator("img").wait_for()
        wait_for_pictures(page)
        page.screenshot(path=out / "large.png")
        page.get_by_text("Why it matched").click()
        page.locator("img[alt^='What matched']").wait_for()
        page.wait_for_timeout(800)
        page.screenshot(path=out / "why.png")
    with open_page(browser, answer) as page:
        for action, place in ((Action.PLUS, 7), (Action.MINUS, 12)):
            page.locator(f"{CARDS} button[name={action}]").nth(place).dispatch_event("click")
            page.wait_for_timeout(800)
            page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
        wait_for_pictures(page)
        page.screenshot(path=out / "tray.png")
    for name in ("map", "duplicates"):
        with open_page(browser, f"{server}/{name}") as page:
            page.wait_for_timeout(1500)
            page.screenshot(path=out / f"{name}.png")
    with open_page(browser, answer, color_scheme="dark") as page:
        page.screenshot(path=out / "dark.png")
    with open_page(browser, answer, viewport=PHONE) as page:
        page.screenshot(path=out / "phone.png")
    with open_page(browser, server) as page:
        page.get_by_role("link", name="Status").click()
        page.get_by_role("heading", name="Status").wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=out / "status.png")


def take_every_page(browser, server: str, content_hash: str, out: Path) -> None:
    """Each of them as each person sees it."""
    out.mkdir(parents=True, exist_ok=True)
    for name, path in {**PAGES, "search": f"?image={content_hash}"}.items():
        for look, options in LOOKS.items():
            with open_page(browser, f"{server}/{path}", **options) as page:
                page.screenshot(path=out / f"{name}-{look}.png")


def shrink(taken: Path, out: Path) -> None:
    """64 shades of each colour instead of 256: a third fewer bytes in a repository that keeps every version."""
    for path in taken.glob("*.png"):
        with Image.open(path) as picture:
            small = picture.convert("RGB").point(lambda shade: min(255, (shade + 2) // 4 * 4))
        small.save(out / path.name, optimize=True)


@contextmanager
def open_page(browser, address: str, **options: object) -> Iterator[object]:
    """A tab in which the page has come to rest and every picture has arrived."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    page = context.new_page()
    page.goto(address)
    page.locator(f".st-key-{Key.FOOTER}, [data-testid=stMain] h2").first.wait_for()
    page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
    wait_for_pictures(page)
    yield page
    context.close()


def wait_for_pictures(page) -> None:
    """Every picture in sight has arrived, and what fades in has done so."""
    seen = "[...document.images].filter(image => image.loading !== 'lazy')"
    for _ in range(100):
        # The page's policy forbids what `wait_for_function` would do in it.
        if page.evaluate(f"{seen}.every(image => image.complete)"):
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(1000)
    page.wait_for_timeout(500)


def mark(place: Path) -> None:
    """Some favourites."""
    with Collection(place) as collection:
        for image in collection.list_images(count=9)[::2]:
            collection.decisions.mark(ImageKind.FAVOURITE, image.content_hash)


def find_hash(place: Path, name: str) -> str:
    """The content hash of the image with this file name."""
    with Collection(place) as collection:
        images = collection.list_images(count=10_000)
    return next(image.content_hash for image in images if name in {path.name for path in image.paths})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
