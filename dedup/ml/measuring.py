"""What a release is measured on: each set beside the cosine alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration
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
        return calibration.probabilities(list(self.logits), list(self.cosines))


def measure_all(
    data: Path,
    bi: BiEncoder,
    cross: CrossEncoder,
    calibration: Calibration,
    held: Measured,
    flag: float,
) -> dict[str, Any]:
    """Every figure that the manifest carries; nothing was fitted on `held`."""
    p = held.probabilities(calibration)
    usage = Measured.of(labelled(data, "english_se_pairs"), bi, cross)
    p_usage = usage.probabilities(calibration)
    forum = Measured.of(forum_rows(data, "semeval_cqa_dev"), bi, cross)
    queries = [str(r["qid"]) for r in rows(data, "semeval_cqa_dev")]
    return {
        "held": {
            "rows": len(p),
            "ap": average_precision(p, held.labels),
            "ap_interval": bootstrap_interval(average_precision, p, held.labels),
            "ap_cosine": average_precision(held.cosines, held.labels),
            "accuracy": accuracy(p, held.labels),
            "f1": f1(p, held.labels),
            "calibration_error": calibration_error(p, held.labels),
        },
        "english_se_titles": {
            "ap": average_precision(p_usage, usage.labels),
            "ap_interval": bootstrap_interval(average_precision, p_usage, usage.labels),
            "ap_cosine": average_precision(usage.cosines, usage.labels),
            "accuracy": accuracy(p_usage, usage.labels),
        },
        "semeval_dev": {
            "map": mean_average_precision(queries, forum.probabilities(calibration), forum.labels),
            "map_cosine": mean_average_precision(queries, forum.cosines, forum.labels),
        },
        "near_misses_flagged": near_misses(data, bi, cross, calibration, flag),
    }


def near_misses(
    data: Path,
    bi: BiEncoder,
    cross: CrossEncoder,
    calibration: Calibration,
    flag: float,
    each: int = 60,
) -> dict[str, dict[str, float]]:
    """Share of rule-made near misses at or above `flag`, by kind, of unseen questions."""  # fmt: skip  # noqa: E501
    rng, found = random.Random(5), {}  # noqa: S311 - no secret
    texts = [p.first for p in labelled(data, "qqp_dev")]
    for kind, rule in RULES.items():
        made = ((text, rule(text, rng)) for text in texts)
        chosen = [Labelled(a, b, 0.0) for a, b in made if b and b != a][:each]
        p = Measured.of(chosen, bi, cross).probabilities(calibration)
        found[kind] = {"rows": len(chosen), "flagged": float((p >= flag).mean())}
    return found
