"""Figures with weights and by clusters: against what is counted by hand, and what must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.ml import evaluation
from dedup.ml.estimation import wilson
from dedup.ml.evaluation import (
    Point,
    average_precision,
    calibration_error,
    cluster_draws,
    clustered,
    clustered_lead,
    effective_rows,
    precision,
    precision_recall_points,
    recall,
    recall_at_precision,
    reliability_bins,
)

SCORES, LABELS = [0.9, 0.8, 0.6, 0.6, 0.1], [1, 0, 1, 0, 1]
WHOLE = st.lists(
    st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 5)), min_size=2, max_size=40
).filter(lambda rows: any(label for _s, label, _w in rows))


@settings(deadline=None)
@given(WHOLE)
def test_a_row_that_stands_for_many_counts_as_if_it_were_there_so_often(rows):
    scores, labels, weights = (np.asarray(one, float) for one in zip(*rows, strict=True))
    many = [np.repeat(one, weights.astype(int)) for one in (scores, labels)]

    for metric in (
        calibration_error,
        lambda *given: precision(*given, at=0.5),
        lambda *given: recall(*given, at=0.5),
        lambda *given: recall_at_precision(*given, wanted=0.7),
    ):
        assert metric(scores, labels, weights) == pytest.approx(metric(*many))


def test_average_precision_by_hand():
    assert average_precision(SCORES, LABELS) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    weighted = average_precision(SCORES, LABELS, [1, 2, 1, 1, 4])
    assert weighted == pytest.approx((1 * 1 + 1 * 2 / 4 + 4 * 6 / 9) / 6)
    assert average_precision([0.5], [0]) == 0.0


def test_points_of_equal_scores_are_one_and_say_what_is_found_down_to_them():
    assert precision_recall_points(SCORES, LABELS) == [
        Point(0.9, 1 / 3, 1.0), Point(0.8, 1 / 3, 0.5), Point(0.6, 2 / 3, 0.5),
        Point(0.1, 1.0, 0.6),
    ]  # fmt: skip
    assert precision_recall_points([0.5], [0]) == []
    assert precision_recall_points([], []) == []


def test_recall_at_a_precision_takes_the_best_threshold_that_keeps_it():
    assert recall_at_precision(SCORES, LABELS, wanted=0.6) == 1.0
    assert recall_at_precision(SCORES, LABELS, wanted=0.9) == pytest.approx(1 / 3)
    assert recall_at_precision([0.9, 0.1], [0, 1], wanted=0.6) == 0.0


def test_an_interval_of_a_share_is_wilsons():
    low, high = wilson(0.2, 10)

    assert (low, high) == pytest.approx((0.0567, 0.5098), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert effective_rows([2, 2, 2]) == pytest.approx(3)
    assert effective_rows([100, 1, 1]) < 1.1


def test_bins_weigh_rows_and_count_them():
    low, high = reliability_bins([0.05, 0.07, 0.95], [0, 1, 1], [3, 1, 1])

    assert (low.rows, low.share, low.predicted) == (2, 0.25, pytest.approx(0.055))
    assert (high.rows, high.share) == (1, 1.0)
    assert low.low < low.share < low.high


def test_whole_clusters_are_drawn_and_on_average_each_once():
    draws = cluster_draws(["a", "a", "b", "c"], times=2_000)

    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert draws.mean(axis=0) == pytest.approx(np.ones(4), abs=0.1)


def made(clusters, each, seed):
    """Scores that are good or bad by cluster: pairs of one cluster tell nearly the same."""
    rng = np.random.default_rng(seed)
    names = np.repeat(np.arange(clusters), each)
    labels = rng.random(len(names)) < 0.5
    quality = np.repeat(rng.normal(1.0, 1.5, clusters), each)
    return names, labels.astype(float), quality * labels + rng.normal(0, 0.5, len(names))


def test_pairs_that_hang_together_make_the_interval_wider():
    names, labels, scores = made(30, 20, seed=1)
    whole = clustered(average_precision, scores, labels, cluster_draws(names))
    rows = clustered(average_precision, scores, labels, cluster_draws(range(len(names))))

    assert whole.value == rows.value
    assert whole.high - whole.low > 1.5 * (rows.high - rows.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    truth = np.mean([average_precision(*made(60, 8, seed)[:0:-1]) for seed in range(400)])
    held = 0
    for seed in range(100):
        names, labels, scores = made(60, 8, seed)
        found = clustered(average_precision, scores, labels, cluster_draws(names, times=200))
        held += found.low <= truth <= found.high

    assert 85 <= held <= 100


def test_two_equal_releases_lead_by_nothing_and_a_better_one_by_something():
    names, labels, scores = made(60, 8, seed=3)
    draws = cluster_draws(names)
    rng = np.random.default_rng(3)
    other = scores + rng.normal(0, 0.01, len(scores))
    worse = scores - 1.5 * labels * (rng.random(len(scores)) < 0.7)
    equal = clustered_lead(average_precision, scores, other, labels, draws)
    better = clustered_lead(average_precision, scores, worse, labels, draws)

    assert equal.low < 0 < equal.high
    assert equal.p > 0.05
    assert better.low > 0
    assert better.p < 0.01
    assert better.value == average_precision(scores, labels) - average_precision(worse, labels)


def test_equal_releases_are_seldom_told_apart():
    told = 0
    for seed in range(60):
        names, labels, scores = made(40, 5, seed)
        rng = np.random.default_rng(1000 + seed)
        one, other = (scores + rng.normal(0, 0.4, len(scores)) for _ in range(2))
        draws = cluster_draws(names, times=200)
        told += clustered_lead(average_precision, one, other, labels, draws).p < 0.05

    assert told <= 8  # of 60: 0.05 of them, and what chance may add


def test_where_nothing_can_be_known_there_is_no_figure():
    draws = cluster_draws(range(4))

    assert clustered(average_precision, [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0], draws) is None
    assert clustered_lead(average_precision, [1, 2], [2, 1], [1, 1], cluster_draws("ab")) is None


def test_without_weights_it_is_as_it_was():
    rng = np.random.default_rng(5)
    p, labels = rng.random(300), rng.random(300) < 0.3
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = [abs((p - labels)[bins == b].sum()) for b in range(15)]

    assert calibration_error(p, labels) == pytest.approx(sum(gaps) / 300)
    assert evaluation.bootstrap_interval(average_precision, p, labels)[0] > 0
