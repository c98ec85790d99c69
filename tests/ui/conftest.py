"""Fixtures: a collection with everything a page must cope with, a real server on it, and a real browser.

Rule: built and started once for all tests of the page, and read-only from then on; a test that changes a collection
takes a copy.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.browser import BROWSERS, SHELL, find_browser, open_browser
from indexer.collection import Collection
from tests.conftest import fail_in_ci_else_skip
from tests.indexer.making import build, draw
from ui.keys import Action, Key
from ui.resources import LOADING, choose_collection

REPOSITORY = Path(__file__).resolve().parents[2]
HOSTILE_NAMES = (
    "[x](javascript:alert(1)).jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "**bold** :smile: $x^2$ -> `c`.jpg",
)
CARDS = f".st-key-{Key.GALLERY} li"
DESK = {"viewport": {"width": 1440, "height": 900}}
BUG_SECRET = "what only the terminal may show"
BROKEN = 55
"""Files that cannot be read: more than one page of them."""


@dataclass(frozen=True)
class Gallery:
    """A collection of 30 images and the folder that they come from."""

    pictures: Path
    place: Path

    def open(self) -> Collection:
        return Collection(self.place)

    def find_hash(self, name: str) -> str:
        """The content hash of the image with this file name."""
        with self.open() as collection:
            images = collection.list_images(count=1000)
            return next(image.content_hash for image in images for path in image.paths if path.name == name)


@pytest.fixture(scope="session", autouse=True)
def scanned_once() -> Iterator[None]:
    """For each page that AppTest opens Streamlit reads what every installed package says of itself: 0.2 s a test."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """26 drawn pictures (one of them in two files), three with hostile names, a TIFF, and files that are broken."""
    folder = tmp_path_factory.mktemp("gallery")
    pictures, place = folder / "pictures", folder / "collection"
    for seed in range(26):
        draw(pictures / f"picture-{seed:02d}.jpg", seed, quality=92)
    (pictures / "copies").mkdir()
    shutil.copy(pictures / "picture-03.jpg", pictures / "copies" / "the-same.jpg")
    for seed, name in enumerate(HOSTILE_NAMES, start=100):
        draw(pictures / name, seed)
    draw(pictures / "scan.tiff", 200)
    for number in range(BROKEN):
        (pictures / f"broken-{number:02d}.jpg").write_bytes(b"not a picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEER_HOME", str(folder / "home"))
        report = build(place, pictures, batch_size=16)
    assert (report.images, report.failed) == (30, BROKEN)
    return Gallery(pictures, place)


@pytest.fixture
def shown(gallery: Gallery) -> Iterator[Gallery]:
    """The gallery, chosen for the pages of this process."""
    choose_collection(gallery.place)
    yield gallery
    choose_collection(None)


@pytest.fixture(scope="session", autouse=True)
def models_are_loaded() -> Iterator[None]:
    """A model that is still loading when Python ends would abort it."""
    yield
    for thread in threading.enumerate():
        if thread.name == LOADING:
            thread.join(60)


@pytest.fixture(scope="session")
def near_copy(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller, coarser copy of picture-07.jpg: content that the collection does not have."""
    path = tmp_path_factory.mktemp("queries") / "near-copy.jpg"
    with Image.open(gallery.pictures / "picture-07.jpg") as picture:
        picture.resize((100, 86)).save(path, quality=50)
    return path


@pytest.fixture(scope="session")
def server(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`seer ui` on the gallery, as a person starts it. Yields: its address."""
    home = tmp_path_factory.mktemp("server-home")
    process, address = start_server(home, "ui", "--collection", str(gallery.place), "--port", "0")
    yield address
    process.kill()
    process.communicate()


class Server(subprocess.Popen):
    """What it complains of is read all the while: it would wait for ever to write into a pipe that is full."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._complaints: list[str] = []
        stream, self.stderr = self.stderr, None
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream) -> None:
        with stream:
            self._complaints.extend(stream)

    def communicate(self, *arguments: object, **options: object) -> tuple[str, str]:
        """As that of `Popen`."""
        said, _ = super().communicate(*arguments, **options)
        self._reader.join(30)
        return said, "".join(self._complaints)


def start_server(home: Path, *arguments: str, before: str = "", **more: str) -> tuple[Server, str]:
    """Start a `seer` command that ends in serving the page.

    Args: before: Python to run before the command; more: variables of its environment.
    Returns: the process, and the address that it printed.
    """
    environment = {**os.environ, "HOME": str(home), "SEER_HOME": str(home / "seer"), **more}
    # Whoever runs the tests in the background may have told all of them to be deaf to Ctrl-C; a terminal does not.
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = Server(
        [sys.executable, "-c", f"{hear}\n{before}\nfrom ui.cli import main; main(prog_name='seer')", *arguments],
        cwd=REPOSITORY,
        env=environment,
    )
    for line in process.stdout:
        if line.startswith("The page is at "):
            return process, line.split()[4]
    raise AssertionError(f"no page: {process.communicate()[1]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A real Chromium."""
    path = find_browser((SHELL, *BROWSERS))
    if path is None:
        fail_in_ci_else_skip("There is no Chromium here; make test installs it where apt-get is.")
    with open_browser(path) as chromium:
        yield chromium


@pytest.fixture(scope="session")
def desk(browser) -> Iterator[object]:
    """One of its profiles, with a cache: most of what a first visit fetches is the same for all tests."""
    context = browser.new_context(**DESK)
    yield context
    context.close()


def select_button(action: Action, content_hash: str) -> str:
    """The CSS selector of a button of a card."""
    return f'{CARDS} button[name={action}][value="{content_hash}"]'
