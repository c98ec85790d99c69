"""Images that several files hold: found in the catalog, without hidden ones, and written as a table."""

import csv
import io
from pathlib import Path

import pytest

from indexer.collection import Collection, ImageKind
from indexer.exports import DUPLICATE_COLUMNS, export_copies
from tests.indexer.making import build, draw
from tests.indexer.making_rows import Kept, draw_embeddings, keep_rows

DAY = 86_400 * 10**9
FILES = (
    ((b"/a/one.jpg", 3 * DAY),),
    ((b"/a/two.jpg", 2 * DAY), (b"/b/two.jpg", 1 * DAY), (b"/c/two.jpg", 1 * DAY)),
    ((b"/a/three.jpg", 5 * DAY), (b"/b/=three.jpg", 4 * DAY)),
    ((b"/a/four.jpg", 0),),
    ((b"/b/\xff.jpg", 7 * DAY), (b"/a/\xff.jpg", 7 * DAY)),
)
"""Of each image its files, and when they were changed."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return keep_rows(tmp_path / "place", draw_embeddings(len(FILES), 8, 0), [Kept(files) for files in FILES])


def test_images_in_several_files_are_listed_with_the_oldest_file_of_each(place: Path):
    with Collection(place) as collection:
        found = [(one.image_id, one.count, str(one.oldest)) for one in collection.list_copies()]
    assert found == [(2, 3, "/b/two.jpg"), (3, 2, "/b/=three.jpg"), (5, 2, "/a/\udcff.jpg")]


def test_a_hidden_image_is_in_no_list_of_copies(place: Path):
    with Collection(place) as collection:
        collection.decisions.mark(ImageKind.HIDDEN, collection.read_image(3).content_hash)
        assert [one.image_id for one in collection.list_copies()] == [2, 5]
        assert b"three.jpg" not in export_copies(collection)


def test_every_file_stands_in_the_table_and_one_of_each_image_is_to_be_kept(place: Path):
    with Collection(place) as collection:
        written = export_copies(collection).decode("utf-8-sig")
    head, *rows = csv.reader(io.StringIO(written))
    assert tuple(head) == DUPLICATE_COLUMNS and [row[0] for row in rows] == ["1", "1", "1", "2", "2", "3", "3"]
    kept = [row[3].lstrip("'") for row in rows if row[1] == "keep"]
    assert kept[:2] == ["/b/two.jpg", "/b/=three.jpg"] and len(kept) == 3
    assert {row[2] for row in rows} == {"1.0"}


def test_what_no_generation_answers_with_and_what_is_gone_is_no_copy(tmp_path: Path):
    pictures, place = tmp_path / "pictures", tmp_path / "place"
    for name in ("a.png", "b.png"):
        draw(pictures / name, 1)
    build(place, pictures)
    draw(pictures / "c.png", 2)
    with Collection(place) as collection:
        (found,) = collection.list_copies()
        assert found.count == 2 and found.oldest.name == "a.png"
    (pictures / "a.png").unlink()
    build(place)
    with Collection(place) as collection:
        assert collection.list_copies() == []
