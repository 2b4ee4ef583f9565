import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.ml.thresholds import (
    choose_threshold,
    clopper_pearson,
    fewest_pairs,
    measure,
    promised_threshold,
    wins,
)


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


# Promises.


def test_the_lowest_probability_that_can_be_promised_is_found_between_ties():
    probabilities = [0.9] * 100 + [0.5] * 50 + [0.1] * 100
    labels = [1] * 100 + [1] * 48 + [0] * 2 + [0] * 100

    assert promised_threshold(probabilities, labels, 0.9) == 0.5
    assert promised_threshold(probabilities, labels, 0.955) == 0.9


@pytest.mark.parametrize(("wanted", "fewest"), [(0.8, 14), (0.9, 29), (0.95, 59)])
def test_so_many_pairs_it_takes_to_promise_anything(wanted, fewest):
    assert fewest_pairs(wanted) == fewest
    assert promised_threshold([0.9] * (fewest - 1), [1] * (fewest - 1), wanted) is None


@pytest.mark.parametrize(("wanted", "confidence"), [(0, 0.9), (1, 0.9), (0.9, 1), (0.9, 0)])
def test_certainty_and_nothing_are_no_promises(wanted, confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        promised_threshold([0.9], [1], wanted, confidence=confidence)


def test_nothing_is_promised_of_nothing():
    assert promised_threshold([], [], 0.9) is None


PAIRS = st.lists(
    st.tuples(
        st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]),
        st.booleans(),
        st.sampled_from([0.05, 0.3, 1.0]),
    ),
    min_size=1, max_size=300,
)  # fmt: skip


@given(PAIRS, st.sampled_from([0.3, 0.5, 0.8, 0.9]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_promised_is_true_of_the_pairs_that_were_judged(pairs, wanted, is_weighed):
    p, right, shares = (np.asarray(column, float) for column in zip(*pairs, strict=True))
    shares = shares if is_weighed else np.ones(len(p))

    found = promised_threshold(p, right, wanted, shares=shares)

    if found is not None:
        above = p >= found
        assert found in p
        assert np.average(right[above], weights=1 / shares[above]) > wanted


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_rows_says_nothing_where_all_were_asked_about(pairs, rng):
    mixed = rng.sample(pairs, len(pairs))

    one, other = (
        promised_threshold([p for p, *_ in rows], [y for _, y, _ in rows], 0.5)
        for rows in (pairs, mixed)
    )

    assert one == other


def broken(draw, wanted, is_broken, times):
    """How many promises out of so many do not hold."""
    found = (
        promised_threshold(p, y, wanted, shares=s) for p, y, s in (draw() for _ in range(times))
    )
    return sum(at is not None and is_broken(at) for at in found)


# Of 400 promises each broken with a chance of 0.05, more than 31 are broken once in 200 times.
TIMES, MOST = 400, 31


def test_a_promise_holds_where_every_set_is_just_not_good_enough():
    rng = np.random.default_rng(5)

    def draw():
        p = rng.random(500)
        return p, rng.random(500) < 0.899999, None

    assert broken(draw, 0.9, lambda at: True, TIMES) <= MOST


def test_a_promise_holds_where_all_is_right_down_to_the_bound():
    """The chain of tests comes down to the bound nearly always: there it has to end."""
    rng = np.random.default_rng(6)

    def draw():
        p = rng.random(600)
        return p, np.where(p > 0.5, True, rng.random(600) < 0.2), None

    def precision(at):
        return 1.0 if at > 0.5 else (0.5 + (0.5 - at) * 0.2) / (1 - at)

    assert broken(draw, 0.9, lambda at: precision(at) < 0.9, TIMES) <= MOST


@pytest.mark.parametrize("least", [0.5, 0.1])
def test_a_promise_holds_where_some_were_asked_about_more_often_than_others(least):
    rng = np.random.default_rng(7)

    def draw():
        p = rng.random(2_000)
        shares = np.where(p > 0.6, 1.0, np.maximum(least, least * 1.3 * np.sqrt(p)))
        asked = rng.random(len(p)) < shares
        return p[asked], (rng.random(len(p)) < 0.899999)[asked], shares[asked]

    assert broken(draw, 0.9, lambda at: True, TIMES // 2) <= 18  # as above, of 200


def test_a_promise_that_forgot_the_shares_is_broken():
    """What is asked about less often is wrong more often: without weights it looks rarer."""
    rng = np.random.default_rng(8)

    def draw(knows):
        p = rng.random(4_000)
        shares = np.where(p > 0.5, 1.0, 0.1)
        asked = rng.random(len(p)) < shares
        right = rng.random(len(p)) < np.where(p > 0.5, 0.97, 0.6)
        return p[asked], right[asked], shares[asked] if knows else None

    def is_broken(at):
        return at < 0.5 and (0.5 * 0.97 + (0.5 - at) * 0.6) / (1 - at) < 0.9

    assert broken(lambda: draw(True), 0.9, is_broken, 60) <= 8
    assert broken(lambda: draw(False), 0.9, is_broken, 60) > 50


def test_near_misses_at_the_very_top_break_no_promise():
    rng = np.random.default_rng(9)

    def draw():
        p = rng.random(1_000)
        return p, rng.random(1_000) < np.where(p > 0.97, 0.7, 0.9061), None

    assert broken(draw, 0.9, lambda at: True, TIMES // 2) <= 18


def test_the_lucky_look_breaks_more_promises_than_it_says():
    """Why it is not called a promise."""
    rng = np.random.default_rng(10)
    lucky = 0
    for _ in range(200):
        p, right = rng.random(500), rng.random(500) < 0.899999
        lucky += choose_threshold(p, right.astype(float), 0.9) is not None

    assert lucky / 200 > 0.1


def test_a_promise_is_not_bought_by_giving_up():
    """Where there is much to keep, most of it is kept."""
    rng = np.random.default_rng(11)
    kept = []
    for _ in range(20):
        p = rng.random(1_000)
        right = rng.random(1_000) < np.where(p > 0.5, 0.97, 0.2)
        at = promised_threshold(p, right, 0.9)
        kept.append(0.0 if at is None else (right & (p >= at)).sum() / right[p > 0.5].sum())

    assert np.mean(kept) > 0.9


def test_a_bet_on_fair_coins_is_won_as_rarely_as_it_says():
    rng = np.random.default_rng(12)
    won = sum(
        wins((rng.random(200) < 0.8).astype(float) - 0.8, least=-0.8, level=0.05)
        for _ in range(600)
    )

    assert won <= 44  # of 600 with a chance of 0.05 each, once in 200 times


def test_a_bet_finds_nearly_what_a_test_that_knows_the_coin_would():
    rng = np.random.default_rng(13)
    ours = exact = 0
    for _ in range(150):
        heads = rng.random(200) < 0.9
        ours += wins(heads - 0.8, least=-0.8, level=0.05)
        exact += clopper_pearson(int(heads.sum()), 200, 0.9)[0] > 0.8

    assert ours >= 0.85 * exact
    assert math.isclose(exact / 150, 0.99, abs_tol=0.05)
