"""Recall and precision from a sample in which each pair had its own chance to be asked about.

A judged pair stands for one over its chance (Horvitz and Thompson 1952). What was flagged is all
judged; below the threshold few are, and of these a handful are duplicates, each of which may stand
for dozens. An interval from a normal distribution or a bootstrap is then far too narrow, and there
is none where the sample holds no duplicate. So the sum of their weights is taken as what it nearly
is, a weighted Poisson count, with limits from the gamma distribution (Fay and Feuer 1997). Limits
of what is above and of what is below become those of the share by their recovered variances (MOVER:
Zou and Donner 2008).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dedup.ml.pairs import Values

SPREAD = 1.959964  # of a normal distribution, 95 of 100 within it
TAIL = 0.025  # on either side
FEWEST = 20  # judged pairs on the side that is estimated from; of fewer nothing is said
FEWEST_DUPLICATES = 5


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval, and how many judged pairs it comes from."""

    value: float
    low: float
    high: float
    judged: int
    duplicates: int


@dataclass(frozen=True)
class Sample:
    """Judged pairs: what the release says of each, whether it is a duplicate, and how probable it
    was that it is asked about and judged."""

    probabilities: np.ndarray
    labels: np.ndarray
    chances: np.ndarray

    @classmethod
    def of(cls, probabilities: Values, labels: Values, chances: Values) -> "Sample":
        given = (np.asarray(values, np.float64) for values in (probabilities, labels, chances))
        return cls(*given)

    def where(self, wanted: np.ndarray) -> "Sample":
        """Some of them."""
        return Sample(self.probabilities[wanted], self.labels[wanted], self.chances[wanted])


def recall(sample: Sample, threshold: float) -> Estimate | None:
    """Of all duplicates that checks met, the share at or above the threshold; None of too few."""
    is_above = sample.probabilities >= threshold
    duplicates = int(sample.labels.sum())
    if (~is_above).sum() < FEWEST or duplicates < FEWEST_DUPLICATES:
        return None
    above, below = _total(sample.where(is_above)), _total(sample.where(~is_above))
    low, high = _share_limits(above, below)
    value = above.value / (above.value + below.value)
    return Estimate(value, low, high, len(sample.labels), duplicates)


def precision(sample: Sample, threshold: float) -> Estimate | None:
    """Of all pairs at or above the threshold, the share of duplicates; None of too few.

    Wilson's interval (1927) on as many pairs as the weights are worth (Kish 1965).
    """
    above = sample.where(sample.probabilities >= threshold)
    if len(above.labels) < FEWEST:
        return None
    weights = 1 / above.chances
    value = float((weights * above.labels).sum() / weights.sum())
    worth = float(weights.sum() ** 2 / (weights**2).sum())
    low, high = wilson(value, worth)
    return Estimate(value, low, high, len(above.labels), int(above.labels.sum()))


def wilson(share: float, of: float) -> tuple[float, float]:
    """The 95 % interval of a share of so many (Wilson 1927); they need not be whole."""
    if not of:
        return 0.0, 1.0
    extra = SPREAD**2 / of
    middle = share + extra / 2
    reach = SPREAD * math.sqrt(share * (1 - share) / of + extra / (4 * of))
    return max(0.0, (middle - reach) / (1 + extra)), min(1.0, (middle + reach) / (1 + extra))


@dataclass(frozen=True)
class Total:
    """How many duplicates there are on one side, with limits."""

    value: float
    low: float
    high: float


def _total(side: Sample) -> Total:
    """Of the duplicates on one side: those that were judged for certain, and what the others stand
    for."""
    found = side.where(side.labels > 0.5)
    certain = float((found.chances >= 1).sum())
    drawn = found.chances[found.chances < 1]
    value = float((1 / drawn).sum())
    variance = float(((1 - drawn) / drawn**2).sum())
    one_more = _weight_of_one_more(side)
    low, high = gamma_limits(value, variance, one_more)
    return Total(certain + value, certain + low, certain + high)


def _weight_of_one_more(side: Sample) -> float:
    """What a duplicate that was not drawn would have stood for, had it been: the mean weight of
    those that the release expects in such a sample, or of those found where that is more."""
    drawn = side.where(side.chances < 1)
    if not len(drawn.labels):
        return 0.0
    weights = 1 / drawn.chances
    expected = float((drawn.probabilities * weights).sum() / drawn.probabilities.sum())
    found = weights[drawn.labels > 0.5]
    return max(expected, float(found.mean()) if len(found) else 0.0)


def gamma_limits(value: float, variance: float, one_more: float) -> tuple[float, float]:
    """95 % limits of a weighted Poisson count (Fay and Feuer 1997), with the weight of one more
    count (Tiwari, Clegg and Zou 2006 for the mean, which is less cautious than the largest)."""
    low = _gamma(value, variance, TAIL) if variance > 0 else value
    more = value + one_more
    spread = variance + one_more**2 * (1 if one_more > 0 else 0)
    return low, _gamma(more, spread, 1 - TAIL) if spread > 0 else more


def _gamma(mean: float, variance: float, below: float) -> float:
    """The value that a gamma variable of this mean and variance stays below so often."""
    shape, scale = mean**2 / variance, variance / mean
    return scale * _solve(
        lambda x: _gamma_below(shape, x) - below, shape + 20 + 10 * math.sqrt(shape)
    )


def _gamma_below(shape: float, value: float) -> float:
    """P(X <= value) for a gamma variable of scale 1: the series of the incomplete gamma function,
    or Wilson and Hilferty's normal (1931) where that would be long and the normal is as good."""
    if value <= 0:
        return 0.0
    if shape > 200:
        z = 3 * math.sqrt(shape) * ((value / shape) ** (1 / 3) - 1 + 1 / (9 * shape))
        return 0.5 * math.erfc(-z / math.sqrt(2))
    term = total = 1.0
    step = 0
    while term > 1e-12 * total:
        step += 1
        term *= value / (shape + step)
        total += term
    return math.exp(shape * math.log(value) - value - math.lgamma(shape + 1)) * total


def _share_limits(above: Total, below: Total) -> tuple[float, float]:
    """Limits of above / (above + below): where (1 - share) above - share below may be 0."""

    def highest(r: float) -> float:
        reach = math.hypot((1 - r) * (above.value - above.low), r * (below.high - below.value))
        return r * below.value - (1 - r) * above.value + reach

    def lowest(r: float) -> float:
        reach = math.hypot((1 - r) * (above.high - above.value), r * (below.value - below.low))
        return r * below.value - (1 - r) * above.value - reach

    return _solve(highest, 1.0), _solve(lowest, 1.0)


def _solve(rising: Callable[[float], float], highest: float) -> float:
    """Where a function that rises from 0 to `highest` crosses zero."""
    low, high = 0.0, highest
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
