"""The survey and what is read from it: groups, exemplars, outliers, a map, near-duplicates; stopped, damaged, grown."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count as count_up
from pathlib import Path

import numpy as np
import pytest

from indexer import catalog_reader
from indexer import overview as browsing
from indexer import snapshot as door
from indexer import survey as conductor
from indexer.catalog_reader import CatalogReader
from indexer.clustering import count_groups
from indexer.collection import Collection, ImageKind
from indexer.generations import list_generations, open_generation, remove_old_generations
from indexer.overview import Overview, choose_reference
from indexer.schema import connect_to_write
from indexer.sights import arrange, compare_with_mean, find_outliers, fit_into_square, flatten, pick_exemplars
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
def no_unfolding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A survey whose map is that of principal components: t-SNE takes seconds."""
    monkeypatch.setattr(conductor, "can_unfold", lambda: False)


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


def test_the_most_typical_image_of_each_part_stands_for_a_group_and_then_others():
    """Large group 0 is made of the small ones 0 and 1, large group 1 of the small one 2."""
    small, above = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 0, 1])
    cosines = np.array([0.5, 0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.4, 0.4], np.float32)
    found = arrange(np.arange(10, 19), small, above, cosines)
    assert found.list_group(0).tolist() == [11, 12, 13, 10, 15, 14] and found.list_group(1).tolist() == [17, 18, 16]
    assert found.list_group(0, 1).tolist() == [15, 14] and found.list_group(2).tolist() == []
    described = [(number, size, rows.tolist()) for number, size, rows in found.list_typical()]
    assert described == [(0, 6, [11, 15, 12, 13]), (1, 3, [17, 18, 16])]
    described = [(number, size, rows.tolist()) for number, size, rows in found.list_typical(0)]
    assert described == [(0, 4, [11, 12, 13, 10]), (1, 2, [15, 14])]


def test_a_hidden_exemplar_is_none(surveyed: Overview):
    first, *others = surveyed.list_exemplars(5)
    surveyed._collection.decisions.mark(ImageKind.HIDDEN, first.content_hash)
    assert surveyed.list_exemplars(4) == others


def test_exemplars_are_far_from_each_other(surveyed: Overview):
    kinds = draw_kinds()[1]
    taken = kinds[np.array(list_numbers(surveyed.list_exemplars(count=KINDS))) - 1]
    assert len(set(taken.tolist())) >= KINDS - 1


def test_farthest_points_are_those_found_by_hand():
    rows = np.eye(4, dtype=np.float16).repeat(3, axis=0)
    taken = pick_exemplars(rows, np.ones(12, np.float32), np.arange(12), np.ones(12, np.float32))
    assert len(taken) == 4 and set(taken // 3) == {0, 1, 2, 3}


def test_equal_images_are_no_exemplars_of_each_other():
    rows = draw_embeddings(20, 16, 0).repeat(3, axis=0).astype(np.float16)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    taken = pick_exemplars(rows, norms, np.arange(60), np.ones(60, np.float32))
    assert len(taken) == 20 and set(taken // 3) == set(range(20))


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
    assert [bytes(one) for one in found.hashes] == [number.to_bytes(32) for number in found.image_ids.tolist()]


def test_the_map_is_kept_while_nothing_changes(surveyed: Overview, place: Path):
    first = surveyed.read_map()
    assert surveyed.read_map() is first
    surveyed._collection.decisions.mark(ImageKind.HIDDEN, bytes(first.hashes[7]).hex())
    second = surveyed.read_map()
    assert second.image_ids.tolist() == np.delete(first.image_ids, 7).tolist()
    survey = place / "generations" / "000001" / "survey"
    (survey / "groups.npz").unlink()
    assert surveyed.read_map().groups.max() == -1
    survey_collection(place)
    assert surveyed.read_map().groups.tolist() == second.groups.tolist()


def test_of_a_large_map_only_the_hashes_that_are_drawn_are_read(surveyed: Overview, monkeypatch: pytest.MonkeyPatch):
    read_hashes, asked = CatalogReader.read_hashes, []

    def listen(self: CatalogReader, store: int, rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return read_hashes(self, store, rows)

    monkeypatch.setattr(CatalogReader, "read_hashes", listen)
    monkeypatch.setattr(catalog_reader, "HASHES_AT_ONCE", 7)
    monkeypatch.setattr(browsing, "MOST_POINTS", 50)
    found = surveyed.read_map()
    assert len(found.places) == len(asked) == 48
    assert [bytes(one) for one in found.hashes] == [number.to_bytes(32) for number in found.image_ids.tolist()]


def test_a_row_without_an_image_has_the_hash_of_none(place: Path):
    with closing(CatalogReader(place / "catalog.sqlite")) as reader:
        hashes = reader.read_hashes(1, np.array([5, 9999, 0]))
        assert [bytes(one) for one in hashes] == [(6).to_bytes(32), bytes(32), (1).to_bytes(32)]
        assert reader.read_hashes(1, np.empty(0, np.int64)).shape == (0, 32)


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
    assert len(surveyed.list_groups()) and len(surveyed.read_map().places) == KINDS * EACH, "asked before, and kept"
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


def test_near_duplicates_are_found_once_for_each_bound(copied: Overview, monkeypatch: pytest.MonkeyPatch):
    find_groups, asked = browsing.find_groups, []
    monkeypatch.setattr(browsing, "find_groups", lambda pairs, read: asked.append(1) or find_groups(pairs, read))
    for bound in (0.9, 0.8, 0.9, 0.8):
        copied.find_duplicates(at_least=bound), copied.count_duplicates(at_least=bound)
    assert len(asked) == 2


def test_while_near_duplicates_are_looked_for_others_are_answered(copied: Overview, monkeypatch: pytest.MonkeyPatch):
    find_groups, asked, may_go_on = browsing.find_groups, [], threading.Event()

    def find_slowly(*given: object) -> list:
        asked.append(1)
        assert len(asked) > 1 or may_go_on.wait(30)
        return find_groups(*given)

    monkeypatch.setattr(browsing, "find_groups", find_slowly)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(copied.count_duplicates, at_least=0.9) for _ in range(2)]
        try:
            assert threads.submit(copied.read_state).result(10).has_graph
            assert threads.submit(copied.list_groups).result(10)
            assert threads.submit(copied.count_duplicates, at_least=0.8).result(10) == (3, 7), "another bound"
            assert not any(one.done() for one in waiting)
        finally:
            may_go_on.set()
        assert [one.result(10) for one in waiting] == [(3, 7)] * 2
    assert len(asked) == 2, "who asks for the same waits for it"


def test_near_copies_that_no_list_can_hold_are_one_group_of_a_collection(tmp_path: Path, no_unfolding: None):
    rows = draw_embeddings(1, 64, 3) + 0.05 * draw_embeddings(200, 64, 4)
    place = keep_rows(tmp_path / "crowd", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    survey_collection(place)
    with Collection(place) as collection:
        overview = Overview(collection)
        assert list_groups_of(overview) == [set(range(1, 201))]
        (group,) = overview.find_duplicates(at_least=0.9)
        one, other = group.images[0].content_hash, group.images[-1].content_hash
        collection.decisions.tell_apart(one, other)
        (group,) = overview.find_duplicates(at_least=0.9)
        assert len(group.images) == 199 and not {one, other} <= {image.content_hash for image in group.images}


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
def test_a_damaged_part_counts_as_not_made_and_is_made_anew(place: Path, name: str, harm: str, no_unfolding: None):
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
        assert overview.list_groups() and overview.read_map() and overview.list_outliers(3)


@pytest.mark.parametrize("name", ["neighbours.i32", "similarities.f32", "graph.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_graph_counts_as_not_made_and_is_made_anew(place: Path, name: str, harm: str, no_unfolding: None):
    survey_collection(place)
    path = place / "generations" / "000001" / "graph" / name
    whole = path.read_bytes()
    harmed = bytearray(whole[: len(whole) // (2 if harm == "cut" else 1)])
    harmed[len(harmed) // 2] ^= harm == "flip"
    path.unlink()
    if harm != "remove":
        path.write_bytes(harmed)
    with Collection(place) as collection:
        overview = Overview(collection)
        assert not overview.read_state().has_graph and overview.find_duplicates(at_least=0.1) == []
        assert overview.list_groups() and overview.read_map() and overview.list_outliers(3)
        report = survey_collection(place)
        assert (report.made, report.missing) == (("neighbour graph",), ()) and path.read_bytes() == whole
        assert overview.read_state().has_graph and overview.find_duplicates(at_least=0.1)


def test_rows_that_do_not_differ_are_surveyed_as_well(tmp_path: Path):
    place = keep_rows(tmp_path / "equal", np.full((30, 16), 0.25))
    # In a process of its own: it died of a segmentation fault.
    command = [sys.executable, "-m", "indexer", "survey", "--collection", str(place), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(conductor.__file__).parents[1])
    assert done.returncode == 0 and json.loads(done.stdout)["missing"] == [], done.stderr
    with Collection(place) as collection:
        overview = Overview(collection)
        assert np.isfinite(overview.read_map().places).all() and len(overview.list_exemplars(60)) == 1


@pytest.mark.skipif(not can_unfold(), reason="openTSNE is not installed")
@pytest.mark.parametrize("places", [np.zeros((30, 2)), np.full((30, 2), np.nan), np.eye(30, 2) * 1e-30])
def test_what_a_map_begins_with_is_finite_and_spread(places: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    import openTSNE

    from indexer.unfolding import START_SPREAD, unfold

    class Begun(Exception):
        pass

    def begin(start: np.ndarray, *_: object, **__: object) -> None:
        assert np.isfinite(start).all() and start.std(axis=0).max() == pytest.approx(START_SPREAD, rel=0.5)
        raise Begun

    monkeypatch.setattr(openTSNE, "TSNEEmbedding", begin)
    with pytest.raises(Begun):
        unfold(np.roll(np.arange(30, dtype=np.int32), -1)[:, None], np.arange(30), places)


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


@pytest.mark.skipif(not can_unfold(), reason="openTSNE is not installed")
def test_a_map_that_went_astray_is_that_of_principal_components(monkeypatch: pytest.MonkeyPatch):
    import openTSNE

    from indexer.unfolding import unfold

    class Astray(np.ndarray):
        def optimize(self, *_: object, **__: object) -> "Astray":
            return np.full_like(self, np.nan).view(Astray)

    monkeypatch.setattr(openTSNE, "TSNEEmbedding", lambda start, *_, **__: start.view(Astray))
    places = flatten(draw_embeddings(30, 8, 0).astype(np.float16), np.ones(30, np.float32), np.arange(30))
    found = unfold(np.roll(np.arange(30, dtype=np.int32), -1)[:, None], np.arange(30), places)
    np.testing.assert_allclose(fit_into_square(found), fit_into_square(places), atol=1e-5)


@pytest.fixture(scope="module")
def surveyed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = keep_rows(tmp_path_factory.mktemp("once") / "rows", draw_kinds()[0])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(conductor, "can_unfold", lambda: False)
        survey_collection(place)
    return place


QUESTIONS: dict[str, Callable[[Overview], object]] = {
    "state": lambda overview: overview.read_state(),
    "groups": lambda overview: [(one.number, one.size, list_numbers(one.images)) for one in overview.list_groups()],
    "parts": lambda overview: [(one.number, list_numbers(one.images)) for one in overview.list_groups(0)],
    "group": lambda overview: list_numbers(overview.list_group(0)),
    "size": lambda overview: overview.count_group(0),
    "exemplars": lambda overview: list_numbers(overview.list_exemplars()),
    "surprises": lambda overview: list_numbers(overview.surprise(3)),
    "outliers": lambda overview: [one.image.image_id for one in overview.list_outliers()],
    "map": lambda overview: overview.read_map().image_ids.tolist(),
    "duplicates": lambda overview: [list_numbers(one.images) for one in overview.find_duplicates(at_least=0.5)],
    "copies": lambda overview: overview.count_duplicates(at_least=0.5),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_build_that_publishes_in_the_middle_of_a_question_changes_no_answer(
    surveyed_once: Path, tmp_path: Path, question: str, monkeypatch: pytest.MonkeyPatch
):
    read_current, ask = door.read_current, QUESTIONS[question]
    for moment in (2, 3, 4):
        place, looks = tmp_path / str(moment), count_up(1)
        shutil.copytree(surveyed_once, place)

        def publish_first(folder: Path, looks=looks, moment=moment) -> str | None:
            if next(looks) == moment:
                add_rows(folder, draw_embeddings(25, DIMENSION, 50))
            return read_current(folder)

        with Collection(place) as collection:
            before = ask(Overview(collection))
            monkeypatch.setattr(door, "read_current", publish_first)
            assert ask(Overview(collection)) == before, "a new one has kept nothing"
            monkeypatch.setattr(door, "read_current", read_current)


def test_a_generation_that_was_removed_meanwhile_is_not_made_again(place: Path, monkeypatch: pytest.MonkeyPatch):
    flatten_rows, stages = conductor.flatten, []

    def remove_first(*given: object) -> np.ndarray:
        for seed in range(3):
            add_rows(place, draw_embeddings(5, DIMENSION, 50 + seed))
            remove_old_generations(place)
        return flatten_rows(*given)

    monkeypatch.setattr(conductor, "flatten", remove_first)
    report = survey_collection(place, on_progress=lambda progress: stages.append(progress.stage))
    assert list_generations(place) == ["000003", "000004"] and not (place / "generations" / "000001").exists()
    assert report.made == ("groups",) and {"groups", "map", "neighbour graph"} <= {*report.missing}
    assert stages == ["grouping", "drawing the map"]


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
