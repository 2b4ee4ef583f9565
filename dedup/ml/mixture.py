"""What a cross-encoder is trained on: labelled rows, near misses, and strangers without a label."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedup.ml.biencoder import BiEncoder
from dedup.ml.clusters import SHORTLIST, read_clusters, training_names, training_pairs
from dedup.ml.composing import compose
from dedup.ml.data import Labelled, forum_rows, labelled, rows
from dedup.ml.nearmisses import make_near_miss, make_positive
from dedup.ml.phrasing import phrase
from dedup.ml.text import model_input

INTENTS = ("banking77_train", "clinc150_train", "hwu64_train")
TRAINING_FILES = (
    "qqp_train", "rqe_train", "semeval_cqa_train_part1", *INTENTS, "stackexchange_questions",
)  # fmt: skip
UNKNOWN = -1.0  # the label of a stranger: the correction is held small there


@dataclass(frozen=True)
class Mixture:
    """How many rows of each kind."""

    quora: int = 0
    near_misses: int = 0  # and as many easy positives
    composites: int = 0
    phrasings: int = 0
    intents: int = 0  # near neighbours of different intents, label 0
    strangers: int = 0
    cluster_rounds: int = 0  # how often the written clusters are gone through
    siblings: int = 3  # in each round, other clusters' questions beside each written one
    forum_labels: bool = False
    forum_strangers: bool = False  # the forum's texts without their labels


def mix(data: Path, bi: BiEncoder, mixture: Mixture, seed: int) -> list[Labelled]:
    """The rows, kinds one after the other; label 1, 0 or `UNKNOWN`."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    quora = labelled(data, "qqp_train")
    rng.shuffle(quora)
    made = quora[: mixture.quora] + near_misses(quora, mixture.near_misses, rng)
    made += compose(quora, mixture.composites, rng) + phrase(mixture.phrasings, rng)
    made += written(bi, mixture, rng)
    forum = forum_rows(data, "semeval_cqa_train_part1")
    if mixture.forum_labels:
        made += forum
    if mixture.forum_strangers:
        made += [Labelled(row.first, row.second, UNKNOWN) for row in forum]
    made += other_intents(data, bi, mixture.intents, rng)
    return made + strangers(data, bi, mixture.strangers, rng)


def written(bi: BiEncoder, mixture: Mixture, rng: random.Random) -> list[Labelled]:
    """Pairs of the clusters written for this project; each round draws other siblings."""
    if not mixture.cluster_rounds:
        return []
    made: list[Labelled] = []
    for name in training_names():
        found = read_clusters([name])
        near = neighbours(bi, [question.input for question in found], SHORTLIST).tolist()
        for _ in range(mixture.cluster_rounds):
            made += training_pairs(found, near, mixture.siblings, rng)
    return made


def near_misses(kept: list[Labelled], count: int, rng: random.Random) -> list[Labelled]:
    """Rule-made near misses labelled 0, each with an easy positive of the same text."""
    made: list[Labelled] = []
    for row in kept:
        if len(made) >= 2 * count:
            break
        changed = make_near_miss(row.first, rng)
        if changed:
            made.append(Labelled(row.first, changed, 0.0))
            made.append(Labelled(row.first, make_positive(row.first, rng), 1.0))
    return made


def other_intents(data: Path, bi: BiEncoder, count: int, rng: random.Random) -> list[Labelled]:
    """Utterances beside their near neighbours of another intent: alike and never the same."""
    made: list[Labelled] = []
    for name in INTENTS if count else ():
        found = [(model_input(r["text"]), r["intent"]) for r in rows(data, name)]
        found = rng.sample(found, min(5_000, len(found)))
        texts, intents = [f[0] for f in found], np.asarray([f[1] for f in found])
        near = neighbours(bi, texts, 20)
        for i in rng.sample(range(len(texts)), min(len(texts), count // len(INTENTS))):
            others = [j for j in near[i] if intents[j] != intents[i]]
            if others:
                made.append(Labelled(texts[i], texts[rng.choice(others[:5])], 0.0))
    return made


def strangers(data: Path, bi: BiEncoder, count: int, rng: random.Random) -> list[Labelled]:
    """Pairs of texts that no label speaks of: neighbours among them, and pairs as they come."""
    if not count:
        return []
    pairs = [(p.first, p.second) for p in labelled(data, "rqe_train")]
    for name in INTENTS:
        texts = [model_input(row["text"]) for row in rows(data, name)]
        pairs += list(zip(texts[::2], texts[1::2], strict=False))
    pairs = rng.sample(pairs, count // 2)
    texts = [model_input(r["title"]) for r in rows(data, "stackexchange_questions")]
    near = neighbours(bi, texts, 6)
    found = [(texts[i], texts[j]) for i, row in enumerate(near) for j in row]
    pairs += rng.sample(found, min(len(found), count - len(pairs)))
    return [Labelled(a, b, UNKNOWN) for a, b in pairs]


def neighbours(bi: BiEncoder, texts: list[str], count: int) -> np.ndarray:
    """Row numbers of the nearest texts, nearest first: (n, count)."""
    vectors = bi.embed(texts)
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, : count + 1]
    return np.stack([row[row != i][:count] for i, row in enumerate(nearest)])
