"""The survey and what is read from it: groups, exemplars, outliers, a map, near-duplicates; stopped, damaged, grown."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer import survey as conductor
from indexer.clustering import count_groups
from indexer.collection import Collection, ImageKind
from indexer.generations import open_generation
from indexer.overview import Overview, choose_reference
from indexer.schema import connect_to_write
from indexer.sights import compare_with_mean, find_outliers, fit_into_square, flatten, pick_exemplars
from indexer.survey import survey_collection
from indexer.survey_folder import Part, read_part, write_part
from indexer.unfolding import can_unfold
from tests.indexer.making_rows import add_rows, draw_embeddings, keep_rows

KINDS, EACH, DIMENSION = 6, 40, 24


def draw_kinds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows about six places, shuffled, and the place of each."""
    random = np.random.default_rng(seed)
    kinds = random.permutation(np.arange(KINDS).repeat(EACH))
    rows = random.normal(size=(KINDS, DIMENSION))[kinds] + 0.35 * random.normal(size=(len(kinds), DIMENSION))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), kinds


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return keep_rows(tmp_path / "rows", draw_kinds()[0])


@pytest.fixture
def surveyed(place: Path):
    survey_collection(place)
    with Collection(place) as collection:
        yield Overview(collection)


def list_numbers(images: list) -> list[int]:
    return [image.image_id for image in images]


def test_a_survey_makes_all_parts_once(place: Path):
    report = survey_collection(place)
    expected = ["groups", "map", "neighbour graph", "outliers"] + ["unfolded map"] * can_unfold()
    assert (list(report.made), report.missing, report.images) == (expected, (), KINDS * EACH)
    assert survey_collection(place).made == ()
    with Collection(place) as collection:
        state = Overview(collection).read_state()
    assert state.is_whole and state.map_by == ("t-SNE" if can_unfold() else "pca")


def test_groups_hold_look_alikes_and_every_image_once(surveyed: Overview):
    kinds = draw_kinds()[1]
    groups = surveyed.list_groups()
    assert sum(group.size for group in groups) == KINDS * EACH
    assert [group.size for group in groups] == sorted((group.size for group in groups), reverse=True)
    seen, right = [], 0
    for group in groups:
        numbers = list_numbers(surveyed.list_group(group.number, count=1000))
        assert len(numbers) == group.size == surveyed.count_group(group.number)
        assert numbers[0] == group.images[0].image_id, "the most typical one stands for it"
        parts, inside = surveyed.list_groups(group.number), []
        for part in parts:
            within = list_numbers(surveyed.list_group(group.number, part.number, count=999))
            right += np.bincount(kinds[np.array(within) - 1]).max()
            inside += within
        assert sorted(inside) == sorted(numbers) and sum(part.size for part in parts) == group.size
        seen += numbers
    assert sorted(seen) == list(range(1, KINDS * EACH + 1)) and right >= 0.8 * len(seen)
    first = surveyed.list_group(0, first=5, count=7)
    assert list_numbers(first) == list_numbers(surveyed.list_group(0, count=12))[5:]
    assert surveyed.list_group(99) == [] and surveyed.count_group(99) == 0 and surveyed.list_groups(99) == []


def test_exemplars_are_far_from_each_other(surveyed: Overview):
    kinds = draw_kinds()[1]
    taken = kinds[np.array(list_numbers(surveyed.list_exemplars(count=KINDS))) - 1]
    assert len(set(taken.tolist())) >= KINDS - 1


def test_farthest_points_are_those_found_by_hand():
    rows = np.eye(4, dtype=np.float16).repeat(3, axis=0)
    taken = pick_exemplars(rows, np.ones(12, np.float32), np.arange(12), np.ones(12, np.float32))
    assert len(taken) == 12 and set(taken[:4] // 3) == {0, 1, 2, 3}


def test_an_image_that_nothing_is_like_is_the_oddest(tmp_path: Path):
    rows, _ = draw_kinds()
    odd = draw_embeddings(3, DIMENSION, 99)
    place = keep_rows(tmp_path / "odd", np.concatenate([rows, -odd]))
    survey_collection(place)
    with Collection(place) as collection:
        found = Overview(collection).list_outliers(6)
        graph = collection.read_graph()
    assert {one.image.image_id for one in found} >= {241, 242, 243}
    for one in found:
        assert one.likeness == pytest.approx(graph[2][one.image.image_id - 1].mean(), abs=1e-5)


def test_outliers_of_what_has_no_neighbours():
    nothing = np.full((3, 2), -1, np.int32), np.full((3, 2), -np.inf, np.float32)
    rows, likeness = find_outliers(*nothing, np.array([0, 2]), np.array([0.5, 0.1], np.float32))
    assert rows.tolist() == [2, 0] and likeness.tolist() == [0, 0]


def test_the_middle_is_the_mean_row():
    rows = draw_embeddings(50, 8, 1).astype(np.float16)
    norms, chosen = np.linalg.norm(rows.astype(np.float32), axis=1), np.arange(0, 50, 2)
    unit = rows[chosen].astype(np.float64) / norms[chosen, None]
    mean = unit.mean(axis=0)
    np.testing.assert_allclose(
        compare_with_mean(rows, norms, chosen), unit @ mean / np.linalg.norm(mean), atol=1e-3
    )


def test_the_map_is_that_of_principal_components():
    rows = (draw_kinds()[0] * np.linspace(2, 0.1, DIMENSION)).astype(np.float16)
    norms, chosen = np.linalg.norm(rows.astype(np.float32), axis=1), np.arange(len(rows))
    unit = rows.astype(np.float64) / norms[:, None]
    values = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    flat = flatten(rows, norms, chosen)
    assert (flat.astype(np.float64) ** 2).sum() == pytest.approx((values[:2] ** 2).sum(), rel=0.01)
    places = fit_into_square(flat)
    assert places.dtype == np.float32 and abs(places).max() <= 1
    assert fit_into_square(np.empty((0, 2))).shape == (0, 2) and (fit_into_square(np.ones((5, 2))) == 0).all()


def test_the_map_has_every_image_with_its_group(surveyed: Overview):
    found = surveyed.read_map()
    assert found.places.shape == (KINDS * EACH, 2) and abs(found.places).max() <= 1
    assert sorted(found.image_ids.tolist()) == list(range(1, KINDS * EACH + 1))
    sizes = np.bincount(found.groups)
    assert sizes.tolist() == [group.size for group in surveyed.list_groups()]


@pytest.mark.skipif(not can_unfold(), reason="openTSNE is not installed")
def test_look_alikes_stand_together_on_an_unfolded_map(surveyed: Overview):
    found, kinds = surveyed.read_map(), draw_kinds()[1]
    assert found.how == "t-SNE"
    apart = np.linalg.norm(found.places[:, None] - found.places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1)[:, :5]
    own = kinds[found.image_ids - 1]
    assert (own[nearest] == own[:, None]).mean() >= 0.9


def test_gone_and_hidden_images_are_nowhere(surveyed: Overview, place: Path):
    collection = surveyed._collection
    hidden = surveyed.list_group(0, count=3)
    gone = surveyed.list_group(1, count=2)
    for image in hidden:
        collection.decisions.mark(ImageKind.HIDDEN, image.content_hash)
    with closing(connect_to_write(place / "catalog.sqlite")) as connection:
        for image in gone:
            connection.execute("DELETE FROM files WHERE image_id = ?", (image.image_id,))
    away = set(list_numbers(hidden + gone))
    groups = surveyed.list_groups()
    assert sum(group.size for group in groups) == KINDS * EACH - 5
    shown = [group.images for group in groups] + [surveyed.list_group(n, count=999) for n in range(len(groups))]
    shown += [surveyed.list_exemplars(99), surveyed.surprise(1, 999)]
    shown += [[one.image for one in surveyed.list_outliers(999)]]
    shown += [one.images for one in surveyed.find_duplicates(at_least=0.5)]
    assert not away & {number for images in shown for number in list_numbers(images)}
    assert not away & set(surveyed.read_map().image_ids.tolist())


def test_surprises_are_the_same_for_the_same_seed(surveyed: Overview):
    first = list_numbers(surveyed.surprise(7, 10))
    assert first == list_numbers(surveyed.surprise(7, 10)) != list_numbers(surveyed.surprise(8, 10))
    assert len(set(first)) == 10


# --- near-duplicates ---------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path):
    """Rows of which the first three have near-copies at the end."""
    rows = draw_embeddings(60, 64, 3)
    near = rows[[0, 0, 1, 2]] + 0.02 * draw_embeddings(4, 64, 4)
    place = keep_rows(tmp_path / "copied", np.concatenate([rows, near / np.linalg.norm(near, axis=1, keepdims=True)]))
    survey_collection(place)
    with Collection(place) as collection:
        yield Overview(collection)


def list_groups_of(overview: Overview) -> list[set[int]]:
    found = [set(list_numbers(one.images)) for one in overview.find_duplicates(at_least=0.9)]
    assert [len(one) for one in found] == sorted(map(len, found), reverse=True)
    return sorted(found, key=min)


def test_near_duplicates_are_found_and_told_apart_for_good(copied: Overview):
    assert list_groups_of(copied) == [{1, 61, 62}, {2, 63}, {3, 64}]
    collection = copied._collection
    one, other = (collection.read_image(number).content_hash for number in (2, 63))
    collection.decisions.tell_apart(one, other)
    assert list_groups_of(copied) == [{1, 61, 62}, {3, 64}]
    collection.decisions.tell_apart(other, one, is_so=False)
    assert len(list_groups_of(copied)) == 3
    (first, *_) = copied.find_duplicates(at_least=0.9)
    assert first.similarities[0] == 1.0 and first.similarities[1:] == sorted(first.similarities[1:], reverse=True)


def test_the_bound_of_a_mode_is_what_the_words_say(copied: Overview, monkeypatch: pytest.MonkeyPatch):
    assert copied.find_bound("same picture") > copied.find_bound("same subject"), "without words"
    from indexer.words import Words

    told = {"copies_found": 1.0, "others_found": 0.0, "rows": 9}
    words = Words(same_picture=0.8, same_scene=0.6, same_kind=0.4, **told)
    monkeypatch.setattr(Overview, "read_words", lambda self: words)
    assert (copied.find_bound("same picture"), copied.find_bound("same subject")) == (0.8, 0.6)


def test_which_one_to_keep(copied: Overview):
    from dataclasses import replace
    from datetime import timedelta

    (first, second) = copied._collection.list_images(count=2)
    larger = replace(second, width=first.width * 2, modified=first.modified + timedelta(days=1))
    assert choose_reference([first, larger], "largest") == larger
    assert choose_reference([first, larger], "oldest") == first


# --- what can go wrong -------------------------------------------------------------------------------------------


def test_without_a_survey_everything_is_empty(place: Path):
    with Collection(place) as collection:
        overview = Overview(collection)
        assert overview.list_groups() == overview.list_exemplars() == overview.list_outliers() == []
        assert overview.read_map() is None and overview.find_duplicates() == [] and overview.read_words() is None
        assert not overview.read_state().is_whole
        assert len(overview.surprise(1, 5)) == 5


@pytest.mark.parametrize("stop_after", range(1, 5))
def test_a_survey_that_was_stopped_is_gone_on_with(place: Path, stop_after: int):
    asked = iter(range(100))
    first = survey_collection(place, should_stop=lambda: next(asked) >= stop_after)
    assert first.missing
    second = survey_collection(place)
    assert not second.missing and not {*first.made} & {*second.made}


@pytest.mark.parametrize("name", ["groups.npz", "map.npz", "outliers.npz", "survey.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_part_counts_as_not_made_and_is_made_anew(place: Path, name: str, harm: str):
    survey_collection(place)
    path = place / "generations" / "000001" / "survey" / name
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    path.unlink()
    if harm != "remove":
        path.write_bytes(data[: len(data) // (2 if harm == "cut" else 1)])
    with Collection(place) as collection:
        overview = Overview(collection)
        overview.list_groups(), overview.read_map(), overview.list_outliers()
    survey_collection(place)
    with Collection(place) as collection:
        overview = Overview(collection)
        assert overview.list_groups() and overview.read_map() and overview.list_outliers(3)


def test_a_part_of_another_generation_is_none(place: Path):
    generation = open_generation(place)
    write_part(generation, "map", Part({"rows": np.arange(3)}, {"how": "x"}))
    told = generation.folder / "survey" / "survey.json"
    values = json.loads(told.read_text())
    assert read_part(generation, "map").told == {"how": "x"}
    told.write_text(json.dumps({**values, "generation": "another"}))
    assert read_part(generation, "map") is None


def test_the_next_generation_has_a_survey_of_its_own(place: Path, surveyed: Overview):
    add_rows(place, draw_embeddings(5, DIMENSION, 50))
    assert surveyed.list_groups() == [] and not surveyed.read_state().has_graph
    survey_collection(place)
    assert sum(group.size for group in surveyed.list_groups()) == KINDS * EACH + 5


def test_a_build_in_the_middle_of_a_survey_spoils_nothing(place: Path, monkeypatch: pytest.MonkeyPatch):
    build_graph = conductor.build_graph

    def publish_first(*arguments: object, **more: object) -> object:
        add_rows(place, draw_embeddings(5, DIMENSION, 50))
        return build_graph(*arguments, **more)

    monkeypatch.setattr(conductor, "build_graph", publish_first)
    report = survey_collection(place)
    assert "outliers" in report.missing
    monkeypatch.undo()
    assert not survey_collection(place).missing


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_images_are_surveyed_as_well(tmp_path: Path, count: int):
    place = keep_rows(tmp_path / "few", draw_embeddings(count, 8, 0))
    report = survey_collection(place)
    assert report.images == count and not report.missing
    with Collection(place) as collection:
        overview = Overview(collection)
        assert sum(group.size for group in overview.list_groups()) == count
        assert len(overview.list_exemplars()) <= count and overview.read_map().places.shape == (count, 2)
        assert len(overview.list_outliers()) == count


def test_groups_are_as_many_as_a_person_can_look_at():
    for images in (0, 1, 7, 100, 10_000, 64_000, 10**6, 10**8):
        large, small = count_groups(images)
        assert large <= small <= max(images, large) and large <= 48 and small <= 480
        assert (large > 0) == (images > 0)
