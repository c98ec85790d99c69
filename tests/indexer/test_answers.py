"""Answers between two similarities: listed, counted, paged; and how an answer says that it was found."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.collection import Answer, Collection, Filter, Neighbour, Query, Term
from indexer.errors import QueryError
from indexer.schema import connect_to_write
from indexer.snapshot import ROUNDING, Snapshot
from tests.indexer.making_rows import draw_embeddings, keep_rows

COUNT, DIMENSION, GONE = 90, 12, (4, 40, 71)
QUERIES = st.integers(1, COUNT).filter(lambda number: number not in GONE)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Ninety embeddings, thirty of them three times; three images are gone; what is compared in bulk is inexact."""
    distinct = draw_embeddings(COUNT, DIMENSION, seed=5)
    distinct[1::3], distinct[2::3] = distinct[0::3], distinct[0::3]
    place = keep_rows(tmp_path_factory.mktemp("between") / "place", distinct)
    with closing(connect_to_write(place / "catalog.sqlite")) as writer:
        writer.execute(f"DELETE FROM files WHERE image_id IN {GONE}")
    compare_all = Snapshot.compare_all

    def compare_roughly(snapshot: Snapshot, query: np.ndarray) -> np.ndarray:
        cosines, random = compare_all(snapshot, query), np.random.default_rng(0)
        return cosines + random.uniform(-0.8 * ROUNDING, 0.8 * ROUNDING, cosines.shape).astype(np.float32)

    with pytest.MonkeyPatch.context() as patch, Collection(place) as opened:
        patch.setattr(Snapshot, "compare_all", compare_roughly)
        yield opened


def cut(whole: list[Neighbour], low: float | None, high: float | None) -> list[int]:
    """The images between two bounds, by the similarities shown; the query's own counts as 1."""
    shown = [(one.image_id, 1.0 if one.is_same else one.similarity) for one in whole]
    return [number for number, one in shown if (low is None or one >= low) and (high is None or one <= high)]


@settings(max_examples=80, deadline=None)
@given(
    own=QUERIES, ends=st.tuples(*[st.none() | st.integers(0, 86) | st.floats(-1, 1)] * 2),
    size=st.integers(1, 30), data=st.data(),
)  # fmt: skip
def test_what_lies_between_two_similarities_is_listed_counted_and_paged_alike(
    collection: Collection, own: int, ends: tuple, size: int, data: st.DataObject
):
    query = data.draw(st.sampled_from([Query.of(own), Query(Term(own), Term(own % 3 + 1, weight=-0.6))]))
    whole = collection.find(query, COUNT).neighbours
    assert len(whole) == COUNT - len(GONE)
    # A whole number is a place in the ranking: a bound that is a similarity exactly.
    bounds = [whole[end].similarity if isinstance(end, int) else end for end in ends]
    if None not in bounds:
        bounds.sort()
    wish = {"at_least": bounds[0], "at_most": bounds[1]}
    expected = cut(whole, *bounds)
    assert collection.count_similar(query, **wish) == len(expected)
    pages = [collection.find(query, size, first=first, **wish).neighbours for first in range(0, COUNT, size)]
    found = [one for page in pages for one in page]
    assert [one.image_id for one in found] == expected
    assert [one.rank for one in found] == list(range(1, len(found) + 1))
    similarities = {one.image_id: one.similarity for one in whole}
    assert all(one.similarity == similarities[one.image_id] for one in found)


def test_the_image_itself_counts_as_1_for_every_bound(collection: Collection):
    nearly = float(np.nextafter(1.0, 0.0))
    for own in (number for number in range(1, COUNT + 1) if number not in GONE):
        (first, *_) = collection.find(Query.of(own), at_least=1.0, at_most=1.0).neighbours
        assert first.image_id == own and first.is_same
        below = collection.find(Query.of(own), COUNT, at_most=nearly).neighbours
        assert own not in {one.image_id for one in below}
        counts = [collection.count_similar(Query.of(own), **ends) for ends in ({"at_least": 1.0}, {"at_most": nearly})]
        assert sum(counts) == COUNT - len(GONE) and counts[1] == len(below)


def test_thousands_above_the_upper_bound_hide_nothing(tmp_path: Path):
    near = np.tile([1.0, 0, 0, 0], (5000, 1))
    below = np.array([[np.cos(angle), np.sin(angle), 0, 0] for angle in (0.5, 0.6, 2.0)])
    with Collection(keep_rows(tmp_path / "place", np.concatenate([near, below]))) as collection:
        found = collection.find(Query.of(1), 10, at_most=0.99)
        assert [one.image_id for one in found.neighbours] == [5001, 5002, 5003]
        assert [one.rank for one in found.neighbours] == [1, 2, 3] and found.is_exact
        assert collection.count_similar(Query.of(1), at_least=0.0, at_most=0.99) == 2
        assert collection.count_similar(Query.of(1), at_least=0.99) == 5000


@pytest.mark.parametrize(("wish", "said"), [
    ({"count": 0}, "count is 0 and first is 0; allowed are 1 or more, and 0 or more"),
    ({"first": -1}, "allowed are"),
    ({"at_least": 1.5}, "is 1.5; allowed are -1 to 1"),
    ({"at_most": float("nan")}, "is nan; allowed are -1 to 1"),
    ({"at_least": 0.5, "at_most": 0.4}, "at least 0.5 and at most 0.4. Swap"),
])  # fmt: skip
def test_a_part_of_the_ranking_that_there_cannot_be_is_refused(collection: Collection, wish: dict, said: str):
    with pytest.raises(QueryError, match=said):
        collection.find(Query.of(1), **wish)


def test_an_answer_says_whether_it_is_exact_and_what_the_generation_finds(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    rank = Snapshot.rank

    def note(snapshot: Snapshot, *arguments: object, is_exact: bool = False, **more: object) -> object:
        asked.append(is_exact)
        return rank(snapshot, *arguments, is_exact=True, **more)

    monkeypatch.setattr(Snapshot, "rank", note)
    monkeypatch.setattr(Snapshot, "is_answered_exactly", lambda snapshot, allowed: False)
    monkeypatch.setattr(Snapshot, "read_recall", lambda snapshot, allowed: 0.975)

    def tell(answer: Answer) -> tuple[bool, float]:
        return answer.is_exact, answer.recall

    assert tell(collection.find(Query.of(1), where=Filter(least_bytes=1))) == (False, 0.975)
    assert tell(collection.find(Query.of(1), is_exact=True)) == (True, 1.0)
    assert asked == [False, True]
    assert tell(collection.find(Query.of(1), at_most=0.5)) == (True, 1.0)
    # Neither is asked of the index: every row is compared.
    assert collection.count_similar(Query.of(1)) == COUNT - len(GONE) and len(asked) == 2
