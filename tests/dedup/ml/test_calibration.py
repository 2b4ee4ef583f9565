import numpy as np
import pytest

from dedup.ml.calibration import Calibration, fit_calibration, sigmoid


def test_known_coefficients_are_recovered():
    rng = np.random.default_rng(1)
    logits, cosines = rng.normal(size=40_000) * 2, rng.uniform(0, 1, 40_000)
    chance = sigmoid(-2 + 0.8 * logits + 3 * cosines)
    found = fit_calibration(logits, cosines, (rng.uniform(size=40_000) < chance).astype(float))
    assert (found.bias, found.by_logit, found.by_cosine) == pytest.approx((-2, 0.8, 3), abs=0.12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_never_becomes_a_probability(bad):
    with pytest.raises(FloatingPointError):
        Calibration(0, 1, 1).probabilities([bad], [0.5])


def test_the_prior_shifts_the_probability():
    rare = Calibration(0, 1, 0, prior=0.5).at_prior(0.02)
    assert rare.probabilities([0], [0])[0] == pytest.approx(0.02)
