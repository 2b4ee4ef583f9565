"""What a cross-encoder is trained on: labelled rows, near misses, and strangers without a label."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedup.ml.biencoder import BiEncoder
from dedup.ml.clusters import SHORTLIST, read_clusters, training_names, training_pairs
from dedup.ml.composing import compose
from dedup.ml.data import Labelled, forum_rows, labelled, rows
from dedup.ml.fitting import UNKNOWN
from dedup.ml.nearmisses import make_near_miss, make_positive
from dedup.ml.phrasing import phrase
from dedup.ml.text import model_input

INTENTS = ("banking77_train", "clinc150_train", "hwu64_train")
INTENT_TEXTS = 4_000  # of each set, among the strangers
ALIKE = 0.8  # cosine; a mined neighbour above it may be a duplicate that nobody labelled
TRAINING_FILES = (
    "qqp_train", "rqe_train", "semeval_cqa_train_part1", *INTENTS, "stackexchange_questions",
)  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """How many rows of each kind."""

    quora: int = 0
    quora_rounds: int = 1  # how often the labelled titles are gone through
    mates: int = 0  # duplicates that were published without negatives
    mined: int = 0  # labelled titles beside neighbours that nobody called duplicates, label 0
    near_misses: int = 0  # and as many easy positives
    strange_near_misses: int = 0  # the same, made of strangers' titles
    composites: int = 0
    phrasings: int = 0
    intents: int = 0  # near neighbours of different intents, label 0
    strangers: int = 0
    cluster_rounds: int = 0  # how often the written clusters are gone through
    siblings: int = 3  # in each round, other clusters' questions beside each written one
    forum_labels: bool = False
    forum_rounds: int = 1  # how often those are gone through
    forum_strangers: bool = False  # the forum's texts without their labels


def mix(data: Path, bi: BiEncoder, mixture: Mixture, seed: int) -> list[Labelled]:
    """The rows, kinds one after the other; label 1, 0 or `UNKNOWN`."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    quora = labelled(data, "qqp_train")
    rng.shuffle(quora)
    made = quora[: mixture.quora] * mixture.quora_rounds
    mates = labelled(data, "qqp_train", kind="mates") if mixture.mates else []
    made += rng.sample(mates, min(len(mates), mixture.mates))
    made += mined(bi, quora + mates, mixture.mined, rng)
    made += near_misses(quora, mixture.near_misses, rng)
    made += near_misses(_titles(data, rng), mixture.strange_near_misses, rng)
    made += compose(quora, mixture.composites, rng) + phrase(mixture.phrasings, rng)
    made += written(bi, mixture, rng)
    forum = forum_rows(data, "semeval_cqa_train_part1")
    if mixture.forum_labels:
        made += forum * mixture.forum_rounds
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


def mined(bi: BiEncoder, kept: list[Labelled], count: int, rng: random.Random) -> list[Labelled]:
    """Titles beside a near neighbour out of a shortlist that no row calls their duplicate.

    Neighbours more alike than `ALIKE` are left out: some are duplicates without a label.
    """
    if not count:
        return []
    known = {frozenset((row.first, row.second)) for row in kept}
    texts = sorted({row.first for row in kept} | {row.second for row in kept})
    texts = rng.sample(texts, min(len(texts), 3 * count))
    vectors = bi.embed(texts)
    made: list[Labelled] = []
    for i, near in enumerate(neighbours_of(vectors[:count], vectors, 10)):
        found = [
            j for j in near.tolist()
            if vectors[i] @ vectors[j] < ALIKE and frozenset((texts[i], texts[j])) not in known
        ]  # fmt: skip
        if found:
            made.append(Labelled(texts[i], texts[rng.choice(found)], 0.0))
    return made


def strangers(data: Path, bi: BiEncoder, count: int, rng: random.Random) -> list[Labelled]:
    """Pairs of texts that no label speaks of: neighbours among them, and one in five at random."""
    made: list[Labelled] = []
    kinds = _strange_texts(data) if count else []
    for texts in kinds:
        near = neighbours(bi, texts, 12).tolist()
        for i in rng.choices(range(len(texts)), k=count // len(kinds)):
            j = rng.choice(near[i]) if rng.random() < 0.8 else rng.randrange(len(texts))
            made.append(Labelled(texts[i], texts[j], UNKNOWN))
    return made


def _strange_texts(data: Path) -> list[list[str]]:
    """Texts of several kinds whose labels mean something else, or that have none."""
    health = {text for p in labelled(data, "rqe_train") for text in (p.first, p.second)}
    forum = {t for p in forum_rows(data, "semeval_cqa_train_part1") for t in (p.first, p.second)}
    sites = list(rows(data, "stackexchange_questions"))
    intents = [[model_input(row["text"]) for row in rows(data, name)] for name in INTENTS]
    for texts in intents:
        random.Random(1).shuffle(texts)  # noqa: S311 - no secret
    return [
        sorted(health),
        sorted(forum),
        sorted({model_input(row["title"]) for row in sites}),
        sorted({model_input(row["title"], row["body"]) for row in sites}),
        sorted({text for texts in intents for text in texts[:INTENT_TEXTS]}),
    ]


def _titles(data: Path, rng: random.Random) -> list[Labelled]:
    """Strangers' titles as rows that near misses are made of."""
    titles = [model_input(row["title"]) for row in rows(data, "stackexchange_questions")]
    titles += [pair.first for pair in labelled(data, "rqe_train")]
    rng.shuffle(titles)
    return [Labelled(title, title, 1.0) for title in titles]


def neighbours(bi: BiEncoder, texts: list[str], count: int) -> np.ndarray:
    """Row numbers of the nearest texts, nearest first: (n, count)."""
    vectors = bi.embed(texts)
    return neighbours_of(vectors, vectors, count)


def neighbours_of(asking: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """Row numbers of the vectors nearest to each of `asking`, nearest first: (n, at most count).

    `asking` are the first rows of `vectors`; nothing is its own neighbour.
    """
    count = min(count, len(vectors) - 1)
    found = []
    for begun in range(0, len(asking), 1_000):
        likeness = asking[begun : begun + 1_000] @ vectors.T
        rows_of = np.arange(len(likeness))
        likeness[rows_of, begun + rows_of] = -np.inf
        best = np.argpartition(-likeness, count, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)
