"""How well recall is estimated from flags and a few pairs from below the threshold.

Labelled pairs, scored once, are drawn again and again into made-up portals in which few pairs are
duplicates. In each, the release's threshold and the random lane decide what is asked about, exactly
as a check does, people judge it as the labels say, and recall is estimated from that alone. What is
reported: how often its 95 % interval holds the portal's true recall, how wide it is, how far the
estimate is off on average, and the same for counting without weights.
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dedup import decision
from dedup.decision import ScoredCandidate
from dedup.ml import data, estimation
from dedup.ml.estimation import Estimate, Sample
from dedup.ml.pairs import Pair

SETS = {"Quora": ["qqp_dev"], "Qatar Living": ["semeval_cqa_dev", "semeval_cqa_test2016"]}
SCORED_TOGETHER = 500


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench sampling`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with labelled sets")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE, help="an artifact's folder")
    parser.add_argument("--portals", type=int, default=200, help="drawn for each line")
    parser.add_argument("--pairs", type=int, default=5_000, help="that a portal's checks scored")
    parser.add_argument("--candidates", type=int, default=10, help="pairs of one question")
    parser.add_argument("--prior", type=float, default=0.04, help="share of duplicates")
    parser.add_argument(
        "--recalls", type=float, nargs="*", default=[0.8, 0.5],
        help="thresholds that find so much of all, beside the release's own",
    )  # fmt: skip
    parser.add_argument(
        "--per-question", type=float, nargs="+", default=[0.05, 0.5],
        help="pairs from below the threshold asked about for each question",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the table that shows them."""
    kept = ("release", "portals", "pairs", "candidates", "prior", "seed")
    found: dict[str, Any] = {name: options[name] for name in kept} | {"lines": []}
    for name, files in SETS.items():
        own = scored(options["data"], files, options["release"], console)
        for pool in (own, *(own.at_recall(share) for share in options["recalls"])):
            for per_question in options["per_question"]:
                rng = np.random.default_rng(options["seed"])
                step = f"{name} at {pool.threshold:.2f}, {per_question} a question"
                portals = track(range(options["portals"]), step, console=console, transient=True)
                trials = [trial(pool, per_question, options, rng) for _ in portals]
                line = {"set": name, "threshold": pool.threshold, "per_question": per_question}
                found["lines"].append(line | summed(trials))
    return found, [table(found)]


@dataclass(frozen=True)
class Pool:
    """Labelled pairs with what a release said of them."""

    probabilities: np.ndarray
    labels: np.ndarray
    threshold: float

    def at_recall(self, share: float) -> "Pool":
        """The same at the threshold that finds so much of all duplicates."""
        found = np.quantile(self.probabilities[self.labels > 0.5], 1 - share)
        return replace(self, threshold=float(found))


def scored(folder: Path, files: list[str], release: str, console: Console) -> Pool:
    """Scores of all labelled pairs of these files, as the release says them in service."""
    from dedup.ml.biencoder import pair_cosines  # noqa: PLC0415 - loads torch
    from dedup.ml.release import open_release  # noqa: PLC0415

    try:
        rows = [row for name in files for row in _rows(folder, name)]
    except OSError as error:
        raise CommandError(f"The labelled sets cannot be read: {error}") from error
    scorer = open_release(settings.DEDUP_ARTIFACTS / release, threads=settings.DEDUP_THREADS)
    pairs = [Pair(row.first, row.second) for row in rows]
    said: list[float] = []
    parts = range(0, len(pairs), SCORED_TOGETHER)
    for begun in track(parts, f"scoring {', '.join(files)}", console=console, transient=True):
        some = pairs[begun : begun + SCORED_TOGETHER]
        judged = scorer.judge(some, list(pair_cosines(scorer.embed, some)))
        said += [one.probability for one in judged]
    labels = np.asarray([row.label for row in rows])
    return Pool(np.asarray(said), labels, scorer.manifest.thresholds["flag"])


def _rows(folder: Path, name: str) -> list[data.Labelled]:
    is_forum = name.startswith("semeval")
    return data.forum_rows(folder, name) if is_forum else data.labelled(folder, name)


@dataclass(frozen=True)
class Trial:
    """What was estimated of one portal, and what is true of it."""

    true: float
    estimate: Estimate | None  # nothing is said of too few
    counted: float  # the same labels, without weights
    asked_below: int


def trial(
    pool: Pool, per_question: float, options: Mapping[str, Any], rng: np.random.Generator
) -> Trial:
    """One portal: its pairs drawn, asked about as checks do, judged, and its recall estimated."""
    drawn = draw(pool, options, rng)
    said, labels = pool.probabilities[drawn], pool.labels[drawn]
    chances = np.where(said >= pool.threshold, 1.0, 0.0)
    for begun in range(0, len(drawn), options["candidates"]):
        rows = slice(begun, begun + options["candidates"])
        for row, share in asked_below(said[rows], pool.threshold, per_question, rng):
            chances[begun + row] = share
    asked = chances > 0
    sample = Sample(said[asked], labels[asked], chances[asked])
    is_found = said >= pool.threshold
    return Trial(
        true=float(labels[is_found].sum() / labels.sum()),
        estimate=estimation.recall(sample, pool.threshold),
        counted=float(labels[is_found].sum() / max(1, sample.labels.sum())),
        asked_below=int((asked & ~is_found).sum()),
    )


def draw(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Rows of the pool, with as many duplicates as there are where that is a matter of chance."""
    same, other = np.flatnonzero(pool.labels > 0.5), np.flatnonzero(pool.labels <= 0.5)
    duplicates = max(1, rng.binomial(options["pairs"], options["prior"]))
    found = [rng.choice(same, duplicates), rng.choice(other, options["pairs"] - duplicates)]
    return rng.permutation(np.concatenate(found))


def asked_below(
    said: np.ndarray, threshold: float, per_question: float, rng: np.random.Generator
) -> Iterator[tuple[int, float]]:
    """Which of one question's pairs are asked about blindly, and how probable that was."""
    scored = [ScoredCandidate(row, row, "", 0.0, 0.0, float(said[row])) for row in range(len(said))]
    numbers = rng.random(len(said))
    for one in decision.sample(
        scored,
        threshold=threshold,
        per_question=per_question,
        draw=lambda candidate: float(numbers[candidate.question_id]),
    ):
        yield one.candidate.question_id, one.share


def summed(trials: list[Trial]) -> dict[str, Any]:
    """Over all portals of which something was said."""
    said = [(one, one.estimate) for one in trials if one.estimate]
    mean: dict[str, list[float]] = {
        "true_recall": [one.true for one in trials],
        "asked_below": [one.asked_below for one in trials],
        "covered": [estimate.low <= one.true <= estimate.high for one, estimate in said],
        "true_is_lower": [one.true < estimate.low for one, estimate in said],
        "true_is_higher": [one.true > estimate.high for one, estimate in said],
        "width": [estimate.high - estimate.low for _, estimate in said],
        "bias": [estimate.value - one.true for one, estimate in said],
        "bias_unweighted": [one.counted - one.true for one in trials],
        "bias_flagged_only": [1 - one.true for one in trials],
    }
    figures = {name: float(np.mean(values)) if values else None for name, values in mean.items()}
    return figures | {"silent": len(trials) - len(said)}


def table(found: dict[str, Any]) -> Table:
    """One line for each set and share."""
    title = (
        f"Recall estimated in {found['portals']} portals of {found['pairs']:,} pairs,"
        f" {100 * found['prior']:.0f} % duplicates; intervals are to hold 95 of 100"
    )
    drawn = Table(title=title)
    heads = {
        "asked below": "asked_below", "true": "true_recall", "covered": "covered",
        "width": "width", "bias": "bias", "bias, no weights": "bias_unweighted",
        "bias, flags only": "bias_flagged_only",
    }  # fmt: skip
    for head in ("set", "threshold", "a question", *heads, "silent"):
        drawn.add_column(head, justify="left" if head == "set" else "right")
    for line in found["lines"]:
        values = [line[key] for key in heads.values()]
        shown = ["-" if v is None else f"{v:.0f}" if v > 5 else f"{v:.3f}" for v in values]
        given = (line["set"], f"{line['threshold']:.3f}", f"{line['per_question']:g}")
        drawn.add_row(*given, *shown, str(line["silent"]))
    return drawn
