import pytest

from dedup.ml.thresholds import choose_threshold, clopper_pearson, measure


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0, 0.3085), (10, 10, 0.6915, 1), (5, 10, 0.1871, 0.8129), (95, 100, 0.8872, 0.9836)],
)
def test_the_interval_has_its_published_values(right, total, low, high):
    assert clopper_pearson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_nothing_seen_means_nothing_known():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_the_lowest_probability_that_keeps_the_precision_is_chosen():
    probabilities = [0.9] * 100 + [0.5] * 50 + [0.1] * 100
    labels = [1] * 100 + [1] * 45 + [0] * 5 + [0] * 100
    assert choose_threshold(probabilities, labels, 0.9) == 0.5


def test_no_threshold_where_the_precision_cannot_be_shown():
    assert choose_threshold([0.9, 0.8], [1, 1], 0.9) is None


def test_a_threshold_is_measured_with_its_interval_and_its_recall():
    p, labels = [0.9] * 95 + [0.1] * 5 + [0.9] * 5 + [0.1] * 95, [1] * 100 + [0] * 100
    found = measure(0.5, 0.9, p, labels)
    assert (found.precision, found.recall, found.flagged) == (0.95, 0.95, 100)
    assert (found.low, found.high) == pytest.approx((0.8872, 0.9836), abs=1e-4)
    assert found.prior == 0.5


def test_a_threshold_that_nothing_reaches_promises_nothing():
    found = measure(0.95, 0.9, [0.9, 0.1], [1, 0])
    assert (found.precision, found.low, found.high, found.recall) == (0, 0, 1, 0)
