"""What is searched with: several pictures with weights, embeddings, and parts of pictures, against numpy."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.collection import Collection, Query, Region, Term
from indexer.errors import QueryError
from indexer.queries import combine
from seer_model.errors import PictureError
from tests.indexer.making import build, draw
from tests.indexer.making_rows import draw_embeddings, keep_rows

COUNT, DIMENSION = 60, 24
WEIGHTS = st.floats(0.1, 3).flatmap(lambda size: st.sampled_from([size, -size]))


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Sixty embeddings in all directions."""
    place = tmp_path_factory.mktemp("scattered") / "place"
    with Collection(keep_rows(place, draw_embeddings(COUNT, DIMENSION, seed=1))) as collection:
        yield collection


def compute_cosines(collection: Collection, vector: np.ndarray) -> np.ndarray:
    """(N,) float64, from the rows as they are stored."""
    rows = collection.read_embeddings()[1].astype(np.float64)
    return rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)


@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(1, COUNT), WEIGHTS), max_size=4),
    outside=st.lists(st.tuples(st.integers(0, 99), WEIGHTS), max_size=2),
    count=st.integers(1, 2 * COUNT),
)
def test_several_terms_are_searched_with_as_their_weighted_sum(
    scattered: Collection, images: list, outside: list, count: int
):
    ids, rows = scattered.read_embeddings()
    wide = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    strangers = {seed: draw_embeddings(1, DIMENSION, seed=1000 + seed)[0] for seed, _ in outside}
    total = sum(weight * wide[number - 1] for number, weight in images)
    total = total + sum(weight * strangers[seed] for seed, weight in outside)
    if np.linalg.norm(total) < 0.05:
        return  # next to no direction: refused, or all rounding
    # Of any length: only the direction of an embedding counts.
    terms = [Term(number, weight) for number, weight in images]
    terms += [Term(strangers[seed] * 7, weight) for seed, weight in outside]
    answer = scattered.find(Query(*terms), count)
    expected = compute_cosines(scattered, total)
    assert (answer.is_exact, answer.recall, answer.generation) == (True, 1.0, "000001")
    assert len(answer.neighbours) == min(count, COUNT)
    assert [one.rank for one in answer.neighbours] == list(range(1, min(count, COUNT) + 1))
    shown = [one.similarity for one in answer.neighbours]
    np.testing.assert_allclose(shown, expected[[one.image_id - 1 for one in answer.neighbours]], atol=2e-6)
    np.testing.assert_allclose(shown, np.sort(expected)[::-1][:count], atol=2e-6)


def test_what_is_taken_away_comes_last_and_nothing_is_called_the_same(scattered: Collection):
    answer = scattered.find(Query(Term(3, weight=-1.0)), COUNT).neighbours
    assert answer[-1].image_id == 3 and answer[-1].similarity == pytest.approx(-1, abs=1e-6)
    both = scattered.find(Query(Term(3), Term(3)), COUNT).neighbours
    assert both[0].image_id == 3 and not any(one.is_same for one in both)


def test_one_image_with_any_weight_above_0_is_the_plain_query(scattered: Collection):
    plain = scattered.find_similar_to(5, 9)
    assert scattered.find(Query(Term(5, weight=0.01)), 9).neighbours == plain
    assert plain[0].is_same and plain[0].image_id == 5


@pytest.mark.parametrize(("terms", "said"), [
    ([Term(4), Term(4, weight=-1.0)], "cancel each other out"),
    ([Term(np.full(DIMENSION, np.nan))], "zero or not finite"),
    ([Term(np.zeros(DIMENSION))], "zero or not finite"),
    ([Term(np.r_[np.inf, np.ones(DIMENSION - 1)])], "zero or not finite"),
    ([Term(np.ones(DIMENSION + 1))], rf"shape \({DIMENSION + 1},\); the collection's have {DIMENSION} numbers"),
    ([Term(np.ones((1, DIMENSION)))], "shape"),
    ([Term(0)], "Image 0 is not in the collection"),
    ([Term(10**30), Term(1)], "is not in the collection"),
])  # fmt: skip
def test_a_query_without_a_direction_is_refused(scattered: Collection, terms: list[Term], said: str):
    for ask in (scattered.find, scattered.count_similar):
        with pytest.raises(QueryError, match=said):
            ask(Query(*terms))


@pytest.mark.parametrize("weight", [0, float("nan"), float("inf"), float("-inf"), -2e6])
def test_a_weight_that_says_nothing_is_refused(weight: float):
    with pytest.raises(QueryError, match="allowed are numbers up to 1e.06 other than 0"):
        Term(1, weight=weight)


def test_a_query_of_nothing_and_a_part_of_an_embedding_are_refused():
    with pytest.raises(QueryError, match="nothing to search with"):
        Query()
    with pytest.raises(QueryError, match="no part"):
        Term(np.ones(3), region=Region(0, 0, 1, 1))


@pytest.mark.parametrize("size", [1e-320, 1e-30, 1e308])
def test_the_length_of_an_embedding_does_not_count_however_long(size: float):
    np.testing.assert_allclose(combine([np.array([size, 0]), np.array([0, 5.0])], [1, -1], 2), [0.5**0.5, -(0.5**0.5)])


# --- parts of pictures -------------------------------------------------------------------------------------------


@pytest.fixture
def built(place: Path, pictures: Path, by_pixels: None) -> Path:
    build(place, pictures)
    return place


def test_a_part_is_searched_with_as_if_it_had_been_cut_out_before(built: Path, pictures: Path, tmp_path: Path):
    file, region = pictures / "a" / "picture-3.png", Region(20, 11, 64, 77)
    with Image.open(file) as picture:
        picture.crop((20, 11, 84, 88)).save(tmp_path / "part.png")
    with Collection(built) as collection:
        image_id = collection.find_similar(file.read_bytes(), 1)[0].image_id
        expected = collection.find_similar((tmp_path / "part.png").read_bytes(), 9)
        assert not any(one.is_same for one in expected)
        assert collection.find(Query(Term(file.read_bytes(), region=region)), 9).neighbours == expected
        assert collection.find(Query(Term(image_id, region=region)), 9).neighbours == expected
        # Nor is one part of a picture taken for another that was asked about before.
        other = collection.find(Query(Term(image_id, region=Region(0, 0, 20, 20))), 9).neighbours
        assert [one.similarity for one in other] != [one.similarity for one in expected]
        file.unlink()
        with pytest.raises(QueryError, match=f"No file of image {image_id} holds it any more"):
            collection.find(Query(Term(image_id, region=region)))


def test_a_part_outside_of_its_picture_is_refused_and_named(built: Path, tmp_path: Path):
    query = draw(tmp_path / "query.png", seed=99).read_bytes()
    wrong = Term(query, region=Region(100, 0, 41, 20), name="query.png")
    with Collection(built) as collection, pytest.raises(PictureError, match=r"query\.png .* 100,0,41,20 .*140 x 120"):
        collection.find(Query(wrong))
