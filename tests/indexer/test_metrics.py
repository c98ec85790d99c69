"""Figures are what their docstrings say: against scikit-learn, by hand, and by what must hold for any rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from indexer import metrics
from indexer.evaluation import FEW_1, FEW_10, LINEAR_PROBE
from indexer.figures import measure_chance, measure_labels
from indexer.metrics import (
    Classification,
    Copies,
    bootstrap_interval,
    classify_by_neighbours,
    count_nearer,
    measure_few_labels,
    measure_retrieval,
    normalise,
    probe_linear,
    rank_originals,
)


def draw_rows(count: int = 60, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def draw_labels(count: int = 60, labels: int = 4, seed: int = 0) -> list[str]:
    return [f"label {number}" for number in np.random.default_rng(seed).integers(labels, size=count)]


def draw_clusters(per_label: int = 12, labels: int = 4, spread: float = 0.05) -> tuple[np.ndarray, list[str]]:
    """Rows that lie close about one corner for each label."""
    corners = np.repeat(np.eye(labels, 8), per_label, axis=0)
    return corners + spread * draw_rows(len(corners)), [f"label {n}" for n in range(labels) for _ in range(per_label)]


def point(*degrees: float) -> np.ndarray:
    """Rows in the plane, at these angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


# --- retrieval ---------------------------------------------------------------------------------------------------


def test_average_precision_is_scikit_learns_for_each_query():
    rows, labels = draw_rows(), draw_labels()
    found = measure_retrieval(rows, labels)
    unit, labels = normalise(rows), np.array(labels)
    for query, precision in zip(found.queries, found.average_precisions, strict=True):
        others = np.arange(len(rows)) != query
        expected = average_precision_score(labels[others] == labels[query], unit[others] @ unit[query])
        assert precision == pytest.approx(expected, abs=1e-6)


def test_retrieval_by_hand():
    found = measure_retrieval(point(0, 10, 30, 70), ["a", "b", "a", "b"])
    # From 0: b a b; from 10: a a b; from 30: b a b; from 70: a b a.
    assert found.first_is_right.tolist() == [0, 0, 0, 0]
    assert found.right_among_5 == pytest.approx([1 / 3] * 4)
    assert found.average_precisions == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 2])
    assert found.mean_average_precision == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)


def test_precision_at_1_and_5_are_those_of_a_plain_loop():
    rows, labels = draw_rows(seed=3), draw_labels(seed=3)
    found, unit = measure_retrieval(rows, labels), normalise(rows)
    first, five = [], []
    for query in range(len(rows)):
        order = sorted(set(range(len(rows))) - {query}, key=lambda other: -float(unit[query] @ unit[other]))
        right = [labels[other] == labels[query] for other in order]
        first.append(right[0])
        five.append(sum(right[:5]) / 5)
    assert found.precision_at_1 == pytest.approx(np.mean(first))
    assert found.precision_at_5 == pytest.approx(np.mean(five))


def test_equal_similarities_stand_in_the_order_of_their_rows():
    rows = np.tile([[1.0, 0.0]], (4, 1))
    assert measure_retrieval(rows, ["a", "a", "b", "b"]).first_is_right.tolist() == [1, 1, 0, 0]


def test_a_picture_whose_label_is_the_only_one_is_no_query_but_can_be_taken_for_another():
    found = measure_retrieval(point(0, 5, 20), ["a", "alone", "a"])
    assert found.queries.tolist() == [0, 2]
    assert found.first_is_right.tolist() == [0, 0]
    assert found.average_precisions.tolist() == [0.5, 0.5]


def test_where_no_label_is_on_two_pictures_there_is_nothing_to_measure():
    with pytest.raises(ValueError, match="no label occurs twice"):
        measure_retrieval(draw_rows(3), ["a", "b", "c"])


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_row_that_points_nowhere_is_refused(row: list[float]):
    with pytest.raises(ValueError, match="points nowhere"):
        measure_retrieval(np.array([[1.0, 0.0], row]), ["a", "a"])


def test_one_label_for_each_row_is_asked_for():
    with pytest.raises(ValueError, match="2 labels for 3 rows"):
        measure_retrieval(draw_rows(3), ["a", "a"])


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rows, labels = draw_rows(), draw_labels()
    whole = measure_retrieval(rows, labels), classify_by_neighbours(rows, labels)
    values = bootstrap_interval(whole[0].average_precisions)
    ranks, similarity = rank_originals(rows + 0.3 * draw_rows(seed=9), np.arange(60), rows)
    nearer = count_nearer(rows, similarity, draw_rows(500, seed=5))
    monkeypatch.setattr(metrics, "BLOCK_BYTES", 4 * 60 * 7)
    parts = measure_retrieval(rows, labels), classify_by_neighbours(rows, labels)
    np.testing.assert_allclose(parts[0].average_precisions, whole[0].average_precisions, atol=1e-12)
    np.testing.assert_array_equal(parts[1].is_right, whole[1].is_right)
    assert rank_originals(rows + 0.3 * draw_rows(seed=9), np.arange(60), rows)[0].tolist() == ranks.tolist()
    assert count_nearer(rows, similarity, draw_rows(500, seed=5)).tolist() == nearer.tolist()
    assert bootstrap_interval(whole[0].average_precisions) == pytest.approx(values, abs=0.01)


# Not any seed: now and then two rows are as near but for float32's rounding, and change places.
@pytest.mark.parametrize("seed", range(12))
def test_the_order_and_the_length_of_rows_change_nothing(seed: int):
    rows, labels = draw_rows(seed=seed), draw_labels(seed=seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    longer = rows[order] * np.random.default_rng(seed).uniform(0.1, 9, (len(rows), 1))
    shuffled = [labels[number] for number in order]
    one, other = measure_retrieval(rows, labels), measure_retrieval(longer, shuffled)
    assert one.precision_at_1 == pytest.approx(other.precision_at_1)
    assert one.precision_at_5 == pytest.approx(other.precision_at_5)
    assert one.mean_average_precision == pytest.approx(other.mean_average_precision)
    votes = [classify_by_neighbours(*given).accuracy for given in ((rows, labels), (longer, shuffled))]
    assert votes[0] == pytest.approx(votes[1])


def test_a_perfect_embedding_gets_1_everywhere():
    rows, labels = draw_clusters()
    found = measure_retrieval(rows, labels)
    figures = [found.precision_at_1, found.precision_at_5, found.mean_average_precision]
    figures += [classify_by_neighbours(rows, labels, neighbours=5).accuracy, probe_linear(rows, labels).accuracy]
    figures += [measure_few_labels(rows, labels, share=share).accuracy for share in (0.01, 0.1)]
    assert figures == [1.0] * 7


def test_random_rows_get_the_level_of_chance():
    rows, labels = draw_rows(1200, 16), draw_labels(1200)
    found, chance = measure_retrieval(rows, labels), measure_chance(labels)
    assert chance == pytest.approx(0.25, abs=0.01)
    figures = [found.precision_at_1, found.precision_at_5, found.mean_average_precision]
    figures += [probe_linear(rows, labels).accuracy, classify_by_neighbours(rows, labels).accuracy]
    figures += [measure_few_labels(rows, labels, share=0.1).accuracy]
    assert figures == pytest.approx([chance] * 6, abs=0.05)


def test_chance_is_the_share_of_the_others_with_the_label():
    assert measure_chance(["a", "a", "a", "b", "b", "alone"]) == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 5)


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_few_labels_are_told_as_scikit_learn_tells_them(share: float, monkeypatch):
    rows, labels = draw_clusters(per_label=20, spread=0.6)
    drawn, fit = [], metrics._fit_and_tell
    monkeypatch.setattr(metrics, "_fit_and_tell", lambda *given: drawn.append(given[2]) or fit(*given))
    found = measure_few_labels(rows, labels, share=share, draws=3)
    rows = normalise(rows)
    assert 0.4 < found.accuracy < 0.99
    for learnt, told in zip(drawn, found.is_right, strict=True):
        tested = ~np.isnan(told)
        assert set(np.flatnonzero(tested)) == set(range(len(rows))) - set(learnt)
        centred = rows - rows[learnt].mean(0)
        centred /= np.sqrt(np.mean(centred[learnt] ** 2))
        judge = LogisticRegression(C=metrics.PROBE_C, max_iter=1000).fit(centred[learnt], np.array(labels)[learnt])
        np.testing.assert_array_equal(told[tested], judge.predict(centred[tested]) == np.array(labels)[tested])


# --- classification ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("neighbours", "sigma"), [(1, 0.07), (20, 0.07), (20, 0.5), (200, 0.1)])
def test_the_vote_is_scikit_learns_with_the_same_weights(neighbours: int, sigma: float):
    rows, labels = normalise(draw_rows(80)), np.array(draw_labels(80))
    found = classify_by_neighbours(rows, labels.tolist(), neighbours=neighbours, sigma=sigma)
    for query, is_right in zip(found.queries, found.is_right, strict=True):
        others = np.arange(len(rows)) != query
        judge = KNeighborsClassifier(
            min(neighbours, 79), metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / sigma)
        )
        judge.fit(rows[others], labels[others])
        assert is_right == (judge.predict(rows[[query]])[0] == labels[query])


def test_the_vote_by_hand():
    rows, labels = point(0, 10, 25, 30), ["a", "a", "b", "b"]
    # From 0 with three voters: a at 10 weighs less than the two b together when sigma is large, more when it is small.
    assert classify_by_neighbours(rows, labels, neighbours=3, sigma=10.0).is_right[0] == 0
    assert classify_by_neighbours(rows, labels, neighbours=3, sigma=0.01).is_right[0] == 1
    assert classify_by_neighbours(rows, labels, neighbours=3, sigma=1e-9).is_right[0] == 1  # no overflow


def test_the_published_settings_of_the_vote():
    assert (metrics.NEIGHBOURS, metrics.SIGMA) == (20, 0.07)


def test_a_probe_tells_what_scikit_learn_tells_when_it_learns_from_the_other_folds():
    rows, labels = normalise(draw_rows(90)), np.array(draw_labels(90))
    rows[:, 0] += labels == "label 1"
    unit, codes = normalise(rows), np.unique(labels, return_inverse=True)[1]
    found = probe_linear(rows, labels.tolist(), folds=3, seed=4)
    fold = metrics._deal_folds(codes, 3, np.random.default_rng(4))
    expected = np.empty(90)
    for number in range(3):
        learnt = unit[fold != number]
        scale = np.sqrt(((learnt - learnt.mean(0)) ** 2).mean())
        judge = LogisticRegression(C=metrics.PROBE_C, max_iter=1000)
        judge.fit((learnt - learnt.mean(0)) / scale, labels[fold != number])
        expected[fold == number] = (
            judge.predict((unit[fold == number] - learnt.mean(0)) / scale) == labels[fold == number]
        )
    assert found.is_right.tolist() == expected.tolist()
    assert 0.3 < found.accuracy < 1


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6), folds=st.integers(2, 7))
def test_folds_are_of_one_size_and_no_label_lies_in_one_of_them_alone(counts: list[int], folds: int):
    codes = np.repeat(np.arange(len(counts)), counts)
    fold = metrics._deal_folds(codes, folds, np.random.default_rng(0))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    assert all(len(set(fold[codes == code])) == min(count, folds) for code, count in enumerate(counts))


def test_nothing_is_tested_that_was_learnt_from(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def watch(rows: np.ndarray, codes: np.ndarray, learnt: np.ndarray, tested: np.ndarray) -> np.ndarray:
        seen.append((set(learnt.tolist()), set(tested.tolist())))
        return codes[tested]

    monkeypatch.setattr(metrics, "_fit_and_tell", watch)
    probe_linear(draw_rows(), draw_labels())
    measure_few_labels(draw_rows(), draw_labels(), share=0.1)
    assert len(seen) == metrics.FOLDS + metrics.DRAWS
    assert all(learnt and tested and not learnt & tested for learnt, tested in seen)
    assert set.union(*(tested for _, tested in seen[: metrics.FOLDS])) == set(range(60))


@pytest.mark.parametrize(("share", "learnt"), [(0.01, [1, 1, 1]), (0.1, [1, 2, 5])])
def test_few_labels_are_a_share_of_each_label_and_at_least_one(share: float, learnt: list[int]):
    labels = ["a"] * 3 + ["b"] * 20 + ["c"] * 50 + ["alone"]
    found = measure_few_labels(draw_rows(74), labels, share=share, draws=6)
    assert found.queries.tolist() == list(range(73))
    assert found.is_right.shape == (6, 73)
    is_learnt = np.isnan(found.is_right)
    assert [is_learnt[:, part].sum(axis=1).tolist() for part in (slice(3), slice(3, 23), slice(23, 73))] == [
        [count] * 6 for count in learnt
    ]
    assert len({tuple(row) for row in is_learnt.tolist()}) > 1, "each draw is another one"


def test_accuracy_over_draws_is_the_mean_of_the_draws():
    found = Classification(queries=np.arange(3), is_right=np.array([[np.nan, 1, 0], [0, np.nan, 0]]))
    assert found.accuracy == 0.25


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, float("nan")])
def test_a_share_that_leaves_nothing_to_learn_or_to_test_is_refused(share: float):
    with pytest.raises(ValueError, match="share"):
        measure_few_labels(draw_rows(), draw_labels(), share=share)


def test_rows_that_are_all_the_same_and_a_label_that_is_left_alone_stop_no_probe():
    same = np.tile([[1.0, 0.0]], (12, 1))
    assert 0 <= probe_linear(same, draw_labels(12, 2)).accuracy <= 1
    # With the only other label in the tested fold, there is one label to learn: that one is told.
    assert probe_linear(draw_rows(4), ["a", "a", "a", "b"], folds=2).accuracy <= 1


def test_more_labels_to_learn_from_tell_more():
    rows, labels = draw_clusters(per_label=40, spread=0.4)
    few, more = (measure_few_labels(rows, labels, share=share).accuracy for share in (0.01, 0.1))
    assert few + 0.02 < more <= probe_linear(rows, labels).accuracy + 0.02


def test_equal_seeds_give_equal_figures_and_others_others():
    rows, labels = draw_rows(), draw_labels()
    for measure in (probe_linear, lambda *given, seed: measure_few_labels(*given, share=0.1, seed=seed)):
        one, again, other = (measure(rows, labels, seed=seed).is_right for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other, equal_nan=True)


def test_the_seed_of_an_evaluation_is_that_of_its_folds_and_draws():
    values = {}
    for seed in (0, 1):
        for figure in measure_labels("rows", draw_rows(200), draw_labels(200), seed=seed):
            values.setdefault(figure.measure, []).append(figure.value)
    differ = [measure for measure, (one, other) in values.items() if one != other]
    assert differ == [LINEAR_PROBE, FEW_1, FEW_10]


# --- copies ------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    originals, copies, right = point(0, 20, 90), point(1, 12, 80, 15), np.array([0, 0, 2, 2])
    ranks, similarity = rank_originals(copies, right, originals)
    assert ranks.tolist() == [1, 2, 1, 3]
    np.testing.assert_allclose(similarity, np.cos(np.deg2rad([1, 12, 10, 75])), atol=1e-6)
    # Distractors at 2 (as near to the first copy as its original: a tie) and at 85.
    assert count_nearer(copies, similarity, point(2, 85)).tolist() == [1, 1, 1, 2]
    found = Copies(ranks=ranks)
    assert found.recall_at_1 == 0.5
    assert found.mean_average_precision == pytest.approx((1 + 1 / 2 + 1 + 1 / 3) / 4)


def test_with_one_right_answer_average_precision_is_scikit_learns():
    originals = draw_rows(40, seed=1)
    copies = normalise(originals) + 0.4 * draw_rows(40, seed=2)
    ranks, _ = rank_originals(copies, np.arange(40), originals)
    similarities = normalise(copies) @ normalise(originals).T
    expected = [average_precision_score(np.arange(40) == n, similarities[n]) for n in range(40)]
    assert Copies(ranks=ranks).average_precisions == pytest.approx(expected)
    assert ranks.max() > 1


def test_the_rank_among_distractors_is_that_in_one_pile_of_all():
    originals, distractors = draw_rows(30, seed=1), draw_rows(300, seed=2)
    copies = normalise(originals) + 0.4 * draw_rows(30, seed=3)
    ranks, similarity = rank_originals(copies, np.arange(30), originals)
    apart = ranks + count_nearer(copies, similarity, distractors)
    together, _ = rank_originals(copies, np.arange(30), np.concatenate([originals, distractors]))
    assert apart.tolist() == together.tolist()
    assert (apart > ranks).any()


def test_an_embedding_to_which_all_pictures_are_the_same_finds_no_copy():
    same = np.tile(draw_rows(1, 100), (50, 1))
    ranks, similarity = rank_originals(same, np.arange(50), same)
    assert ranks.tolist() == [50] * 50
    assert count_nearer(same, similarity, same[:7]).tolist() == [7] * 50


def test_without_distractors_none_is_nearer():
    assert count_nearer(draw_rows(3), np.zeros(3), np.empty((0, 0))).tolist() == [0, 0, 0]


# --- intervals ---------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_mean_and_narrows_with_the_number_of_queries():
    values = np.random.default_rng(0).random(6400)
    intervals = [bootstrap_interval(values[:count]) for count in (100, 1600)]
    for (low, high), count in zip(intervals, (100, 1600), strict=True):
        assert low < values[:count].mean() < high
    widths = [high - low for low, high in intervals]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_an_interval_is_that_of_the_normal_approximation_for_many_queries():
    values = (np.random.default_rng(1).random(2000) < 0.3).astype(float)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


def test_95_of_100_intervals_hold_the_truth():
    random = np.random.default_rng(0)
    intervals = [bootstrap_interval(random.random(60), seed=seed, rounds=400) for seed in range(300)]
    assert 0.90 < np.mean([low < 0.5 < high for low, high in intervals]) < 0.98


def test_draws_that_differ_widen_an_interval():
    alike = np.tile((np.arange(200) < 100).astype(float), (5, 1))
    apart = alike * np.array([[0.0], [0.5], [1.0], [1.5], [2.0]])
    narrow, wide = (np.ptp(bootstrap_interval(values)) for values in (alike, apart))
    assert wide > 2 * narrow


def test_values_that_are_not_there_are_not_counted():
    values = np.array([[np.nan, 1.0, 1.0], [1.0, np.nan, 1.0]])
    assert bootstrap_interval(values) == (1.0, 1.0)


def test_equal_seeds_give_equal_intervals_and_one_query_gives_its_value():
    values = draw_rows(50, 1)[:, 0]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3) != bootstrap_interval(values)
    assert bootstrap_interval(np.array([0.4])) == pytest.approx((0.4, 0.4))
