from dataclasses import astuple

import numpy as np
import pytest

from dedup.ml.calibration import Calibration, fit_calibration, sigmoid


def test_known_coefficients_are_recovered():
    rng = np.random.default_rng(1)
    logits, cosines = rng.normal(size=40_000) * 2, rng.uniform(0, 1, 40_000)
    chance = sigmoid(-2 + 0.8 * logits + 3 * cosines)
    found = fit_calibration(logits, cosines, (rng.uniform(size=40_000) < chance).astype(float))
    assert (found.bias, found.by_logit, found.by_cosine) == pytest.approx((-2, 0.8, 3), abs=0.12)


def test_labels_of_one_kind_are_no_ground_for_a_calibration():
    with pytest.raises(ValueError, match="others"):
        fit_calibration([1.0, 2.0], [0.5, 0.6], [1.0, 1.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_never_becomes_a_probability(bad):
    with pytest.raises(FloatingPointError):
        Calibration(0, 1, 1).probabilities([bad], [0.5])


def test_the_prior_shifts_the_probability():
    rare = Calibration(0, 1, 0, prior=0.5).at_prior(0.02)
    assert rare.probabilities([0], [0])[0] == pytest.approx(0.02)


def test_the_logit_counts_only_where_texts_look_alike():
    careful = Calibration(0, 1, 0, low=0.4, high=0.6)

    assert careful.ranked_by([3, 3, 3, 3], [0.1, 0.4, 0.5, 0.9]).tolist() == pytest.approx(
        [0, 0, 1.5, 3]
    )


def test_what_is_trusted_keeps_its_place_at_another_prior():
    careful = Calibration(0, 1, 0, low=0.4, high=0.6).at_prior(0.1)

    assert (careful.low, careful.high, careful.prior) == (0.4, 0.6, 0.1)


def test_a_calibration_that_trusts_from_high_to_low_is_refused():
    with pytest.raises(ValueError, match="not below"):
        Calibration(0, 1, 0, low=0.6, high=0.4)


def test_a_logit_is_heard_where_it_can_move_the_probability():
    cosines = np.linspace(-1, 1, 2001)
    for found in (Calibration(-2, 0.8, 3, low=0.42, high=0.72), Calibration(-2, 0.0, 3)):
        moved = found.ranked_by(np.full(2001, 9.0), cosines) != found.ranked_by(
            np.zeros(2001), cosines
        )
        assert found.hears(cosines).tolist() == moved.tolist()


def test_a_release_without_bounds_hears_every_logit():
    assert Calibration(-2, 0.8, 3).hears([-1.0, 0.0, 1.0]).all()


def test_a_row_that_stands_for_three_counts_as_three_rows():
    cosines, labels = np.asarray([0.2, 0.5, 0.6, 0.9, 0.7]), np.asarray([0, 0, 1, 1, 0])
    times = [1, 3, 1, 2, 1]

    weighed = fit_calibration(np.zeros(5), cosines, labels, ridge=1e-9, weights=times)
    repeated = fit_calibration(np.zeros(8), cosines.repeat(times), labels.repeat(times), ridge=1e-9)

    assert astuple(weighed) == pytest.approx(astuple(repeated), rel=1e-4)
