"""The page of what cannot be searched: every file once, under its kind, with what to do; and the table for download."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.proto.BidiComponent_pb2 import BidiComponent
from streamlit.testing.v1 import AppTest

from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw
from tests.ui.conftest import BROKEN, REPOSITORY, Gallery
from tests.ui.test_pages import open_page
from ui.keys import Key
from ui.resources import choose_collection, the_collection

VIEW = str(REPOSITORY / "ui" / "views" / "not_searchable.py")


def open_list(**parameters: str) -> AppTest:
    page = open_page()
    page.switch_page(VIEW)
    for name, value in parameters.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def find_tables(page: AppTest) -> list[BidiComponent]:
    return [one.proto for one in page.get("bidi_component") if one.proto.id.endswith(f"-{Key.TABLE}")]


def read_rows(page: AppTest) -> list[dict[str, str]]:
    return json.loads(find_tables(page)[0].json)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with 55 files that are no pictures, three that are empty, and one that is still to be read."""
    folder = tmp_path_factory.mktemp("troubled")
    pictures = folder / "pictures"
    draw(pictures / "good.png", 1)
    for number in range(BROKEN):
        (pictures / f"broken-{number:02d}.jpg").write_bytes(b"not a picture")
    for number in range(3):
        (pictures / f"empty-{number}.jpg").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        pixel_backbone.install(patch)
        build(folder / "place", pictures)
        draw(pictures / "late.png", 2)
        build(folder / "place", limit=0)
    return folder / "place"


@pytest.fixture
def mixed(troubled: Path) -> Iterator[Path]:
    """It, chosen for the pages of this process."""
    choose_collection(troubled)
    yield troubled
    choose_collection(None)


def test_every_file_is_listed_once_with_its_reason_and_what_to_do(shown: Gallery):
    page = open_list()
    rows = read_rows(page)
    assert len(rows) == 50
    page.get("pagination")[0].set_value(2).run()
    assert page.query_params == {"page": "2"}
    rows += read_rows(page)
    names = [shown.pictures / f"broken-{number:02d}.jpg" for number in range(BROKEN)]
    assert [row["File"] for row in rows] == list(map(str, names))
    assert all(len(row["Reason"]) > 10 and len(row["What to do"]) > 10 and row["Seen"] for row in rows)


def test_kinds_are_counted_and_one_is_shown_alone(mixed: Path):
    page = open_list()
    kinds = page.get("button_group")[0]
    assert kinds.options == ["All · 59", "Empty · 3", "Not a picture · 55", "Not read yet · 1"]
    kinds.set_value("Empty").run()
    assert page.query_params == {"kind": "Empty"}
    assert [Path(row["File"]).name for row in read_rows(page)] == ["empty-0.jpg", "empty-1.jpg", "empty-2.jpg"]
    assert {row["What to do"] for row in read_rows(page)} == {"Restore it from a copy."}
    page.get("button_group")[0].set_value("Not read yet").run()
    assert [(Path(row["File"]).name, row["What to do"]) for row in read_rows(page)] == [("late.png", "Run seer build.")]
    page.get("button_group")[0].set_value("All").run()
    assert not page.query_params and len(read_rows(page)) == 50


def test_a_link_opens_the_same_list_and_another_kind_begins_at_its_first_page(mixed: Path):
    page = open_list(kind="Not a picture", page="2")
    assert [Path(row["File"]).name for row in read_rows(page)] == [f"broken-{number}.jpg" for number in range(50, 55)]
    page.get("button_group")[0].set_value("Empty").run()
    assert page.query_params == {"kind": "Empty"} and len(read_rows(page)) == 3


@pytest.mark.parametrize(
    ("kind", "number"), [("No such kind", "1"), ("", "99999999"), ("<img src=x>", "-1"), ("All", "x")]
)
def test_a_url_that_makes_no_sense_shows_the_list(shown: Gallery, kind: str, number: str):
    assert read_rows(open_list(kind=kind, page=number))


def test_where_all_is_well_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixel_backbone.install(monkeypatch)
    draw(tmp_path / "pictures" / "a.png", 1)
    build(tmp_path / "place", tmp_path / "pictures")
    choose_collection(tmp_path / "place")
    page = open_list()
    assert "can be searched" in page.success[0].value and not find_tables(page)


def test_all_of_them_can_be_downloaded_as_a_table(mixed: Path):
    page = open_list(kind="Empty")
    button = page.get("download_button")[0]
    assert button.proto.label == "Download all as CSV" and button.proto.id.endswith(Key.FAILURE_TABLE)
    assert button.proto.ignore_rerun, "a run that the click begins may overtake the download and take it away"
    table = the_collection().export_unsearchable()
    rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))
    assert len(rows) == 59 and list(rows[0]) == ["file", "kind", "reason", "what to do", "seen"]
