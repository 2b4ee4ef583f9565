"""Metrics, with intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from dedup.ml.pairs import Values


def average_precision(scores: Values, labels: Values) -> float:
    """Mean precision at each duplicate, best score first; 0 where there is none."""
    y = np.asarray(labels)[np.argsort(-np.asarray(scores), kind="stable")] > 0.5
    precision = np.cumsum(y) / np.arange(1, len(y) + 1)
    return float(precision[y].mean()) if y.any() else 0.0


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


def calibration_error(probabilities: Values, labels: Values, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins (Naeini et al. 2015)."""
    p, y = np.asarray(probabilities), np.asarray(labels, float)
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[which == b].sum() - y[which == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(p))


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
