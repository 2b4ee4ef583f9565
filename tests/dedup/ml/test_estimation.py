import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.ml import estimation
from dedup.ml.estimation import Sample, Total, gamma_limits, precision, recall, wilson

THRESHOLD = 0.5


def sample(*rows):
    """Of (how many, probability, label, chance)."""
    found = [row[1:] for row in rows for _ in range(row[0])]
    return Sample.of(*zip(*found, strict=True))


def test_a_pair_stands_for_one_over_its_chance():
    found = recall(sample((30, 0.9, 1, 1), (2, 0.1, 1, 0.1), (40, 0.1, 0, 0.1)), THRESHOLD)

    assert found.value == 30 / (30 + 2 * 10)
    assert (found.judged, found.duplicates) == (72, 32)
    assert found.low < found.value < found.high


def test_where_all_was_judged_nothing_is_left_open():
    found = recall(sample((30, 0.9, 1, 1), (10, 0.1, 1, 1), (40, 0.1, 0, 1)), THRESHOLD)

    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75), abs=1e-9)


def test_a_sample_without_a_duplicate_promises_no_full_recall():
    found = recall(sample((30, 0.9, 1, 1), (40, 0.1, 0, 0.1)), THRESHOLD)

    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(30 / (30 + 3.689 * 10), abs=1e-3)  # -log(0.025) of weight 10


def test_more_judged_pairs_narrow_the_interval():
    widths = []
    for times in (1, 4, 16):
        rows = (30 * times, 0.9, 1, 1), (2 * times, 0.1, 1, 0.1), (40 * times, 0.1, 0, 0.1)
        found = recall(sample(*rows), THRESHOLD)
        widths.append(found.high - found.low)

    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 0.4 * widths[0]


@pytest.mark.parametrize(
    "rows",
    [
        [(30, 0.9, 1, 1), (19, 0.1, 0, 0.1)],  # too few from below
        [(4, 0.9, 1, 1), (30, 0.1, 0, 0.1)],  # too few duplicates
    ],
)
def test_nothing_is_said_of_too_few(rows):
    assert recall(sample(*rows), THRESHOLD) is None


def test_precision_is_the_weighted_share_of_duplicates():
    flags = sample((30, 0.9, 1, 1), (10, 0.8, 0, 1), (60, 0.1, 0, 0.1))
    found = precision(flags, THRESHOLD)
    assert (found.value, found.judged, found.duplicates) == (0.75, 40, 30)
    assert (found.low, found.high) == pytest.approx(wilson(0.75, 40))

    lower = precision(flags, 0.05)
    assert lower.value == 30 / (40 + 600)
    assert precision(flags, 0.95) is None


def test_weights_that_differ_are_worth_fewer_pairs():
    even = precision(sample((20, 0.9, 1, 1), (20, 0.9, 0, 1)), THRESHOLD)
    uneven = precision(
        sample((10, 0.9, 1, 1), (10, 0.9, 1, 0.1), (10, 0.9, 0, 1), (10, 0.9, 0, 0.1)), THRESHOLD
    )

    assert even.value == uneven.value
    assert uneven.high - uneven.low > 1.2 * (even.high - even.low)


def test_limits_of_a_plain_count_are_those_of_poisson():
    """Garwood 1936, as in any table: of 10 counts, 4.795 to 18.390."""
    low, high = gamma_limits(10, 10, 1)

    assert (low, high) == pytest.approx((4.795, 18.390), abs=1e-3)
    assert gamma_limits(0, 0, 1) == pytest.approx((0, 3.689), abs=1e-3)


@pytest.mark.parametrize(("mean", "relative"), [(0.6, 1), (4, 2.5), (40, 0.2), (300, 1)])
def test_a_gamma_variable_stays_below_its_limits_as_often_as_it_is_to(mean, relative):
    variance = relative * mean
    shape, scale = mean**2 / variance, variance / mean
    drawn = np.random.default_rng(1).gamma(shape, scale, 20_000)
    low = estimation._gamma(mean, variance, 0.025)
    high = estimation._gamma(mean, variance, 0.975)

    assert (drawn < low).mean() == pytest.approx(0.025, abs=0.008)
    assert (drawn > high).mean() == pytest.approx(0.025, abs=0.008)


def test_both_ways_to_a_gamma_variable_meet():
    for part in (0.9, 1.0, 1.1):
        series = estimation._gamma_below(199.99, 200 * part)
        normal = estimation._gamma_below(200.01, 200 * part)
        assert series == pytest.approx(normal, abs=2e-3)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 50), st.floats(0, 50))
def test_limits_of_a_share_hold_it_and_stay_between_none_and_all(above, below, less, more):
    if above + below == 0:
        return
    totals = [Total(v, max(0.0, v - less), v + more) for v in (above, below)]
    low, high = estimation._share_limits(*totals)

    assert 0 <= low <= above / (above + below) + 1e-9
    assert above / (above + below) - 1e-9 <= high <= 1


@pytest.mark.parametrize("per_question", [0.1, 0.5])
def test_the_interval_of_recall_holds_it_as_often_as_it_says(per_question):
    """Of 300 made-up portals: 95 in 100, with 3 errors of chance to spare."""
    rng = np.random.default_rng(7)
    held, errors, naive = [], [], []
    for _ in range(300):
        said, labels, chances = made_up_portal(rng, per_question)
        asked = rng.random(len(said)) < chances
        found = recall(Sample(said[asked], labels[asked], chances[asked]), THRESHOLD)
        true = labels[said >= THRESHOLD].sum() / labels.sum()
        held.append(found.low <= true <= found.high)
        errors.append(found.value - true)
        naive.append(labels[asked & (said >= THRESHOLD)].sum() / labels[asked].sum() - true)

    assert np.mean(held) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)
    assert abs(np.mean(errors)) < 0.05
    assert np.mean(naive) > 0.2  # without weights it would look far better than it is


def made_up_portal(rng, per_question, questions=500, candidates=10):
    """Calibrated probabilities, labels as they say, and the chances of decision.sample."""
    odds = np.where(rng.random(questions * candidates) < 0.1, rng.normal(0.5, 2, 5000), -4.5)
    said = 1 / (1 + np.exp(-(odds + rng.normal(0, 0.7, len(odds)))))
    labels = (rng.random(len(said)) < said).astype(float)
    below = np.where(said < THRESHOLD, np.sqrt(said), 0).reshape(questions, candidates)
    sums = np.maximum(below.sum(axis=1, keepdims=True), 1e-9)
    drawn = np.minimum(1, per_question * below / sums).ravel()
    return said, labels, np.where(said >= THRESHOLD, 1.0, drawn)
