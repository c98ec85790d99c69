"""The page with Milvus as its search engine: what it shows is what the index here would find."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import milvus
from indexer.collection import Collection, Filter, Query
from indexer.engine_publish import publish_collection
from tests.indexer.making_engines import let_go
from tests.ui.conftest import Gallery
from tests.ui.test_pages import list_cards, open_page, open_status, press, read_error, read_texts, upload
from ui.keys import Action
from ui.resources import choose_collection


@pytest.fixture(scope="module")
def engine(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the gallery is published."""
    file = tmp_path_factory.mktemp("engine") / "gallery.db"
    publish_collection(gallery.place, str(file))
    yield str(file)
    let_go(file)


@pytest.fixture
def shown_by_milvus(gallery: Gallery, engine: str) -> Iterator[Gallery]:
    """The gallery, chosen for the pages of this process, with its search engine."""
    choose_collection(gallery.place, search_engine=engine)
    yield gallery
    choose_collection(None)


def ask_here(gallery: Gallery, query: Query, count: int = 24, **wish: object) -> list[str]:
    """What the index here finds: content hashes."""
    with Collection(gallery.place) as collection:
        return [one.content_hash for one in collection.find(query, count, **wish).neighbours]


def test_the_walk_with_milvus_shows_what_the_index_here_would(shown_by_milvus: Gallery, near_copy: Path):
    page = open_page()
    assert len(list_cards(page)) == 30
    upload(page, near_copy)
    assert list_cards(page) == ask_here(shown_by_milvus, Query.of(near_copy.read_bytes()))
    assert any("searched approximately by Milvus, recall " in text for text in read_texts(page))
    following = list_cards(page)[3]
    press(page, Action.SIMILAR, following)
    assert list_cards(page)[0] == following
    with Collection(shown_by_milvus.place) as collection:
        image_id = collection.find_image(following)
    assert list_cards(page) == ask_here(shown_by_milvus, Query.of(image_id))
    linked = open_page(image=following, type="JPEG", exact="1")
    assert list_cards(linked) == ask_here(shown_by_milvus, Query.of(image_id), where=Filter(formats=["JPEG"]))
    assert any("searched exactly" in text for text in read_texts(linked))
    status = open_status()
    assert {metric.label: metric.value for metric in status.metric}["Images"] == "30"
    assert any(text.startswith("HNSW in milvus://") for text in read_texts(status))


def test_a_milvus_that_does_not_answer_is_one_sentence_on_the_page(gallery: Gallery, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(milvus, "PATIENCE_SECONDS", 0.0)
    choose_collection(gallery.place, search_engine="milvus://127.0.0.1:1/gallery")
    try:
        said = read_error(open_page())
        assert "Milvus does not answer at milvus:" in said and "127.0.0.1:1/gallery" in said
        assert "Traceback" not in said and said.count("\n") == 0
    finally:
        choose_collection(None)


def test_one_address_serves_all_collections_of_a_page_each_by_its_own_name(
    gallery: Gallery, engine: str, tmp_path: Path
):
    other = Path(shutil.copytree(gallery.place, tmp_path / "the other"))
    assert publish_collection(other, engine).engine.endswith("/the_other")
    choose_collection(gallery.place, other, search_engine=engine)
    try:
        for name in ("collection", "the other"):
            page = open_page(collection=name, image=gallery.find_hash("picture-03.jpg"))
            assert not page.error and len(list_cards(page)) == 24
            assert any("by Milvus" in text for text in read_texts(page))
    finally:
        choose_collection(None)
