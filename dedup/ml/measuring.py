"""What a release is measured on: each set beside the cosine alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration
from dedup.ml.clusters import REPORTING, shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled, forum_rows, labelled, rows
from dedup.ml.evaluation import (
    accuracy,
    average_precision,
    bootstrap_interval,
    calibration_error,
    f1,
    mean_average_precision,
)
from dedup.ml.nearmisses import RULES
from dedup.ml.pairs import Pair

QUANTILES = np.linspace(0.005, 0.995, 199)


@dataclass(frozen=True)
class Measured:
    """Raw scores, cosines and labels of labelled rows, each (n,)."""

    logits: np.ndarray
    cosines: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[Labelled], bi: BiEncoder, cross: CrossEncoder) -> "Measured":
        """Runs both networks over the rows."""
        read = [Pair(p.first, p.second) for p in pairs]
        labels = np.asarray([p.label for p in pairs])
        return cls(cross.scores(read), pair_cosines(bi.embed, read), labels)

    def probabilities(self, calibration: Calibration) -> np.ndarray:
        """(n,) calibrated probabilities."""
        return calibration.probabilities(self.logits, self.cosines)


@dataclass(frozen=True)
class Reported:
    """The shortlists that a release is reported on, scored."""

    differences: list[str]
    measured: Measured

    @classmethod
    def of(cls, bi: BiEncoder, cross: CrossEncoder) -> "Reported":
        """Runs both networks over the lines of business that nothing was fitted on."""
        found = shortlisted(REPORTING, bi.embed)
        return cls(found.differences, Measured.of(found.pairs, bi, cross))


def measure_all(
    data: Path,
    bi: BiEncoder,
    cross: CrossEncoder,
    calibration: Calibration,
    flag: float,
    reported: Reported,
) -> dict[str, Any]:
    """Every figure that the manifest carries; nothing was fitted or chosen on these rows.

    Rankings are by the release's probability, beside the cosine alone. `calibration` speaks of
    shortlisted pairs, where duplicates are rare; for sets that are half duplicates it is carried
    to their share first.
    """
    return {
        "shortlists": _shortlists(reported, calibration, flag),
        "sets": {
            "qqp_dev": _pairs(labelled(data, "qqp_dev"), bi, cross, calibration),
            "english_se_pairs": _pairs(labelled(data, "english_se_pairs"), bi, cross, calibration),
            "rqe_test": _pairs(labelled(data, "rqe_test"), bi, cross, calibration),
            "semeval_cqa_dev": _forum(data, "semeval_cqa_dev", bi, cross, calibration),
            "semeval_cqa_test2016": _forum(data, "semeval_cqa_test2016", bi, cross, calibration),
        },
        "rule_made_near_misses": near_misses(data, bi, cross, calibration, flag),
    }


def _shortlists(reported: Reported, calibration: Calibration, flag: float) -> dict[str, Any]:
    measured = reported.measured
    p, labels = measured.probabilities(calibration), measured.labels
    kinds = sorted(set(reported.differences) - {""})
    chosen = {kind: np.asarray([d == kind for d in reported.differences]) for kind in kinds}
    return {
        "rows": len(p),
        "duplicates": int(labels.sum()),
        "ap": average_precision(p, labels),
        "ap_interval": bootstrap_interval(average_precision, p, labels),
        "ap_cosine": average_precision(measured.cosines, labels),
        "calibration_error": calibration_error(p, labels),
        "near_misses_flagged": {
            kind: {"rows": int(rows.sum()), "flagged": float((p[rows] >= flag).mean())}
            for kind, rows in chosen.items()
        },
    }


def _pairs(
    found: Sequence[Labelled], bi: BiEncoder, cross: CrossEncoder, calibration: Calibration
) -> dict[str, Any]:
    measured = Measured.of(found, bi, cross)
    p, labels = measured.probabilities(calibration.at_prior(0.5)), measured.labels
    return {
        "rows": len(p),
        "metric": "AP",
        "release": average_precision(p, labels),
        "interval": bootstrap_interval(average_precision, p, labels),
        "cosine": average_precision(measured.cosines, labels),
        "accuracy": accuracy(p, labels),
        "best_accuracy": max(accuracy(p, labels, at) for at in np.quantile(p, QUANTILES)),
        "f1": f1(p, labels),
    }


def _forum(
    data: Path, name: str, bi: BiEncoder, cross: CrossEncoder, calibration: Calibration
) -> dict[str, Any]:
    measured = Measured.of(forum_rows(data, name), bi, cross)
    queries = [str(row["qid"]) for row in rows(data, name)]

    def metric(scores: np.ndarray) -> float:
        return mean_average_precision(queries, scores, measured.labels)

    return {
        "rows": len(queries),
        "metric": "MAP",
        "release": metric(measured.probabilities(calibration)),
        "cosine": metric(measured.cosines),
    }


def near_misses(
    data: Path, bi: BiEncoder, cross: CrossEncoder, calibration: Calibration, flag: float,
    each: int = 60,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Share of rule-made near misses at or above `flag`, by kind, of unseen questions."""
    rng, found = random.Random(5), {}  # noqa: S311 - no secret
    texts = [p.first for p in labelled(data, "qqp_dev")]
    for kind, rule in RULES.items():
        made = ((text, rule(text, rng)) for text in texts)
        chosen = [Labelled(a, b, 0.0) for a, b in made if b and b != a][:each]
        p = Measured.of(chosen, bi, cross).probabilities(calibration)
        found[kind] = {"rows": len(chosen), "flagged": float((p >= flag).mean())}
    return found
