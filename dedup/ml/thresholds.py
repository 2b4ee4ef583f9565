"""Lowest probability that keeps a wanted precision, with an exact interval."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dedup.ml.pairs import Values


@dataclass(frozen=True)
class Threshold:
    """A probability, what was wanted of it and what was measured there.

    `low` to `high` is the exact 95 % interval of the precision; `prior` the share of duplicates
    among the measured pairs, `flagged` how many of them reach the probability.
    """

    probability: float
    wanted_precision: float
    precision: float
    low: float
    high: float
    recall: float
    flagged: int
    prior: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def clopper_pearson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a share (Clopper and Pearson 1934); (0, 1) for no rows."""
    if total == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if right == 0 else _solve(lambda p: 1 - _below(right - 1, total, p) - tail)
    high = 1.0 if right == total else _solve(lambda p: tail - _below(right, total, p))
    return low, high


def choose_threshold(probabilities: Values, labels: Values, wanted: float) -> float | None:
    """Lowest probability at and above which the interval's lower end reaches `wanted`."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    sorted_p, right = np.asarray(probabilities)[order], np.cumsum(np.asarray(labels)[order])
    for last in range(len(order) - 1, -1, -1):
        is_tied = last + 1 < len(order) and sorted_p[last + 1] == sorted_p[last]
        if is_tied or right[last] / (last + 1) < wanted:
            continue
        if clopper_pearson(int(right[last]), last + 1)[0] >= wanted:
            return float(sorted_p[last])
    return None


def measure(probability: float, wanted: float, probabilities: Values, labels: Values) -> Threshold:
    """What a threshold does on labelled pairs that it was not chosen on."""
    found, duplicates = np.asarray(probabilities) >= probability, np.asarray(labels) > 0.5
    right, total = int((found & duplicates).sum()), int(found.sum())
    low, high = clopper_pearson(right, total)
    return Threshold(
        probability=probability,
        wanted_precision=wanted,
        precision=right / max(1, total),
        low=low,
        high=high,
        recall=float(right / max(1, duplicates.sum())),
        flagged=total,
        prior=float(duplicates.mean()),
    )


def _below(right: int, total: int, p: float) -> float:
    """P(X <= right) for a binomial; summed in logs so that large totals work."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if right >= total else 0.0
    k = np.arange(0, right + 1)
    logs = [math.lgamma(total + 1) - math.lgamma(i + 1) - math.lgamma(total - i + 1) for i in k]
    terms = np.asarray(logs) + k * math.log(p) + (total - k) * math.log1p(-p)
    top = terms.max()
    return float(min(1.0, math.exp(top) * np.exp(terms - top).sum()))


def _solve(rising) -> float:  # type: ignore[no-untyped-def]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
