"""An image opened large, and what its files may have become meanwhile: gone, edited, pruned away."""

import errno
import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from streamlit.testing.v1 import AppTest

from indexer import originals
from indexer.upkeep import prune_collection
from tests.indexer.making import build, draw
from tests.ui.conftest import Gallery
from tests.ui.test_pages import list_cards, list_pictures, open_page, press, read_cards, read_texts
from ui.keys import Action, Key
from ui.large import AWAY, CHANGED, GONE
from ui.resources import choose_collection


@pytest.fixture
def own(tmp_path: Path) -> Gallery:
    """Ten pictures that a test may change."""
    for seed in range(10):
        draw(tmp_path / "pictures" / f"picture-{seed:02d}.jpg", seed)
    build(tmp_path / "place", tmp_path / "pictures")
    choose_collection(tmp_path / "place")
    yield Gallery(tmp_path / "pictures", tmp_path / "place")
    choose_collection(None)


def open_large(content_hash: str, **parameters: str) -> AppTest:
    page = open_page(**parameters)
    press(page, Action.OPEN, content_hash)
    assert not page.exception
    return page


def find_large_picture(page: AppTest, name: str) -> str:
    """The address of the large picture's last one of this name."""
    return [picture.url for picture in list_pictures(page) if picture.alt == name][-1]


def test_an_original_that_is_there_is_shown_itself_with_its_neighbours(own: Gallery):
    five = own.find_hash("picture-05.jpg")
    page = open_large(five)
    assert find_large_picture(page, "picture-05.jpg").endswith(f"/o/{five}") and not page.warning
    cards = read_large_cards(page)
    with own.open() as collection:
        expected = collection.find_similar_to(collection.find_image(five), 7)
    assert [card["image"] for card in cards] == [one.content_hash for one in expected if one.content_hash != five]
    assert all(card["is_large"] for card in cards) and not any(card["is_large"] for card in read_cards(page))


def read_large_cards(page: AppTest) -> list[dict]:
    found = [one.proto for one in page.get("bidi_component") if one.proto.id.endswith(f"-{Key.LARGE_GALLERY}")]
    return json.loads(found[0].json)


def test_how_it_was_taken_is_told(own: Gallery):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "<b>EOS</b>"
    draw(own.pictures / "shot.jpg", 50, exif=exif)
    build(own.place, own.pictures)
    assert "camera: <b>EOS</b>" in read_texts(open_large(own.find_hash("shot.jpg")))


@pytest.mark.parametrize(("change", "said"), [("edit", CHANGED), ("delete", GONE)])
def test_an_original_that_is_not_what_it_was_is_its_thumbnail_and_a_sentence(own: Gallery, change: str, said: str):
    path, five = own.pictures / "picture-05.jpg", own.find_hash("picture-05.jpg")
    path.unlink() if change == "delete" else path.write_bytes(path.read_bytes() + b"!")
    page = open_large(five)
    assert find_large_picture(page, "picture-05.jpg").endswith(f"/t/{five}.webp")
    assert [box.value for box in page.warning] == [said]
    assert not [link for link in page.get("link_button") if link.proto.label == "Download"]


def test_an_original_that_cannot_be_read_now_is_not_called_gone(own: Gallery, monkeypatch: pytest.MonkeyPatch):
    def read(_: Path) -> tuple:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(originals, "read_whole", read)
    page = open_large(own.find_hash("picture-05.jpg"))
    assert [box.value for box in page.warning] == [AWAY]


def test_beside_a_query_whose_original_is_gone_stands_its_thumbnail(own: Gallery):
    five, six = (own.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    (own.pictures / "picture-05.jpg").unlink()
    page = open_page(image=five)
    page.session_state[Key.WHY] = "Beside the query"
    press(page, Action.OPEN, six)
    urls = {picture.alt: picture.url for picture in list_pictures(page)}
    assert urls["Query, picture 1"].endswith(f"/t/{five}.webp") and urls["picture-06.jpg"].endswith(f"/o/{six}")


def test_a_generation_that_is_pruned_while_it_is_looked_at(own: Gallery):
    five, six = (own.find_hash(f"picture-0{number}.jpg") for number in (5, 6))
    page = open_page(image=five, count="12")
    assert len(list_cards(page)) == 10
    (own.pictures / "picture-06.jpg").unlink()
    build(own.place, own.pictures)
    prune_collection(own.place)
    # What is pressed was drawn before.
    press(page, Action.SIMILAR, six)
    assert "no longer, in the collection" in page.warning[0].value and not page.exception
    page = open_page(image=five, count="12")
    assert len(list_cards(page)) == 9
