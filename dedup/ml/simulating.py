"""The loop from verdicts to better releases, closed on labelled pairs: simulated agents say what
the labels say, now and then wrongly.

It starts at the base's cosine, without any fine-tuning; each training begins at a network that
learned to say that cosine, without a label, of the portal's own pairs. What is asked,
learned, calibrated and measured is as on a portal: pairs at or above the threshold and a random
lane below it, each with the probability of being asked; further ones chosen to learn from; no
question on two sides.
"""

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration, fit_calibration
from dedup.ml.choosing import entropy, pair_points, pick
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled, forum_rows, labelled
from dedup.ml.finetuning import Plan, Taught, Tell, finetune, learn_to_compare
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
CANDIDATES, KNOWN = 1_000, 2_000  # to choose from, and labelled ones to differ from; at least
TUNE = 0.2  # share of clusters whose labels calibrate and say when to stop
COMPARED = 3_000  # pairs, without their labels, by which the network learns to compare
REPLAY = 0.3  # pairs that nobody judged, for each label


@dataclass(frozen=True)
class Portal:
    """Pairs that agents can be asked about (`pool`), and others of questions that no pair of the
    pool has (`held`); of both the clusters of their questions."""

    pool: list[Labelled]
    held: list[Labelled]
    pool_clusters: np.ndarray
    held_clusters: np.ndarray


def make_portal(data: Path, pool: int, seed: int) -> Portal:
    """Pairs of the sets in `data`: about `pool` of them to ask about, by whole queries (a pair's
    first text), and of the rest those held that share no question with these."""
    pairs = [pair for name in SETS for pair in labelled(data, name)]
    pairs += [pair for name in FORUMS for pair in forum_rows(data, name)]
    by_query: dict[str, list[Labelled]] = {}
    for pair in pairs:
        by_query.setdefault(pair.first, []).append(pair)
    queries = list(by_query)
    random.Random(seed).shuffle(queries)  # noqa: S311 - no secret
    asked: list[Labelled] = []
    while queries and len(asked) < pool:
        asked += by_query[queries.pop()]
    known = {text for pair in asked for text in (pair.first, pair.second)}
    rest = [pair for query in queries for pair in by_query[query]]
    held = [pair for pair in rest if not {pair.first, pair.second} & known]
    return Portal(asked, held, clusters_of(asked), clusters_of(held))


def make_start(
    portal: Portal, base: Path, out: Path, *, plan: Plan,
    progress: Tell = lambda done, total, step, left: None,
) -> Path:  # fmt: skip
    """A network that learned, of pairs of the pool and without their labels, to compare texts."""
    pairs = random.Random(f"{plan.seed} comparing").sample(  # noqa: S311 - no secret
        portal.pool, min(len(portal.pool), COMPARED)
    )
    return learn_to_compare(bi=base, pairs=_pairs(pairs), out=out, plan=plan, progress=progress)


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


class Simulation:
    """One way of asking, from the base on."""

    def __init__(
        self, portal: Portal, base: Path, start: Path, folder: Path, *, seed: int, wrong: float,
        plan: Plan,
        progress: Tell = lambda done, total, step, left: None,
    ) -> None:  # fmt: skip
        self.portal, self.base, self.start, self.folder = portal, base, start, folder
        self.seed, self.wrong, self.plan, self.progress = seed, wrong, plan, progress
        torch.set_num_threads(plan.threads)
        bi = BiEncoder(base, fastest_dtype())
        ones, others = (
            bi.embed([getattr(pair, end) for pair in portal.pool]) for end in ("first", "second")
        )
        self.points = pair_points(ones, others)
        self.pool_cosines = (ones * others).sum(axis=1)
        self.held_cosines = pair_cosines(bi.embed, _pairs(portal.held))
        self.rng = random.Random(f"{seed} asking")  # noqa: S311 - no secret
        self.asked: dict[int, Asked] = {}
        # What the newest release says of the pool: asked only where it decides what is asked.
        self._score = lambda: self.by_cosine(self.pool_cosines)

    @staticmethod
    def by_cosine(cosines: np.ndarray) -> np.ndarray:
        """What the base says, before anything was learned."""
        return np.asarray(1 / (1 + np.exp(-SCALE * (cosines - MIDDLE))))

    def run(self, steps: Sequence[int], *, as_portal: bool) -> list[Measured]:
        """Ask up to each number of verdicts, retrain there, measure; the first is the base. Asked
        is as a portal does, or at random."""
        base = self.by_cosine(self.held_cosines)
        found = [Measured(0, 0, 0, 0.0, base, base)]
        for step in steps:
            self.ask(step - len(self.asked), as_portal=as_portal)
            found.append(self.retrained(f"{step}"))
            log.info("%d verdicts, %.0f s of training", step, found[-1].seconds)
        return found

    def ask(self, count: int, *, as_portal: bool) -> None:
        """Have `count` more pairs judged."""
        free = [row for row in range(len(self.portal.pool)) if row not in self.asked]
        if not as_portal:
            self._judge(self._drawn(free, count))
            return
        scores = self._score()
        below = [row for row in free if scores[row] < THRESHOLD]
        above = [row for row in free if scores[row] >= THRESHOLD]
        before = len(self.asked)
        self._judge(self._drawn(below, min(len(below), round(BELOW * count))))
        self._judge([(row, None) for row in self._chosen(below, scores, round(CHOSEN * count))])
        left = count + before - len(self.asked)
        self._judge(self._drawn(above, min(len(above), left)))
        left = count + before - len(self.asked)  # where too little is flagged
        free = [row for row in below if row not in self.asked]
        self._judge([(row, None) for row in self.rng.sample(free, min(len(free), left))])

    def _chosen(self, below: Sequence[int], scores: np.ndarray, count: int) -> list[int]:
        """As dedup.choosing does: out of the likeliest below the threshold."""
        free = [row for row in below if row not in self.asked]
        pool = sorted(free, key=lambda row: -scores[row])[: max(CANDIDATES, 2 * count)]
        known = list(self.asked)[-KNOWN:]
        pairs = [(self.portal.pool[row].first, self.portal.pool[row].second) for row in pool]
        rows = pick(self.points[pool], entropy(scores[pool]), self.points[known], count, pairs)
        return [pool[row] for row in rows]

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
            bi=self.base, start=self.start, taught=[self._taught(one) for one in train],
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
