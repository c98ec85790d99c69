"""Filters: which rows of a store may be answered, against Python over the same files; and answers among them."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.collection import Collection, Filter, Query, Term
from indexer.errors import QueryError
from indexer.schema import connect_to_write
from tests.indexer.making_rows import Kept, draw_embeddings, keep_rows

COUNT, DIMENSION = 80, 8
PARTS = (b"a", b"ab", b"a%", b"a_b", b"A", b"caf\xe9", b"b c")
"""Names that begin alike, hold what SQL reads as any letter, or are not UTF-8."""
FIRST_DAY = date(2024, 2, 27)


def draw_kept(seed: int) -> Kept:
    """One to three files in random folders, on random days."""
    random = np.random.default_rng(seed)
    files = []
    for number in range(random.integers(1, 4)):
        folders = [PARTS[part] for part in random.integers(0, len(PARTS), random.integers(0, 4))]
        path = b"/".join([b"/pictures", *folders, b"%d-%d.jpg" % (seed, number)])
        moment = datetime.combine(FIRST_DAY, datetime.min.time()) + timedelta(minutes=int(random.integers(0, 7 * 1440)))
        files.append((path, int(moment.timestamp()) * 10**9))
    width, height = random.integers(50, 60, 2).tolist()
    kind = ("JPEG", "PNG", "RAW")[random.integers(0, 3)]
    return Kept(tuple(files), int(random.integers(90, 110)), width, height, kind)


KEPT = [draw_kept(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    place = tmp_path_factory.mktemp("filtered") / "place"
    with Collection(keep_rows(place, draw_embeddings(COUNT, DIMENSION, seed=3), KEPT)) as opened:
        yield opened


def passes(number: int, kept: Kept, where: Filter) -> bool:
    """What a filter means, in Python."""
    least, most = where.since or date.min, where.until or date.max
    return (
        (where.least_bytes or 0) <= kept.size_bytes <= (where.most_bytes or 10**9)
        and (where.least_px or 0) <= min(kept.width, kept.height) <= (where.most_px or 10**9)
        and (not where.formats or kept.format in where.formats)
        and (not where.shapes or name_shape(kept) in where.shapes)
        and (where.images is None or number in where.images)
        and any(
            least <= datetime.fromtimestamp(mtime_ns / 1e9).date() <= most
            and (not where.under or any(lies_in(path, folder) for folder in where.under))
            for path, mtime_ns in kept.files
        )
    )


def name_shape(kept: Kept) -> str:
    if max(kept.width, kept.height) <= 1.05 * min(kept.width, kept.height):
        return "square"
    return "landscape" if kept.width > kept.height else "portrait"


def lies_in(path: bytes, folder: Path) -> bool:
    return folder in Path(path.decode("utf-8", "surrogateescape")).parents


def name_folder(parts: list[bytes]) -> Path:
    return Path("/pictures", *(part.decode("utf-8", "surrogateescape") for part in parts))


DAYS = st.none() | st.integers(0, 6).map(lambda days: FIRST_DAY + timedelta(days=days))
FOLDERS = st.lists(st.lists(st.sampled_from(PARTS), max_size=2).map(name_folder), max_size=2)
NUMBERS = st.none() | st.lists(st.integers(1, COUNT + 5), max_size=COUNT)


@settings(max_examples=120, deadline=None)
@given(
    under=FOLDERS, since=DAYS, until=DAYS, formats=st.lists(st.sampled_from(["JPEG", "png", "RAW"]), max_size=2),
    least_bytes=st.none() | st.integers(88, 112), least_px=st.none() | st.integers(48, 62),
    most_px=st.none() | st.integers(48, 62), images=NUMBERS,
    shapes=st.lists(st.sampled_from(["landscape", "portrait", "square"]), max_size=2),
    own=st.integers(1, COUNT), count=st.integers(1, COUNT),
)  # fmt: skip
def test_an_answer_holds_the_nearest_of_what_passes_and_no_other(
    collection: Collection, own: int, count: int, **given: object
):
    try:
        where = Filter(**given)
    except QueryError:
        assert (given["since"] and given["until"]) or (given["least_px"] and given["most_px"])
        return
    passing = [number for number, kept in enumerate(KEPT, start=1) if passes(number, kept, where)]
    if not passing:
        with pytest.raises(QueryError, match="No image passes the filter"):
            collection.find(Query.of(own), count, where=where)
        return
    assert collection.count_images(where) == collection.count_similar(Query.of(own), where=where) == len(passing)
    assert collection._catalog.list_rows(1, COUNT, where).tolist() == [number - 1 for number in passing]
    everything = [one.image_id for one in collection.find_similar_to(own, COUNT)]
    expected = [number for number in everything if number in passing]
    for ask in ({}, {"at_most": 1.0}, {"is_exact": True}):
        found = collection.find(Query.of(own), count, where=where, **ask).neighbours
        assert [one.image_id for one in found] == expected[:count], ask
        assert [one.rank for one in found] == list(range(1, len(found) + 1))


def test_a_folder_is_found_by_its_link_and_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    kept = [Kept(((bytes(tmp_path / "real" / "below" / "1.jpg"), 0),)), Kept(((bytes(tmp_path / "2.jpg"), 0),))]
    monkeypatch.chdir(tmp_path)
    with Collection(keep_rows(tmp_path / "place", draw_embeddings(2, 4, seed=0), kept)) as collection:
        for folder in ("link/below", "real/../real", tmp_path / "link"):
            assert collection.count_images(Filter(under=[folder])) == 1
        assert collection.count_images(Filter(under=["/", "real"])) == 2


def test_a_removal_applies_at_once_to_a_filter_that_was_asked_before(tmp_path: Path):
    place = keep_rows(tmp_path / "place", draw_embeddings(5, 4, seed=0))
    where = Filter(formats=["jpeg"])
    with Collection(place) as collection, closing(connect_to_write(place / "catalog.sqlite")) as writer:
        assert collection.count_images(where) == 5
        writer.execute("DELETE FROM files WHERE image_id = 2")
        assert collection.count_images(where) == 4
        assert 2 not in {one.image_id for one in collection.find(Query.of(1), 9, where=where).neighbours}
        for number in range(40):
            collection.count_images(Filter(least_bytes=number))
        assert collection._catalog._select_rows_once.cache_info().currsize <= 8


def test_a_filter_that_leaves_nothing_says_what_each_part_lets_through(collection: Collection):
    where = Filter(under=["/pictures/nowhere"], formats=["RAW"], images=range(1, 4))
    raws = sum(kept.format == "RAW" for kept in KEPT)
    told = f"in /pictures/nowhere: 0; RAW: {raws}; among 3 given: 3"
    with pytest.raises(QueryError, match=told):
        collection.count_images(where)


def test_a_collection_without_images_needs_no_looser_filter(tmp_path: Path):
    with Collection(keep_rows(tmp_path / "place", np.empty((0, 4)), ())) as collection:
        assert collection.count_images(Filter(formats=["PNG"])) == 0
        assert collection.find(Query(Term(np.ones(4))), where=Filter(formats=["PNG"])).neighbours == []


@pytest.mark.parametrize(("values", "said"), [
    ({"formats": ["EPS"]}, "no format EPS; allowed are JPEG, PNG"),
    ({"since": date(2024, 2, 2), "until": date(2024, 2, 1)}, "nothing lies between"),
    ({"least_bytes": 2, "most_bytes": 1}, "nothing lies between"),
    ({"since": date(1, 1, 1)}, "allowed are the years 1900 to 2261"),
    ({"until": date.max}, "allowed are the years"),
    ({"under": [f"/{number}" for number in range(101)]}, "101 folders"),
])  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused(values: dict, said: str):
    with pytest.raises(QueryError, match=said):
        Filter(**values)


def test_the_ends_of_what_can_be_asked_for_are_answered(collection: Collection):
    wide = Filter(
        since=date(1900, 1, 1), until=date(2261, 12, 31), least_bytes=0, most_bytes=10**40, least_px=0, most_px=10**40,
        under=["/"] * 100,
    )  # fmt: skip
    assert collection.count_images(wide) == COUNT
    with pytest.raises(QueryError, match="No image passes"):
        collection.count_images(Filter(least_bytes=10**40))
