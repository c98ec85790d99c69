"""Decisions: what people marked is there until they take it back, and a search goes by it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer import marks_file
from indexer.collection import Collection, Filter, Query
from indexer.decisions import MOST_LETTERS, Decisions, Kind
from indexer.errors import CatalogTooNew, CollectionDamaged, QueryError
from indexer.layout import MARKS
from indexer.marks import Marks
from indexer.marks_upkeep import examine_marks, save_readable
from tests.indexer.making import build
from tests.indexer.making_rows import draw_embeddings, keep_rows

ONE, OTHER, THIRD = (f"{number:064x}" for number in (1, 2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / MARKS


def test_an_image_is_marked_and_the_mark_is_taken_away(path: Path):
    decisions = Decisions(path)
    assert decisions.list_marked(Kind.FAVOURITE) == [] and not path.exists(), "asking makes no file"
    for content_hash in (ONE, OTHER, ONE):
        decisions.mark(Kind.FAVOURITE, content_hash)
    decisions.mark(Kind.HIDDEN, THIRD)
    assert Decisions(path).list_marked(Kind.FAVOURITE) == [ONE, OTHER]
    decisions.mark(Kind.FAVOURITE, ONE, is_so=False)
    decisions.mark(Kind.FAVOURITE, THIRD, is_so=False)
    assert decisions.list_marked(Kind.FAVOURITE) == [OTHER] and decisions.list_marked(Kind.HIDDEN) == [THIRD]


def test_a_pair_is_told_apart_from_either_side(path: Path):
    decisions = Decisions(path)
    decisions.tell_apart(OTHER, ONE)
    decisions.tell_apart(ONE, OTHER)
    assert decisions.list_apart() == {frozenset((ONE, OTHER))}
    decisions.tell_apart(OTHER, ONE, is_so=False)
    assert decisions.list_apart() == set()


def test_a_bookmark_gets_the_new_title_and_goes(path: Path):
    decisions = Decisions(path)
    decisions.keep_bookmark("image=1&count=12", "first")
    decisions.keep_bookmark("image=2", "é \udcff")
    decisions.keep_bookmark("image=1&count=12", "new")
    assert [(one.link, one.title) for one in decisions.list_bookmarks()] == [
        ("image=1&count=12", "new"), ("image=2", "é ?"),
    ]  # fmt: skip
    decisions.forget_bookmark("image=2")
    assert [one.title for one in decisions.list_bookmarks()] == ["new"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda decisions: decisions.mark(Kind.HIDDEN, "no hash"),
        lambda decisions: decisions.mark(Kind.HIDDEN, "00"),
        lambda decisions: decisions.tell_apart(ONE, ONE),
        lambda decisions: decisions.keep_bookmark("", "x"),
        lambda decisions: decisions.keep_bookmark("x" * (MOST_LETTERS + 1), "x"),
    ],
)
def test_what_makes_no_sense_is_a_sentence_and_is_not_kept(path: Path, wrong):
    with pytest.raises(QueryError):
        wrong(Decisions(path))
    assert not path.exists()


def test_uploads_and_decisions_lie_in_one_file_and_do_not_concern_each_other(path: Path):
    kept = Marks(path).keep_query(b"picture", "a.jpg")
    Decisions(path).mark(Kind.FAVOURITE, kept)
    Marks(path).forget_queries()
    assert Decisions(path).list_marked(Kind.FAVOURITE) == [kept]


def test_a_damaged_mark_is_told_and_the_others_are_saved(path: Path):
    decisions = Decisions(path)
    for content_hash in (ONE, OTHER):
        decisions.mark(Kind.FAVOURITE, content_hash)
    decisions.tell_apart(ONE, OTHER)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE marks SET made_at = 0 WHERE content_hash = ?", (bytes.fromhex(ONE),))
    with pytest.raises(CollectionDamaged, match="seer check --repair"):
        decisions.list_marked(Kind.FAVOURITE)
    assert examine_marks(path).readable == 2
    save_readable(path)
    assert decisions.list_marked(Kind.FAVOURITE) == [OTHER] and len(decisions.list_apart()) == 1
    assert examine_marks(path).fault is None


def test_marks_of_the_first_schema_are_taken_up_and_its_program_refuses_the_second(path: Path, monkeypatch):
    first = marks_file.MIGRATIONS[:1]
    with monkeypatch.context() as patch:
        patch.setattr(marks_file, "MIGRATIONS", first)
        kept = Marks(path).keep_query(b"picture", "a.jpg")
    Decisions(path).mark(Kind.HIDDEN, ONE)
    assert Marks(path).open_query(kept).picture == b"picture"
    monkeypatch.setattr(marks_file, "MIGRATIONS", first)
    with pytest.raises(CatalogTooNew):
        Marks(path).open_query(kept)


# --- in answers --------------------------------------------------------------------------------------------------

COUNT = 60


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return keep_rows(tmp_path / "rows", draw_embeddings(COUNT, 16, 0))


def hide(collection: Collection, image_ids: list[int]) -> None:
    for image_id in image_ids:
        collection.decisions.mark(Kind.HIDDEN, collection.read_image(image_id).content_hash)


@pytest.mark.parametrize("given", [{}, {"at_most": 1.0}, {"is_exact": True}, {"where": Filter(images=range(1, 41))}])
def test_hidden_images_are_in_no_answer_and_there_are_as_many_as_there_are(place: Path, given: dict):
    with Collection(place) as collection:
        before = [one.image_id for one in collection.find(Query.of(1), COUNT, **given).neighbours]
        hidden = before[1:50:2]
        hide(collection, hidden)
        found = collection.find(Query.of(1), COUNT, **given).neighbours
        assert [one.image_id for one in found] == [one for one in before if one not in hidden]
        assert [one.rank for one in found] == list(range(1, len(found) + 1))
        if not {"is_exact"} & set(given):
            counted = {name: value for name, value in given.items() if name != "is_exact"}
            assert collection.count_similar(Query.of(1), **counted) == len(found)


def test_all_that_passes_a_filter_may_be_hidden(place: Path):
    with Collection(place) as collection:
        hide(collection, [1, 2])
        with pytest.raises(QueryError, match="No image passes"):
            collection.find(Query.of(3), 5, where=Filter(images=[1, 2]))


def test_damaged_marks_hide_nothing_and_stop_no_search(place: Path, caplog: pytest.LogCaptureFixture):
    (place / MARKS).write_bytes(b"no database" * 100)
    with Collection(place) as collection:
        assert len(collection.find(Query.of(1), COUNT).neighbours) == COUNT
    assert "what people decided" in caplog.text


@pytest.mark.usefixtures("by_pixels")
def test_decisions_hold_through_a_rebuild_and_another_model(place: Path, pictures: Path, tmp_path: Path):
    made = tmp_path / "made"
    build(made, pictures)
    with Collection(made) as collection:
        (first, second, *_) = collection.list_images()
        collection.decisions.mark(Kind.HIDDEN, first.content_hash)
        collection.decisions.tell_apart(first.content_hash, second.content_hash)
    shutil.rmtree(made / "generations")
    build(made, model="seer-mini#gem")
    with Collection(made) as collection:
        assert first.content_hash not in {one.content_hash for one in collection.find_similar_to(second.image_id, 99)}
        assert collection.decisions.list_apart() == {frozenset((first.content_hash, second.content_hash))}


def test_images_are_compared_with_each_other(place: Path):
    with Collection(place) as collection:
        cosines = collection.compare_images([3, 1, 999])
        _, rows = collection.read_embeddings()
        wide = rows.astype(np.float64)
        expected = wide[2] @ wide[0] / np.linalg.norm(wide[2]) / np.linalg.norm(wide[0])
    assert cosines[0, 1] == pytest.approx(expected, abs=1e-6) and cosines[0, 0] == pytest.approx(1)
    assert (cosines[2] == -1).all()
