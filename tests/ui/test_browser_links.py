"""Links to uploads, and the list of what cannot be searched, in a real Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from tests.ui.conftest import BROKEN, Gallery, start_server
from tests.ui.test_browser import Visit
from ui.keys import Key
from ui.uploads import GONE, NOT_WANTED

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def own_server(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`seer ui` on a copy of the gallery. Yields: its address."""
    folder = tmp_path_factory.mktemp("own-server")
    shutil.copytree(gallery.place, folder / "place")
    process, address = start_server(folder, "ui", "--collection", str(folder / "place"), "--port", "0")
    yield address
    process.kill()
    process.communicate()


@pytest.fixture
def visit(browser, desk, own_server: str) -> Iterator[Visit]:
    visit = Visit(browser, own_server, desk)
    yield visit
    visit.close()
    assert not visit.complaints
    assert not [url for url in visit.requests if not url.startswith((own_server, "data:", "blob:"))]


def read_parameters(visit: Visit) -> dict[str, list[str]]:
    return parse_qs(urlsplit(visit.page.evaluate("location.href")).query)


def drop(visit: Visit, path: Path) -> None:
    visit.page.locator("input[type=file]").set_input_files(path)
    visit.wait_for_query(path.name)


def test_a_link_to_an_upload_outlives_a_reload_opens_elsewhere_and_ends_when_it_is_forgotten(
    visit: Visit, browser, near_copy: Path
):
    visit.open()
    drop(visit, near_copy)
    found = visit.list_names()
    assert found[0] == "picture-07.jpg" and len(read_parameters(visit)["query"][0]) == 64
    link = visit.page.evaluate("location.pathname + location.search")
    visit.page.reload()
    visit.wait_for_query(near_copy.name)
    assert visit.list_names() == found

    other = Visit(browser, visit.server)
    other.open(link)
    other.wait_for_query(near_copy.name)
    assert other.list_names() == found
    other.page.get_by_text("Kept for its link until ").wait_for()
    other.page.locator(f".st-key-{Key.FORGET} button").click()
    other.page.get_by_text("Forgotten.").wait_for()
    other.page.wait_for_url(lambda url: "query=" not in url)
    other.context.close()

    visit.open(link)
    visit.page.get_by_text(GONE).wait_for()
    assert len(visit.list_names()) == 30


def test_back_leaves_the_upload_and_forward_returns_to_it(visit: Visit, near_copy: Path):
    visit.open()
    start = visit.list_names()
    drop(visit, near_copy)
    found = visit.list_names()
    visit.page.go_back()
    visit.page.get_by_text("Begin with one of these").wait_for()
    assert visit.list_names() == start
    visit.page.go_forward()
    visit.wait_for_query(near_copy.name)
    assert visit.list_names() == found


def test_what_the_page_shows_of_an_upload_says_nothing_of_where_it_was_taken(
    visit: Visit, gallery: Gallery, tmp_path: Path
):
    exif = Image.Exif()
    exif[0x010E] = "at my grandmother's"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    with Image.open(gallery.pictures / "picture-01.jpg") as picture:
        picture.resize((70, 60)).save(tmp_path / "gps.jpg", exif=exif)
    assert b"grandmother" in (tmp_path / "gps.jpg").read_bytes()
    visit.open()
    drop(visit, tmp_path / "gps.jpg")
    source = visit.page.locator(f".st-key-{Key.QUERY} img").get_attribute("src")
    answer = visit.page.request.get(source if source.startswith("http") else visit.server + source)
    assert answer.ok and b"grandmother" not in answer.body() and b"Exif" not in answer.body()
    content_hash = read_parameters(visit)["query"][0]
    for place in (f"/t/{content_hash}.webp", f"/o/{content_hash}", f"/o/{content_hash}?download"):
        assert visit.page.request.get(visit.server + place).status == 404


def test_all_kept_uploads_are_forgotten_on_the_status_page(visit: Visit, near_copy: Path):
    visit.open()
    drop(visit, near_copy)
    link = visit.page.evaluate("location.pathname + location.search")
    visit.page.get_by_role("link", name="Status").click()
    visit.page.locator(f".st-key-{Key.FORGET_ALL} button").click()
    visit.page.locator(f".st-key-{Key.FORGET_ALL}").wait_for(state="detached")
    visit.open(link)
    visit.page.get_by_text(GONE).wait_for()


@pytest.mark.long
def test_no_kept_uploads_is_what_the_command_says(browser, gallery: Gallery, near_copy: Path, tmp_path: Path):
    arguments = ("--collection", str(gallery.place), "--port", "0", "--no-kept-uploads")
    process, address = start_server(tmp_path, "ui", *arguments)
    visit = Visit(browser, address)
    visit.open()
    drop(visit, near_copy)
    visit.page.get_by_text(NOT_WANTED).wait_for()
    assert visit.list_names()[0] == "picture-07.jpg" and set(read_parameters(visit)) == {"own"}
    visit.context.close()
    process.kill()
    process.communicate()


def test_what_cannot_be_searched_is_counted_filtered_and_downloaded(visit: Visit):
    visit.open()
    visit.page.get_by_role("link", name="Not searchable").click()
    visit.page.get_by_role("heading", name="Not searchable").wait_for()
    visit.page.locator(f".st-key-{Key.TABLE} td").first.wait_for()
    visit.page.get_by_role("radio", name=f"Not a picture · {BROKEN}").click()
    visit.page.wait_for_url("**/not-searchable?kind=Not+a+picture")
    visit.page.get_by_role("button", name="Page 2", exact=True).click()
    visit.page.wait_for_url("**page=2*")
    # A click on a table that is being drawn anew goes nowhere.
    visit.page.locator(f".st-key-{Key.TABLE}").get_by_text(f"broken-{BROKEN - 1}.jpg").first.wait_for()
    visit.page.locator('.stApp[data-test-script-state="notRunning"]').wait_for()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download all as CSV").click()
    assert download.value.suggested_filename == "not-searchable.csv"
    assert len(Path(download.value.path()).read_text("utf-8-sig").splitlines()) == 1 + BROKEN
    visit.page.go_back()
    visit.page.wait_for_url(lambda url: "page=" not in url)
    visit.page.go_back()
    visit.page.wait_for_url("**/not-searchable")
    visit.page.get_by_role("radio", name=f"All · {BROKEN}", checked=True).wait_for()
