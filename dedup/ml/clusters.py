"""Support questions written for this project: clusters of one meaning, with near misses beside.

Each file in `clusters/` is a line of business; each of its lines three questions of three people
who want the same, and two that look like one of them and need another answer. No two clusters of a
file ask the same, so every pair of questions has a label.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dedup.ml.data import Labelled
from dedup.ml.text import model_input

FOLDER = Path(__file__).with_name("clusters")
PORTAL = Path(__file__).parents[1] / "management" / "demo" / "seed.json"
# Lines of business that no network is trained on: by the first ones a blend is chosen, the others
# report. Nothing is trained on the demo's questions either: on them probabilities are calibrated.
CHOOSING = ("car_sharing", "photo_editor")
REPORTING = ("printer_maker", "travel_booking")
TOPICS = ("cooking", "grammar_usage", "social_apps")  # as forums have them; these report too
Embed = Callable[[Sequence[str]], np.ndarray]
SHORTLIST = 50  # candidates of a question, as the portal draws them
NO_BODY = 0.25  # share of training pairs that are cut to their titles


@dataclass(frozen=True)
class Written:
    """A question, its cluster's number, and in what it differs where it is a near miss."""

    title: str
    body: str
    cluster: int
    difference: str = ""

    @property
    def input(self) -> str:
        return model_input(self.title, self.body)


def read_clusters(names: Iterable[str]) -> list[Written]:
    """All questions of these lines of business; clusters are numbered through."""
    found: list[Written] = []
    number = 0
    for name in names:
        for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found += [Written(q["title"], q["body"], number) for q in row["questions"]]
            found += [
                Written(q["title"], q["body"], number, q["difference"]) for q in row["near_misses"]
            ]
            number += 1
    return found


def training_names() -> list[str]:
    """The lines of business that networks are trained on."""
    kept = {*CHOOSING, *REPORTING, *TOPICS}
    return sorted(file.stem for file in FOLDER.glob("*.jsonl") if file.stem not in kept)


def written_hash(name: str) -> str:
    """Hex sha256 of a line of business's file."""
    return hashlib.sha256((FOLDER / f"{name}.jsonl").read_bytes()).hexdigest()


def is_same(one: Written, other: Written) -> bool:
    """Whether two questions ask the same: one cluster, and neither is its near miss."""
    return one.cluster == other.cluster and not (one.difference or other.difference)


def training_pairs(
    found: Sequence[Written], near: Sequence[Sequence[int]], siblings: int, rng: random.Random
) -> list[Labelled]:
    """All pairs within each cluster, and each question beside `siblings` of other clusters out of
    its shortlist.

    `near` holds the row numbers of each question's nearest others, nearest first. A share of the
    pairs is cut to titles, where titles and bodies both say what is asked.
    """
    by_cluster: dict[int, list[int]] = {}
    for i, question in enumerate(found):
        by_cluster.setdefault(question.cluster, []).append(i)
    pairs = [
        (a, b) for rows in by_cluster.values() for n, a in enumerate(rows) for b in rows[n + 1 :]
    ]
    for i, question in enumerate(found):
        others = [j for j in near[i] if found[j].cluster != question.cluster]
        pairs += [(i, j) for j in rng.sample(others, min(siblings, len(others)))]
    return [_labelled(found[a], found[b], rng) for a, b in pairs]


def _labelled(one: Written, other: Written, rng: random.Random) -> Labelled:
    label = float(is_same(one, other))
    # A title alone may not show the difference of a near miss: then there is nothing to learn.
    is_cut = rng.random() < NO_BODY and (label or one.cluster != other.cluster)
    texts = [model_input(q.title) if is_cut else q.input for q in (one, other)]
    rng.shuffle(texts)
    return Labelled(texts[0], texts[1], label)


@dataclass(frozen=True)
class Shortlisted:
    """Pairs as a shortlist delivers them, and which of them are near misses of which kind."""

    pairs: list[Labelled]
    differences: list[str]  # "" for a pair that is no near miss


def shortlisted(names: Iterable[str], embed: Embed, count: int = SHORTLIST) -> Shortlisted:
    """Each question of a line of business beside the `count` nearest of it, every pair once."""
    return _shortlisted([read_clusters([name]) for name in names], embed, count)


def portal_shortlisted(embed: Embed, count: int = SHORTLIST) -> Shortlisted:
    """The same for the demo's portal: other writers than the clusters', several products."""
    rows = json.loads(PORTAL.read_text(encoding="utf-8"))["questions"]
    numbers = {row["key"]: i for i, row in enumerate(rows)}
    found = [
        Written(row["title"], row["body"], numbers[row["duplicate_of"] or row["key"]])
        for row in rows
    ]
    return _shortlisted([found], embed, count)


def _shortlisted(portals: Iterable[Sequence[Written]], embed: Embed, count: int) -> Shortlisted:
    pairs, differences = [], []
    for found in portals:
        vectors = embed([question.input for question in found])
        nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, : count + 1]
        chosen = {(min(i, j), max(i, j)) for i, row in enumerate(nearest) for j in row.tolist()}
        for a, b in sorted((a, b) for a, b in chosen if a != b):
            one, other = found[a], found[b]
            is_near_miss = one.cluster == other.cluster and not is_same(one, other)
            pairs.append(Labelled(one.input, other.input, float(is_same(one, other))))
            differences.append((one.difference or other.difference) if is_near_miss else "")
    return Shortlisted(pairs, differences)
