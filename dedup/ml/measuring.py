"""What a release is measured on: each set beside the cosine alone and words alone."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dedup.ml.baselines import tfidf_cosines
from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration
from dedup.ml.clusters import REPORTING, SHORTLIST, TOPICS, Shortlisted, shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled, forum_rows, labelled, rows
from dedup.ml.evaluation import (
    accuracy,
    average_precision,
    bootstrap_interval,
    calibration_error,
    f1,
    mean_average_precision,
    paired_interval,
)
from dedup.ml.mixture import neighbours
from dedup.ml.nearmisses import RULES
from dedup.ml.pairs import Pair, Values
from dedup.ml.text import model_input
from dedup.ml.thresholds import measure

QUANTILES = np.linspace(0.005, 0.995, 199)
TITLES = ("qqp_dev", "english_se_pairs", "rqe_test")
FORUMS = ("semeval_cqa_dev", "semeval_cqa_test2016")
INTENTS = ("banking77_test", "clinc150_test", "hwu64_test")
SYMMETRY_ROWS = 500
FITTED_EVEN = "qqp_dev"  # a random half of it gives the probabilities at even odds


@dataclass(frozen=True)
class Measured:
    """Raw scores, cosines and labels of labelled rows, each (n,); and the rows."""

    pairs: list[Pair]
    logits: np.ndarray
    cosines: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[Labelled], bi: BiEncoder, cross: CrossEncoder) -> "Measured":
        """Runs both networks over the rows."""
        read = [Pair(p.first, p.second) for p in pairs]
        labels = np.asarray([p.label for p in pairs])
        return cls(read, cross.scores(read), pair_cosines(bi.embed, read), labels)

    def beside(self, other: "Measured") -> "Measured":
        """The rows of both."""
        return Measured(
            [*self.pairs, *other.pairs],
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.cosines, other.cosines]),
            np.concatenate([self.labels, other.labels]),
        )

    def probabilities(self, calibration: Calibration) -> np.ndarray:
        """(n,) calibrated probabilities."""
        return calibration.probabilities(self.logits, self.cosines)


@dataclass(frozen=True)
class Reported:
    """Shortlists that a release is reported on, scored."""

    differences: list[str]
    measured: Measured

    @classmethod
    def of(cls, bi: BiEncoder, cross: CrossEncoder, found: Shortlisted | None = None) -> "Reported":
        """Runs both networks; over the lines of business that nothing was fitted on by default."""
        found = found or shortlisted(REPORTING, bi.embed)
        return cls(found.differences, Measured.of(found.pairs, bi, cross))

    def told_apart(self, calibration: Calibration) -> dict[str, Any]:
        """How well a release tells them apart, beside the cosine; needs no further library."""
        p, labels = self.measured.probabilities(calibration), self.measured.labels
        return {
            "rows": len(labels),
            "duplicates": int(labels.sum()),
            "metric": "AP",
            "release": average_precision(p, labels),
            "cosine": average_precision(self.measured.cosines, labels),
            "calibration_error": calibration_error(p, labels),
        }


@dataclass(frozen=True)
class Measuring:
    """A release that is measured, on a folder of labelled sets.

    `calibration` speaks of shortlisted pairs, where duplicates are rare; `even` of sets that are
    half duplicates, as labelled sets are. Rankings are the same by both.
    """

    data: Path
    bi: BiEncoder
    cross: CrossEncoder
    calibration: Calibration
    even: Calibration
    flag: float

    def all(self, reported: Reported) -> dict[str, Any]:
        """Every figure that the manifest carries; nothing was fitted on these rows."""
        topics = Reported.of(self.bi, self.cross, shortlisted(TOPICS, self.bi.embed))
        return {
            "shortlists": self.shortlists(reported),
            "topics": self.shortlists(topics),
            "sets": {
                **{name: self.titles(name) for name in TITLES},
                **{name: self.forum(name) for name in FORUMS},
            },
            "links": self.links(),
            "intents": {name: self.intents(name) for name in INTENTS},
            "rule_made_near_misses": self.near_misses(),
        }

    def shortlists(self, reported: Reported) -> dict[str, Any]:
        """Pairs as a shortlist delivers them, and what the flag threshold does there."""
        measured = reported.measured
        p, labels = measured.probabilities(self.calibration), measured.labels
        kinds = sorted(set(reported.differences) - {""})
        chosen = {kind: np.asarray([d == kind for d in reported.differences]) for kind in kinds}
        return {
            **ranked(average_precision, p, measured),
            "duplicates": int(labels.sum()),
            "calibration_error": calibration_error(p, labels),
            "flagged": measure(self.flag, 0.0, p, labels).as_dict(),
            "near_misses_flagged": {
                kind: {"rows": int(rows.sum()), "flagged": float((p[rows] >= self.flag).mean())}
                for kind, rows in chosen.items()
            },
        }

    def titles(self, name: str) -> dict[str, Any]:
        """A set of labelled pairs of titles; by length too, a third of the rows each.

        What needs a probability at even odds is measured on rows that `even` was not fitted on.
        """
        measured = Measured.of(labelled(self.data, name), self.bi, self.cross)
        p, labels = measured.probabilities(self.even), measured.labels
        lengths = [len(pair.older) + len(pair.newer) for pair in measured.pairs]
        thirds = np.argsort(np.argsort(lengths, kind="stable")) * 3 // len(lengths)
        held = random_halves(len(p))[1] if name == FITTED_EVEN else slice(None)
        p_held, known = p[held], labels[held]
        return {
            **ranked(average_precision, p, measured),
            "accuracy": accuracy(p_held, known),
            "best_accuracy": max(accuracy(p_held, known, at) for at in np.quantile(p, QUANTILES)),
            "f1": f1(p_held, known),
            "best_f1": max(f1(p_held, known, at) for at in np.quantile(p, QUANTILES)),
            "calibration_error": calibration_error(p_held, known),
            "asymmetry": self.asymmetry(measured.pairs[:SYMMETRY_ROWS]),
            "by_length": {
                kind: average_precision(p[thirds == i], labels[thirds == i])
                for i, kind in enumerate(("short", "middle", "long"))
            },
        }

    def asymmetry(self, pairs: Sequence[Pair]) -> float:
        """Largest difference of a logit between the two orders of a pair."""
        turned = [Pair(pair.newer, pair.older) for pair in pairs]
        return float(np.abs(self.cross.scores(pairs) - self.cross.scores(turned)).max())

    def forum(self, name: str) -> dict[str, Any]:
        """Candidates of forum questions; queries without a relevant one are left out."""
        measured = Measured.of(forum_rows(self.data, name), self.bi, self.cross)
        queries = [str(row["qid"]) for row in rows(self.data, name)]

        def metric(scores: Values, labels: Values) -> float:
            return mean_average_precision(queries, scores, labels)

        p = measured.probabilities(self.calibration)
        return {**ranked(metric, p, measured, interval=False), "metric": "MAP"}

    def links(self) -> dict[str, Any]:
        """Known duplicate links of small sites: mean reciprocal rank of the other end among the
        `SHORTLIST` nearest of its site. What nobody linked is not known to be different."""
        asked = list(rows(self.data, "stackexchange_questions"))
        texts = [model_input(row["title"], row["body"]) for row in asked]
        at = {(row["site"], row["id"]): i for i, row in enumerate(asked)}
        found: dict[str, list[float]] = {"release": [], "cosine": [], "tfidf": []}
        vectors = self.bi.embed(texts)
        for row in rows(self.data, "stackexchange_duplicate_links"):
            one, other = at[row["site"], row["id1"]], at[row["site"], row["id2"]]
            site = [i for i in range(len(asked)) if asked[i]["site"] == row["site"] and i != one]
            near = sorted(site, key=lambda i: -float(vectors[one] @ vectors[i]))[:SHORTLIST]
            pairs = [Labelled(texts[one], texts[i], float(i == other)) for i in near]
            measured = Measured.of(pairs, self.bi, self.cross)
            ranks = {
                "release": measured.probabilities(self.calibration),
                "cosine": measured.cosines,
                "tfidf": tfidf_cosines(measured.pairs),
            }
            for name, scores in ranks.items():
                found[name].append(average_precision(scores, measured.labels))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        return {"rows": len(found["release"]), "metric": "MRR", **means}

    def intents(self, name: str, asked: int = 300, count: int = 10) -> dict[str, Any]:
        """Near neighbours of one intent against those of others. The same intent is not the same
        question: this is reported, nobody should want it high."""
        found = [(model_input(r["text"]), r["intent"]) for r in rows(self.data, name)]
        near = neighbours(self.bi, [text for text, _ in found], count)
        drawn = random.Random(5).sample(range(len(found)), min(asked, len(found)))  # noqa: S311
        pairs = [
            Labelled(found[i][0], found[j][0], float(found[i][1] == found[j][1]))
            for i in drawn for j in near[i].tolist()
        ]  # fmt: skip
        measured = Measured.of(pairs, self.bi, self.cross)
        return ranked(
            average_precision, measured.probabilities(self.calibration), measured, interval=False
        )

    def near_misses(self, each: int = 60) -> dict[str, dict[str, float]]:
        """Share of rule-made near misses at or above `flag`, by kind, of unseen questions."""
        rng, found = random.Random(5), {}  # noqa: S311 - no secret
        texts = [p.first for p in labelled(self.data, "qqp_dev")]
        for kind, rule in RULES.items():
            made = ((text, rule(text, rng)) for text in texts)
            chosen = [Labelled(a, b, 0.0) for a, b in made if b and b != a][:each]
            p = Measured.of(chosen, self.bi, self.cross).probabilities(self.calibration)
            found[kind] = {"rows": len(chosen), "flagged": float((p >= self.flag).mean())}
        return found


def random_halves(count: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of both halves of a set. Not each other row: a set may be sorted by label."""
    drawn = np.random.default_rng(seed).permutation(count)
    return np.sort(drawn[: count // 2]), np.sort(drawn[count // 2 :])


def ranked(
    metric: Callable[[Values, Values], float], p: np.ndarray, measured: Measured,
    *, interval: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A metric of the release beside cosine and words alone, with the interval of the release's
    and of its lead over the cosine."""
    labels = measured.labels
    found: dict[str, Any] = {
        "rows": len(p),
        "metric": "AP",
        "release": metric(p, labels),
        "cosine": metric(measured.cosines, labels),
        "tfidf": metric(tfidf_cosines(measured.pairs), labels),
    }
    if interval:
        found["interval"] = bootstrap_interval(metric, p, labels)
        found["lead_interval"] = paired_interval(metric, p, measured.cosines, labels)
    return found
