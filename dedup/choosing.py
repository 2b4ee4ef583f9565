"""Which pairs to ask about so that a next release learns most: uncertain, unlike what is labelled
already, and from parts of the portal of which little is known.

Of the pairs just below the threshold, one after the other is taken whose uncertainty (entropy of
its probability: Lewis and Gale 1994) times its distance to the nearest pair that is labelled or
taken (greedy k-centre: Sener and Savarese 2018) is largest. Neither alone will do: the most
uncertain pairs are often alike, and the farthest ones clear (Ash et al. 2020).

Such pairs are asked about without their score, like those drawn at random, and kept apart from
them: nobody drew them, so nothing is estimated from them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

import numpy as np
from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from dedup import feedback, marks, pipeline
from dedup.feedback import Label
from dedup.ml.pairs import Scorer
from dedup.models import Embedding, Flag, Release, Score
from dedup.texts import Text, text_of
from support import merging
from support.models import Question

POOL = 1_000  # of the likeliest pairs below the threshold
KNOWN = 2_000  # of the newest labels
RARE = ("product", "language")  # segments of which little may be known


@dataclass(frozen=True)
class Candidate:
    """A scored pair that nobody was asked about."""

    older: Text
    newer: Text
    probability: float
    segments: dict[str, str]

    @property
    def ends(self) -> tuple[int, int]:
        return self.older.question_id, self.newer.question_id


def choose(
    *, release: Release, scorer: Scorer, count: int | None = None, now: datetime | None = None
) -> list[Flag]:
    """Open blind flags for the pairs to learn most from, until `count` of them wait; by default
    DEDUP_CHOSEN_PER_DAY."""
    wanted = settings.DEDUP_CHOSEN_PER_DAY if count is None else count
    wanted -= Flag.objects.open().filter(lane=Flag.Lane.CHOSEN).count()
    if wanted <= 0:
        return []
    found = candidates(release)
    known = feedback.labels()[-KNOWN:]
    ids = {pk for one in found for pk in one.ends}
    ids |= {pk for label in known for pk in (label.older_id, label.newer_id)}
    points = _points(ids, release)
    chosen = pick(found, known, points, wanted)
    flags = [_open(one, release, scorer, now or timezone.now()) for one in chosen]
    return [flag for flag in flags if flag]


def candidates(release: Release) -> list[Candidate]:
    """The likeliest pairs below the threshold that this release scored as they now read, of two
    live questions, and of which nobody has said anything."""
    scores = _unasked(release).select_related(
        *(f"{end}__{row}" for end in ("older", "newer") for row in ("product", "asked_by"))
    )
    found = []
    for score in scores.order_by("-probability", "pk")[:POOL]:
        older, newer = text_of(score.older), text_of(score.newer)
        if (older.hash, newer.hash) == (score.older_hash, score.newer_hash):
            segments = feedback.segments(score.newer, newer)
            found.append(Candidate(older, newer, score.probability, segments))
    parted = marks.parted({pk for one in found for pk in one.ends})
    return [one for one in found if frozenset(one.ends) not in parted]


def _unasked(release: Release):  # type: ignore[no-untyped-def]
    ends = (("older", "newer"), ("newer", "older"))
    flags = [Flag.objects.filter(older=OuterRef(a), newer=OuterRef(b)) for a, b in ends]
    return Score.objects.filter(
        ~Exists(flags[0]),
        ~Exists(flags[1]),
        Q(older__asked_by__erased_at=None, newer__asked_by__erased_at=None),
        release=release,
        probability__lt=release.threshold,
        older__canonical=None,
        newer__canonical=None,
    )


def pick(
    found: Sequence[Candidate],
    known: Sequence[Label],
    points: dict[int, np.ndarray],
    count: int,
) -> list[Candidate]:
    """At most `count` of the candidates, no question twice, what teaches most first."""
    seen = [_place(points, label.older_id, label.newer_id) for label in known]
    placed = [(one, _place(points, *one.ends)) for one in found]
    pool = [(one, place) for one, place in placed if place is not None]
    if not pool:
        return []
    places = np.stack([place for _, place in pool])
    nearest = _distances(places, [place for place in seen if place is not None])
    worth = np.asarray([_entropy(one.probability) for one, _ in pool]) * _scarcity(
        [one for one, _ in pool], known
    )
    chosen: list[Candidate] = []
    while len(chosen) < count and (gain := worth * nearest).max() > 0:
        row = int(gain.argmax())
        chosen.append(pool[row][0])
        nearest = np.minimum(nearest, _distances(places, [places[row]]))
        taken = set(pool[row][0].ends)
        worth[[place for place, (one, _) in enumerate(pool) if taken & set(one.ends)]] = 0
    return chosen


def _points(ids: Collection[int], release: Release) -> dict[int, np.ndarray]:
    """The vectors of questions, by the release's bi-encoder."""
    rows = Embedding.objects.filter(question__in=ids, fingerprint=release.embedding_fingerprint)
    return {row.question_id: np.asarray(row.vector, np.float64) for row in rows}


def _place(points: dict[int, np.ndarray], one: int, other: int) -> np.ndarray | None:
    """A pair as a point: what its two questions are about, and how they differ, in either order the
    same (as in Sentence-BERT: Reimers and Gurevych 2019)."""
    if one not in points or other not in points:
        return None
    first, second = (points[pk].astype(np.float64) for pk in (one, other))
    place = np.concatenate([(first + second) / 2, np.abs(first - second)])
    return np.asarray(place / max(float(np.linalg.norm(place)), 1e-9))


def _distances(places: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """How far each place lies from the nearest of the others; 2 where there are none."""
    if not others:
        return np.full(len(places), 2.0)
    likeness = (places @ np.stack(others).T).max(axis=1)
    return np.sqrt(np.maximum(0.0, 2 - 2 * likeness))


def _entropy(probability: float) -> float:
    """Of one answer, in bits: 1 where nobody knows, 0 where it is clear."""
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def _scarcity(found: Sequence[Candidate], known: Sequence[Label]) -> np.ndarray:
    """For each candidate, more than 1 as far as its product and language have fewer labels than
    they would have if all had as many."""
    factors = np.ones(len(found))
    for name in RARE:
        counts = Counter(label.segments[name] for label in known)
        mean = len(known) / max(1, len(counts))
        shares = [(1 + counts[one.segments[name]]) / (1 + mean) for one in found]
        factors *= np.maximum(1.0, 1 / np.sqrt(shares))
    return factors


def _open(one: Candidate, release: Release, scorer: Scorer, now: datetime) -> Flag | None:
    """Its flag; None where a text, a thread or what was asked about changed meanwhile."""
    words = pipeline.align(one.newer, [one.older], scorer=scorer).get(one.older.question_id)
    return _store(one, release, None if words is None else [astuple(pair) for pair in words], now)


@merging.retried
def _store(one: Candidate, release: Release, words: list | None, now: datetime) -> Flag | None:  # type: ignore[type-arg]
    threads = merging.lock_threads(*one.ends)
    older, newer = (threads[pk] for pk in one.ends)
    if not _is_as_read(older, one.older) or not _is_as_read(newer, one.newer):
        return None
    if Flag.objects.filter(marks.pair_of(older.pk, newer.pk)).exists():
        return None
    return Flag.objects.create(
        older=older, newer=newer, older_hash=one.older.hash, newer_hash=one.newer.hash,
        probability=one.probability, release=release, lane=Flag.Lane.CHOSEN, asked_share=None,
        alignment=words, flagged_at=now,
    )  # fmt: skip


def _is_as_read(question: Question, text: Text) -> bool:
    return question.canonical_id is None and text_of(question).hash == text.hash
