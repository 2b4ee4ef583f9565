"""The loop from verdicts to better releases, closed on labelled pairs: simulated agents say what
the labels say, now and then wrongly.

It starts at the base's cosine, without any fine-tuning. What is asked, learned, calibrated and
measured is as on a portal: pairs at or above the threshold and a random lane below it, each with
the probability of being asked; further ones chosen to learn from; questions of one cluster on one
side only. `asked_by` decides what else is asked, so that ways of asking can be compared.
"""

import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration, fit_calibration
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled, forum_rows, labelled
from dedup.ml.finetuning import Plan, Taught, Tell, finetune
from dedup.ml.fitting import MIDDLE, SCALE
from dedup.ml.packing import fastest_dtype
from dedup.ml.pairs import Pair

log = logging.getLogger(__name__)

SETS = ("qqp_dev",)
FORUMS = ("semeval_cqa_dev", "semeval_cqa_test2016", "semeval_cqa_train_part1",
          "semeval_cqa_train_part2")  # fmt: skip
BELOW = 0.15  # share of the verdicts that a random lane below the threshold takes
CHOSEN = 0.35  # share that is chosen to learn from
THRESHOLD = 0.5  # pairs at or above it are flagged
TUNE = 0.2  # share of clusters whose labels calibrate and say when to stop
REPLAY = 0.3  # pairs that nobody judged, for each label
LARGE = 50  # pairs of a cluster; such clusters are asked about


@dataclass(frozen=True)
class Portal:
    """Pairs that agents can be asked about (`pool`), and others of questions that no pair of the
    pool has (`held`); the clusters of their questions."""

    pool: list[Labelled]
    held: list[Labelled]
    pool_clusters: np.ndarray
    held_clusters: np.ndarray


def make_portal(data: Path, pool: int, seed: int) -> Portal:
    """All pairs of the sets in `data`, parted by cluster of questions: `pool` of them, at least,
    to ask about, the rest held."""
    pairs = [pair for name in SETS for pair in labelled(data, name)]
    pairs += [pair for name in FORUMS for pair in forum_rows(data, name)]
    clusters = clusters_of(pairs)
    order = list(dict.fromkeys(clusters.tolist()))
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    sizes = np.bincount(clusters)
    order.sort(key=lambda c: sizes[c] < LARGE)  # else the last one may be of thousands
    taken = np.cumsum([sizes[c] for c in order])
    asked = set(order[: int(np.searchsorted(taken, pool)) + 1])
    is_pool = np.asarray([c in asked for c in clusters.tolist()])
    return Portal(
        [pair for pair, inside in zip(pairs, is_pool, strict=True) if inside],
        [pair for pair, inside in zip(pairs, is_pool, strict=True) if not inside],
        clusters[is_pool],
        clusters[~is_pool],
    )


def clusters_of(pairs: Sequence[Labelled]) -> np.ndarray:
    """(n,) number of each pair's cluster: pairs that share a text, over any steps, have one."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for pair in pairs:
        parent[root(pair.first)] = root(pair.second)
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(root(p.first), len(numbers)) for p in pairs])


@dataclass(frozen=True)
class Asked:
    """A pair of the pool that an agent judged."""

    row: int
    label: float  # what the agent said
    share: float | None  # how probable it was that it is asked; None: chosen to learn from


@dataclass(frozen=True)
class Measured:
    """What is said of the held pairs after so many verdicts."""

    verdicts: int
    wrong: int  # of them
    duplicates: int  # among them, as the agents say
    seconds: float  # of training
    probabilities: np.ndarray  # by the release that was trained
    recalibrated: np.ndarray  # by the base, calibrated on the same labels


Scores = np.ndarray  # (n,) probabilities of the pool's pairs
# Which rows of the pool to learn from: of the scores, the rows that are free, and how many.
Choose = Callable[[Scores, Sequence[int], int], list[int]]


class Simulation:
    """One way of asking, from the base on."""

    def __init__(
        self, portal: Portal, base: Path, folder: Path, *, seed: int, wrong: float, plan: Plan,
        progress: Tell = lambda done, total, step, left: None,
    ) -> None:  # fmt: skip
        self.portal, self.base, self.folder = portal, base, folder
        self.seed, self.wrong, self.plan, self.progress = seed, wrong, plan, progress
        bi = BiEncoder(base, fastest_dtype())
        self.pool_cosines = pair_cosines(bi.embed, _pairs(portal.pool))
        self.held_cosines = pair_cosines(bi.embed, _pairs(portal.held))
        self.rng = random.Random(f"{seed} asking")  # noqa: S311 - no secret
        self.asked: dict[int, Asked] = {}
        # What the newest release says of the pool: asked only where it decides what is asked.
        self._score = lambda: self.by_cosine(self.pool_cosines)

    @staticmethod
    def by_cosine(cosines: np.ndarray) -> np.ndarray:
        """What the base says, before anything was learned."""
        return np.asarray(1 / (1 + np.exp(-SCALE * (cosines - MIDDLE))))

    def run(self, steps: Sequence[int], choose: Choose | None) -> list[Measured]:
        """Ask up to each number of verdicts, retrain there, measure; the first is the base. Without
        a `choose` all are asked at random."""
        base = self.by_cosine(self.held_cosines)
        found = [Measured(0, 0, 0, 0.0, base, base)]
        for step in steps:
            self.ask(step - len(self.asked), choose)
            found.append(self.retrained(f"{step}"))
            log.info("%d verdicts, %.0f s of training", step, found[-1].seconds)
        return found

    def ask(self, count: int, choose: Choose | None) -> None:
        """Have `count` more pairs judged."""
        free = [row for row in range(len(self.portal.pool)) if row not in self.asked]
        if choose is None:
            self._judge(self._drawn(free, count))
            return
        chosen, scores = round(CHOSEN * count), self._score()
        below = [row for row in free if scores[row] < THRESHOLD]
        above = [row for row in free if scores[row] >= THRESHOLD]
        lane = min(len(below), round(BELOW * count))
        flagged = min(len(above), count - chosen - lane)
        self._judge(self._drawn(below, lane))
        self._judge(self._drawn(above, flagged))
        free = [row for row in free if row not in self.asked]
        picked = choose(scores, free, count - lane - flagged)
        self._judge([(row, None) for row in picked])

    def _drawn(self, rows: Sequence[int], count: int) -> list[tuple[int, float | None]]:
        return [(row, count / len(rows)) for row in self.rng.sample(rows, count)]

    def _judge(self, asked: Sequence[tuple[int, float | None]]) -> None:
        for row, share in asked:
            label = self.portal.pool[row].label
            said = 1 - label if self._number(row, "wrong") < self.wrong else label
            self.asked[row] = Asked(row, said, share)

    def _number(self, what: int, why: str) -> float:
        """A number in [0, 1) that is always the same for this seed."""
        digest = sha256(f"{self.seed} {why} {what}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48

    def retrained(self, name: str) -> Measured:
        """Make a release of all verdicts; what it says of the pool is what is asked by from now."""
        asked = list(self.asked.values())
        part = [self._number(int(self.portal.pool_clusters[one.row]), "part") for one in asked]
        tune = [one for one, at in zip(asked, part, strict=True) if at < TUNE]
        train = [one for one, at in zip(asked, part, strict=True) if at >= TUNE]
        free = [row for row in range(len(self.portal.pool)) if row not in self.asked]
        replay = self.rng.sample(free, min(len(free), round(REPLAY * len(asked))))
        made = finetune(
            bi=self.base, start=None, taught=[self._taught(one) for one in train],
            tune=[self._taught(one) for one in tune],
            replay=_pairs([self.portal.pool[row] for row in replay]),
            out=self.folder / name, plan=self.plan, progress=self.progress,
        )  # fmt: skip
        cross = CrossEncoder(made.folder)
        kept = [one for one in tune if one.share is not None]
        logits = cross.scores(_pairs([self.portal.pool[one.row] for one in kept]))
        calibration = self._calibrated(logits, kept)
        by_cosine = self._calibrated(np.zeros(len(kept)), kept)
        held = cross.scores(_pairs(self.portal.held))
        self._score = lambda: calibration.probabilities(
            cross.scores(_pairs(self.portal.pool)), self.pool_cosines
        )
        return Measured(
            verdicts=len(asked),
            wrong=sum(one.label != self.portal.pool[one.row].label for one in asked),
            duplicates=int(sum(one.label for one in asked)),
            seconds=made.seconds,
            probabilities=calibration.probabilities(held, self.held_cosines),
            recalibrated=by_cosine.probabilities(np.zeros(len(held)), self.held_cosines),
        )

    def _taught(self, one: Asked) -> Taught:
        pair = self.portal.pool[one.row]
        return Taught(pair.first, pair.second, one.label)

    def _calibrated(self, logits: np.ndarray, kept: Sequence[Asked]) -> Calibration:
        """On labels that the network was not trained on, each counted one over its probability of
        being asked; never on those that were chosen."""
        cosines = self.pool_cosines[[one.row for one in kept]]
        fitted = fit_calibration(
            np.zeros(len(kept)), SCALE * cosines + logits, [one.label for one in kept],
            weights=[1 / (one.share or math.nan) for one in kept],
        )  # fmt: skip
        slope = fitted.by_cosine
        return Calibration(fitted.bias, slope, SCALE * slope, fitted.prior)


def _pairs(rows: Sequence[Labelled]) -> list[Pair]:
    return [Pair(row.first, row.second) for row in rows]
