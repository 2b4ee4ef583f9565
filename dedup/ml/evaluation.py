"""Metrics, with intervals.

Where pairs were asked about with different chances, each stands for as many as 1 / its share: these
are the `weights` (Horvitz and Thompson 1952). Without them all count the same.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dedup.ml.estimation import wilson
from dedup.ml.pairs import Values

Weighted = Callable[[Values, Values, np.ndarray], float]  # a metric of scores, labels, weights


def average_precision(scores: Values, labels: Values, weights: Values | None = None) -> float:
    """Mean precision at each duplicate, best score first; 0 where there is none."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    y, w = np.asarray(labels)[order] > 0.5, _weights(weights, len(order))[order]
    known = y & (w > 0)
    precision = np.cumsum(w * y)[known] / np.cumsum(w)[known]
    return float(np.average(precision, weights=w[known])) if known.any() else 0.0


def precision(p: Values, labels: Values, weights: Values | None = None, *, at: float) -> float:
    """Share of duplicates among what is at or above `at`; 0 where nothing is."""
    found, w = np.asarray(p) >= at, _weights(weights, len(p))
    return float(_share(w[found & (np.asarray(labels) > 0.5)].sum(), w[found].sum()))


def recall(p: Values, labels: Values, weights: Values | None = None, *, at: float) -> float:
    """Share of the duplicates that are at or above `at`; 0 where there is none."""
    true, w = np.asarray(labels) > 0.5, _weights(weights, len(p))
    return float(_share(w[true & (np.asarray(p) >= at)].sum(), w[true].sum()))


@dataclass(frozen=True)
class Point:
    """What a threshold at `at` would find, and how much of that is right."""

    at: float
    recall: float
    precision: float


def precision_recall_points(
    scores: Values, labels: Values, weights: Values | None = None
) -> list[Point]:
    """One point for each distinct score, highest first; none where there is no duplicate."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    s, w = np.asarray(scores, float)[order], _weights(weights, len(order))[order]
    y = np.asarray(labels)[order] > 0.5
    right, found = np.cumsum(w * y), np.cumsum(w)
    if not len(s) or right[-1] <= 0:
        return []
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # equal scores are found together
    return [
        Point(float(s[i]), float(right[i] / right[-1]), float(right[i] / found[i]))
        for i in last if found[i] > 0
    ]  # fmt: skip


def recall_at_precision(
    scores: Values, labels: Values, weights: Values | None = None, *, wanted: float
) -> float:
    """The most that any threshold finds whose precision is at least `wanted`; 0 where none is."""
    points = precision_recall_points(scores, labels, weights)
    return max((point.recall for point in points if point.precision >= wanted), default=0.0)


def mean_average_precision(queries: Sequence[str], scores: Values, labels: Values) -> float:
    """Mean over the queries that have a duplicate."""
    rows: dict[str, list[int]] = {}
    for i, query in enumerate(queries):
        rows.setdefault(query, []).append(i)
    each = [
        average_precision([scores[i] for i in chosen], [labels[i] for i in chosen])
        for chosen in rows.values()
        if any(labels[i] > 0.5 for i in chosen)
    ]
    return float(np.mean(each)) if each else 0.0


def accuracy(probabilities: Values, labels: Values, at: float = 0.5) -> float:
    """Share of rows on the right side of `at`."""
    return float(((np.asarray(probabilities) >= at) == (np.asarray(labels) > 0.5)).mean())


def f1(probabilities: Values, labels: Values, at: float = 0.5) -> float:
    """Harmonic mean of precision and recall at `at`."""
    found, true = np.asarray(probabilities) >= at, np.asarray(labels) > 0.5
    return float(2 * (found & true).sum() / max(1, found.sum() + true.sum()))


def calibration_error(
    probabilities: Values, labels: Values, weights: Values | None = None, *, bins: int = 15
) -> float:
    """Expected calibration error over equal-width bins (Naeini et al. 2015)."""
    p, y, w = np.asarray(probabilities), np.asarray(labels, float), _weights(weights, len(labels))
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(which, weights=w * (p - y), minlength=bins))
    return float(_share(gaps.sum(), w.sum()))


@dataclass(frozen=True)
class Bin:
    """Pairs of about one probability: their mean, what share were duplicates, and its interval."""

    predicted: float
    share: float
    low: float
    high: float
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def reliability_bins(
    probabilities: Values, labels: Values, weights: Values | None = None, *, bins: int = 10
) -> list[Bin]:
    """Bins of equal width that hold something (reliability diagram: DeGroot and Fienberg 1983)."""
    p, y, w = np.asarray(probabilities), np.asarray(labels) > 0.5, _weights(weights, len(labels))
    which = np.minimum((p * bins).astype(int), bins - 1)
    found = []
    for b in np.unique(which):
        rows = which == b
        share = float(np.average(y[rows], weights=w[rows]))
        low, high = wilson(share, effective_rows(w[rows]))
        mean = float(np.average(p[rows], weights=w[rows]))
        found.append(Bin(mean, share, low, high, int(rows.sum())))
    return found


def psi(then: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index of two histograms over the same parts.

    Half a score is added to each part, so that an empty one has a logarithm.
    """
    both = [[(count + 0.5) / (sum(counts) + len(counts) / 2) for count in counts]
            for counts in (then, now)]  # fmt: skip
    return sum((b - a) * math.log(b / a) for a, b in zip(*both, strict=True))


def effective_rows(weights: Values) -> float:
    """As many rows of one weight tell as much as these (Kish 1965)."""
    w = np.asarray(weights, float)
    return float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0


def bootstrap_interval(
    metric: Callable[[Values, Values], float],
    scores: Values,
    labels: Values,
    times: int = 200,
    seed: int = 7,
) -> tuple[float, float]:
    """The middle 95 % of a metric over rows drawn again (Efron 1979)."""
    s, y, rng = np.asarray(scores), np.asarray(labels), np.random.default_rng(seed)
    drawn = [rng.integers(0, len(s), len(s)) for _ in range(times)]
    values = [metric(s[d], y[d]) for d in drawn]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def paired_interval(
    metric: Callable[[Values, Values], float], scores: Values, others: Values, labels: Values,
    times: int = 200, seed: int = 7,
) -> tuple[float, float]:  # fmt: skip
    """The middle 95 % of how far the metric of `scores` is above that of `others`, both over the
    same rows drawn again (paired bootstrap: Efron and Tibshirani 1993)."""
    s, o, y = np.asarray(scores), np.asarray(others), np.asarray(labels)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(s), len(s)) for _ in range(times)]
    values = [metric(s[d], y[d]) - metric(o[d], y[d]) for d in drawn]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


@dataclass(frozen=True)
class Lead:
    """How far one release is above another, with its 95 % interval; `p` is how probable so large
    a lead, either way, were if both were equally good."""

    value: float
    low: float
    high: float
    p: float

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def cluster_draws(clusters: Sequence[Hashable], *, times: int = 500, seed: int = 7) -> np.ndarray:
    """(times, rows) how often each row is in a sample of whole clusters, drawn with replacement.

    Pairs of one cluster are no independent witnesses: drawn row by row, intervals come out too
    narrow (Field and Welsh 2007).
    """
    names: dict[Hashable, int] = {}
    which = np.asarray([names.setdefault(name, len(names)) for name in clusters], int)
    rng, count = np.random.default_rng(seed), max(1, len(names))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=times)
    return np.asarray(drawn[:, which])


def clustered(
    metric: Weighted, scores: Values, labels: Values, draws: np.ndarray,
    weights: Values | None = None,
) -> Estimate | None:  # fmt: skip
    """A metric and the middle 95 % of it over samples of whole clusters; None where fewer than
    half of the samples hold a duplicate and something else, so that nothing is known of it."""
    w = _weights(weights, len(scores))
    values = [metric(scores, labels, w * drawn) for drawn in _telling(labels, draws)]
    if 2 * len(values) < len(draws):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(metric(scores, labels, w), float(low), float(high))


def clustered_lead(
    metric: Weighted, scores: Values, others: Values, labels: Values, draws: np.ndarray,
    weights: Values | None = None,
) -> Lead | None:  # fmt: skip
    """How far the metric of `scores` is above that of `others`, both over the same samples of whole
    clusters (paired bootstrap: Efron and Tibshirani 1993, chapters 15 and 16); None as in
    `clustered`."""
    w = _weights(weights, len(scores))
    values = np.asarray([
        metric(scores, labels, w * drawn) - metric(others, labels, w * drawn)
        for drawn in _telling(labels, draws)
    ])  # fmt: skip
    if 2 * len(values) < len(draws):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(values) + 1))
    return Lead(metric(scores, labels, w) - metric(others, labels, w), float(low), float(high), p)


def _telling(labels: Values, draws: np.ndarray) -> np.ndarray:
    """The samples that hold a duplicate and something else."""
    true = np.asarray(labels) > 0.5
    return np.asarray(draws[(draws[:, true] > 0).any(axis=1) & (draws[:, ~true] > 0).any(axis=1)])


def _weights(given: Values | None, count: int) -> np.ndarray:
    return np.ones(count) if given is None else np.asarray(given, float)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
