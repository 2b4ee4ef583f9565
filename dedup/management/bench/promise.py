"""How often a precision that a threshold promises holds on the whole population.

Labelled pairs, scored once, are a population in which duplicates are as rare as stated. Many
portals are drawn from it, each with a few labelled pairs; each chooses its thresholds from these
alone, and the population says what they are worth. Two ways of asking: pairs drawn at random, and
as portals ask, all that are flagged and a few from below, the likelier the oftener.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dedup.decision import LEAST
from dedup.ml.pairs import Values
from dedup.ml.thresholds import choose_threshold, clopper_pearson, promised_threshold

TITLES = "qqp_dev"
FORUMS = (
    "semeval_cqa_train_part1",
    "semeval_cqa_train_part2",
    "semeval_cqa_dev",
    "semeval_cqa_test2016",
)
CONFIDENCE = 0.95
FROM_BELOW = 0.25  # of what portals ask, as wide as settings allow
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float | None]


@dataclass(frozen=True)
class Population:
    """All pairs with their probabilities and labels, how often each comes, and how probable it is
    that a portal asks about it; rows in falling order of probability, masses sum to one."""

    probabilities: np.ndarray
    is_duplicate: np.ndarray
    mass: np.ndarray
    share: np.ndarray

    @classmethod
    def of(
        cls, probabilities: Values, labels: Values, *, prior: float, flag: float
    ) -> "Population":
        """Pairs of which `prior` are duplicates and those from `flag` on are all asked about."""
        order = np.argsort(-np.asarray(probabilities), kind="stable")
        p, right = np.asarray(probabilities)[order], np.asarray(labels)[order] > 0.5
        mass = np.where(right, prior / right.sum(), (1 - prior) / (~right).sum())
        weight = np.sqrt(np.maximum(p, LEAST))
        below = p < flag
        flagged = mass[~below].sum()
        wanted = flagged * FROM_BELOW / (1 - FROM_BELOW)
        scale = wanted / max((mass * weight)[below].sum(), 1e-12)
        return cls(p, right, mass, np.where(below, np.minimum(1.0, scale * weight), 1.0))

    def precision(self, threshold: float) -> float:
        """Share of duplicates among all at or above it."""
        chosen = self.probabilities >= threshold
        return float(self.mass[chosen & self.is_duplicate].sum() / self.mass[chosen].sum())

    def recall(self, threshold: float) -> float:
        """Share of the duplicates that are at or above it."""
        chosen = self.mass[(self.probabilities >= threshold) & self.is_duplicate]
        return float(chosen.sum() / self.mass[self.is_duplicate].sum())

    def best_recall(self, wanted: float) -> float:
        """The most that any threshold of this precision keeps."""
        right = np.cumsum(self.mass * self.is_duplicate)
        ends = np.append(self.probabilities[1:] < self.probabilities[:-1], True)
        kept = ends & (right >= wanted * np.cumsum(self.mass))
        return float(right[kept].max() / right[-1]) if kept.any() else 0.0

    def drawn(self, count: int, *, is_asked: bool, rng: np.random.Generator) -> np.ndarray:
        """Row numbers of `count` labelled pairs of one portal."""
        often = self.mass * self.share if is_asked else self.mass
        return rng.choice(len(often), size=count, p=often / often.sum())


def plug_in(
    probabilities: np.ndarray, labels: np.ndarray, shares: np.ndarray, wanted: float
) -> float | None:
    """The lowest threshold at which the labels, weighted, show the precision."""
    order = np.argsort(-probabilities, kind="stable")
    p, weight = probabilities[order], 1 / shares[order]
    ends = np.append(p[1:] < p[:-1], True)
    shown = ends & (np.cumsum(weight * labels[order]) >= wanted * np.cumsum(weight))
    return float(p[np.flatnonzero(shown)[-1]]) if shown.any() else None


def by_interval(
    probabilities: np.ndarray, labels: np.ndarray, shares: np.ndarray, wanted: float
) -> float | None:
    """The lowest threshold at which the interval of these rows reaches it; knows no shares."""
    return choose_threshold(probabilities, labels, wanted)


def promised(
    probabilities: np.ndarray, labels: np.ndarray, shares: np.ndarray, wanted: float
) -> float | None:
    """What a portal is promised."""
    return promised_threshold(probabilities, labels, wanted, confidence=CONFIDENCE, shares=shares)


RULES: dict[str, Rule] = {
    "promised": promised,
    "by the interval": by_interval,
    "plug-in": plug_in,
}


def add_arguments(parser: ArgumentParser) -> None:
    """Of `manage.py bench promise`."""
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled pairs")
    parser.add_argument("--release", default=settings.DEDUP_RELEASE, help="name or folder")
    parser.add_argument("--portals", type=int, default=200)
    parser.add_argument("--labels", type=int, nargs="+", default=[1_000, 3_000], help="a portal's")
    parser.add_argument("--wanted", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--prior", type=float, default=0.2, help="share of duplicates")
    parser.add_argument("--rows", type=int, default=0, help="of each set, 0 for all")
    parser.add_argument("--seed", type=int, default=1)


def run(console: Console, options: dict[str, Any]) -> tuple[dict[str, Any], list[Table]]:
    """Figures, and the tables that show them."""
    folder = Path(options["release"])
    folder = folder if folder.is_dir() else settings.DEDUP_ARTIFACTS / options["release"]
    with console.status("scoring"):
        p, labels, flag = scored(folder, options["data"], options["rows"])
    population = Population.of(p, labels, prior=options["prior"], flag=flag)
    designs = [(count, is_asked) for count in options["labels"] for is_asked in (False, True)]
    found: dict[str, Any] = {
        "pairs": len(p), "prior": options["prior"], "portals": options["portals"],
        "confidence": CONFIDENCE, "seed": options["seed"], "flag": flag,
        "best_recall": {str(w): population.best_recall(w) for w in options["wanted"]},
        "rows": [],
    }  # fmt: skip
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("choosing", total=len(designs) * options["portals"])
        for count, is_asked in designs:
            step = partial(progress.advance, task)
            found["rows"] += measured(population, count, is_asked, options, step)
    return found, tables(found)


def scored(folder: Path, data: Path, most: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Probabilities and labels of titles and forum questions, and the release's threshold."""
    from dedup.ml.data import forum_rows, labelled  # noqa: PLC0415 - needs torch
    from dedup.ml.measuring import Measured  # noqa: PLC0415
    from dedup.ml.release import open_release  # noqa: PLC0415

    scorer = open_release(folder, threads=1)
    sets = [labelled(data, TITLES), *(forum_rows(data, name) for name in FORUMS)]
    pairs = [pair for one in sets for pair in (one[:most] if most else one)]
    read = Measured.of(pairs, scorer.bi, scorer.cross)
    return read.probabilities(scorer.calibration), read.labels, scorer.manifest.thresholds["flag"]


def measured(
    population: Population, count: int, is_asked: bool, options: dict[str, Any],
    step: Callable[[], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each rule and wanted precision: what came of it on all portals."""
    chosen: dict[tuple[str, float], list[float | None]] = {}
    rng = np.random.default_rng([options["seed"], count, is_asked])
    for _ in range(options["portals"]):
        rows = population.drawn(count, is_asked=is_asked, rng=rng)
        p, labels = population.probabilities[rows], population.is_duplicate[rows].astype(float)
        shares = population.share[rows] if is_asked else np.ones(count)
        for wanted in options["wanted"]:
            for name, rule in RULES.items():
                chosen.setdefault((name, wanted), []).append(rule(p, labels, shares, wanted))
        step()
    return [
        {"labels": count, "asked": is_asked, "rule": name, "wanted": wanted}
        | what_came(population, wanted, thresholds)
        for (name, wanted), thresholds in chosen.items()
    ]


def what_came(
    population: Population, wanted: float, thresholds: list[float | None]
) -> dict[str, Any]:
    """How often a promise was made and broken, how often none was made, the recall kept."""
    made = [at for at in thresholds if at is not None]
    broken = sum(population.precision(at) < wanted for at in made)
    return {
        "broken": broken / len(thresholds),
        "interval": clopper_pearson(broken, len(thresholds)),
        "none": 1 - len(made) / len(thresholds),
        "recall": sum(map(population.recall, made)) / len(thresholds),
        "recall_where_promised": sum(map(population.recall, made)) / max(1, len(made)),
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """One row for each way of asking, rule and wanted precision."""
    title = (
        f"{found['portals']} portals out of {found['pairs']} pairs, {found['prior']:.0%} of them"
        f" duplicates: promises at {found['confidence']:.0%} confidence"
    )
    table = Table(title=title)
    for name in ("labels", "asked", "wanted", "rule", "broken", "95 %", "none", "recall", "of"):
        table.add_column(name, justify="left" if name in ("asked", "rule") else "right")
    for row in found["rows"]:
        low, high = row["interval"]
        table.add_row(
            f"{row['labels']:,}",
            "flagged and drawn" if row["asked"] else "at random",
            f"{row['wanted']:.2f}",
            row["rule"],
            f"{row['broken']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['none']:.2f}",
            f"{row['recall']:.3f}",
            f"{found['best_recall'][str(row['wanted'])]:.3f}",
        )
    return [table]
