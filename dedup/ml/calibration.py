"""Raw score and cosine -> probability, by logistic regression (Platt 1999)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dedup.ml.pairs import Values

ENOUGH = 60  # labels to calibrate on; fewer say next to nothing of a probability
FEWEST = 12  # of each kind among them


def enough(labels: Sequence[float]) -> bool:
    """Whether labels can carry a calibration."""
    duplicates = sum(label > 0.5 for label in labels)
    return len(labels) >= ENOUGH and FEWEST <= duplicates <= len(labels) - FEWEST


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(bias + by_logit * trust * logit + by_cosine * cosine).

    `trust` rises from 0 at a cosine of `low` to 1 at `high`: the network was taught to tell texts
    apart that look alike; of texts that do not, the cosine knows more. `prior` is the share of
    duplicates among the pairs that it speaks of.
    """

    bias: float
    by_logit: float
    by_cosine: float
    prior: float = 0.5
    low: float = -2.0  # no cosine is so low: trusted everywhere
    high: float = -1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")

    def hears(self, cosines: Values) -> np.ndarray:
        """(n,) whether a logit can matter at such a cosine; else it need not be known."""
        return (trust(cosines, self.low, self.high) > 0) & (self.by_logit != 0)

    def ranked_by(self, logits: Values, cosines: Values) -> np.ndarray:
        """(n,) float64 log-odds. Raises FloatingPointError where a value is not finite."""
        logit, cosine = np.asarray(logits, np.float64), np.asarray(cosines, np.float64)
        heard = trust(cosine, self.low, self.high) * logit
        raw = self.bias + self.by_logit * heard + self.by_cosine * cosine
        if not np.isfinite(raw).all():
            raise FloatingPointError("a score or a cosine is not finite")
        return np.asarray(raw)

    def probabilities(self, logits: Values, cosines: Values) -> np.ndarray:
        """(n,) float64 in 0..1. Raises FloatingPointError where a value is not finite."""
        return sigmoid(self.ranked_by(logits, cosines))

    def at_prior(self, prior: float) -> "Calibration":
        """The same map where `prior` of all pairs are duplicates (Elkan 2001)."""
        shift = _log_odds(prior) - _log_odds(self.prior)
        return replace(self, bias=self.bias + shift, prior=prior)


def trust(cosines: Values, low: float, high: float) -> np.ndarray:
    """(n,) from 0 at `low` to 1 at `high`, straight between."""
    return np.clip((np.asarray(cosines, np.float64) - low) / (high - low), 0.0, 1.0)


def _log_odds(share: float) -> float:
    return float(np.log(share / (1 - share)))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Logistic function that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def fit_calibration(
    logits: Values,
    cosines: Values,
    labels: Values,
    ridge: float = 1e-3,
    *,
    weights: Values | None = None,
) -> Calibration:
    """Newton's method on the log loss; rows must not be the ones the network was trained on.

    `weights` say for how many pairs each row stands: with one over the share at which pairs were
    asked about, the fit speaks of all of them (Horvitz and Thompson 1952). Raises ValueError where
    all labels are of one kind.
    """
    if len(set(np.asarray(labels).tolist())) < 2:
        raise ValueError("a calibration needs duplicates and others")
    columns = [np.ones(len(labels)), np.asarray(logits, float), np.asarray(cosines, float)]
    X, y = np.stack(columns, axis=1), np.asarray(labels, float)
    counted = np.ones(len(y)) if weights is None else np.asarray(weights, float)
    counted = counted * len(y) / counted.sum()
    found = np.zeros(3)
    for _ in range(100):
        p = sigmoid(X @ found)
        gradient = X.T @ (counted * (p - y)) + ridge * found
        hessian = (X * (counted * p * (1 - p))[:, None]).T @ X + ridge * np.eye(3)
        step = np.linalg.solve(hessian, gradient)
        step = _shortened(step, found, lambda at: _loss(X, y, counted, at, ridge))
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    bias, by_logit, by_cosine = (float(w) for w in found)
    return Calibration(bias, by_logit, by_cosine, prior=float(np.average(y, weights=counted)))


def _loss(X: np.ndarray, y: np.ndarray, counted: np.ndarray, at: np.ndarray, ridge: float) -> float:
    raw = X @ at
    costs = np.logaddexp(0.0, raw) - y * raw
    return float(counted @ costs + ridge * (at @ at) / 2)


def _shortened(step: np.ndarray, at: np.ndarray, loss: Callable[[np.ndarray], float]) -> np.ndarray:
    """The step, halved until it leads down: rows of very unlike weight let Newton's overshoot."""
    before = loss(at)
    for _ in range(30):
        if loss(at - step) <= before + 1e-12:
            break
        step = step / 2
    return step
