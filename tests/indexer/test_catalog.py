"""The catalog: transactions whole or not at all, newer schemas refused, odd folder names told apart."""

import sqlite3
from pathlib import Path

import pytest

from indexer.catalog import Catalog, Entry
from indexer.catalog_reader import CatalogReader
from indexer.errors import CatalogTooNew, CollectionDamaged

STAMP = (10, 1, 0)


@pytest.fixture
def catalog(tmp_path: Path):
    catalog = Catalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


def entry(path: str, content: bytes, row: int | None = None, **more: object) -> Entry:
    size_bytes, mtime_ns, _ = STAMP
    return Entry(path=path, size_bytes=size_bytes, mtime_ns=mtime_ns, content_hash=content, row=row, **more)


def test_a_batch_that_fails_leaves_nothing_of_itself(catalog: Catalog):
    catalog.record_walk([("/p/1", *STAMP), ("/p/2", *STAMP)])
    store = catalog.open_store("f", 4, "m")
    with pytest.raises(sqlite3.IntegrityError):
        catalog.record(store, [entry("/p/1", b"1", row=0), entry("/p/2", b"2", row=0)])
    assert (catalog.count_rows(store), catalog.count_work(store)) == (0, 2)


def test_a_store_that_lost_rows_goes_on_under_a_new_number(catalog: Catalog):
    catalog.record_walk([(f"/p/{number}", *STAMP) for number in range(4)])
    store = catalog.open_store("f", 4, "m")
    catalog.record(store, [entry(f"/p/{number}", b"%d" % number, row=number) for number in range(4)])
    new = catalog.find_next_store()
    catalog.replace_store(store, new, 2)
    assert catalog.open_store("f", 4, "m") == new != store
    assert [work.path for work in catalog.list_work(new)] == ["/p/2", "/p/3"]
    assert (catalog.count_rows(store), catalog.count_rows(new)) == (0, 2)


def test_only_images_of_the_same_size_are_candidates_for_known_content(catalog: Catalog):
    catalog.record_walk([("/p/1", 10, 1, 0), ("/p/2", 11, 1, 0), ("/q/same", 10, 5, 0)])
    store = catalog.open_store("f", 4, "m")
    catalog.record(store, [entry("/p/1", b"ten", row=0)])
    known = {work.path: work.known for work in catalog.list_work(store)}
    assert known == {"/p/2": (), "/q/same": (b"ten",)}


def test_folders_are_told_apart_to_the_letter(catalog: Catalog):
    catalog.record_walk([("/a/Photos_1/x", *STAMP), ("/a/photos_1/x", *STAMP), ("/a/Photos%1/x", *STAMP)])
    for folder in ("/a/Photos_1", "/a/photos_1", "/a/Photos%1"):
        assert len(catalog.record_walk([], kept=[folder])) == 2
        catalog.record_walk([("/a/Photos_1/x", *STAMP), ("/a/photos_1/x", *STAMP), ("/a/Photos%1/x", *STAMP)])


def test_a_store_that_is_opened_again_is_the_same_and_the_one_in_use(catalog: Catalog):
    first, second = catalog.open_store("f", 4, "one"), catalog.open_store("g", 4, "two")
    assert catalog.read_model() == "two"
    assert catalog.open_store("f", 4, "one") == first != second
    assert catalog.read_model() == "one"
    catalog.drop_stores({second})
    assert catalog.open_store("f", 4, "one") > second


def test_a_catalog_of_a_later_version_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "catalog.sqlite"
    Catalog(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opening in (Catalog, CatalogReader):
        with pytest.raises(CatalogTooNew, match="schema 99"):
            opening(path)


def test_a_file_that_is_no_catalog_is_refused_with_a_sentence(tmp_path: Path):
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"this is not a database, " * 50)
    for opening in (Catalog, CatalogReader):
        with pytest.raises(CollectionDamaged, match="cannot be read as a catalog"):
            opening(path)


def test_a_reader_sees_what_is_committed_while_the_writer_goes_on(catalog: Catalog, tmp_path: Path):
    catalog.record_walk([("/p/1", *STAMP), ("/p/2", *STAMP)])
    store = catalog.open_store("f", 4, "m")
    reader = CatalogReader(tmp_path / "catalog.sqlite")
    catalog.record(store, [entry("/p/1", b"1", row=0, width=3, height=2, format="PNG")])
    assert reader.list_living([1, 2]) == {1}
    assert reader.read_images([1])[1].paths == [Path("/p/1")]
    reader.close()
