"""Which pairs to ask about so that a next release learns most: uncertain, unlike what is labelled
already (see dedup.ml.choosing), and from parts of the portal of which little is known.

Such pairs are asked about without their score, like those drawn at random, and kept apart from
them: nobody drew them, so nothing is estimated from them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from dedup import feedback, marks, pipeline
from dedup.feedback import Label
from dedup.ml import choosing
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
    most = settings.DEDUP_CHOSEN_PER_DAY if count is None else count
    wanted = most - _waiting()
    if wanted <= 0:
        return []
    found = candidates(release)
    known = feedback.labels()[-KNOWN:]
    ids = {pk for one in found for pk in one.ends}
    ids |= {pk for label in known for pk in (label.older_id, label.newer_id)}
    points = _points(ids, release)
    chosen = pick(found, known, points, wanted)
    flags = [_open(one, release, scorer, most, now or timezone.now()) for one in chosen]
    return [flag for flag in flags if flag]


def _waiting() -> int:
    return Flag.objects.open().filter(lane=Flag.Lane.CHOSEN).count()


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
    pool = [one for one in found if set(one.ends) <= points.keys()]
    worth = choosing.entropy([one.probability for one in pool]) * _scarcity(pool, known)
    ends = [one.ends for one in pool]
    seen = [(label.older_id, label.newer_id) for label in known]
    rows = choosing.pick(_placed(ends, points), worth, _placed(seen, points), count, ends)
    return [pool[row] for row in rows]


def _placed(pairs: Sequence[tuple[int, int]], points: dict[int, np.ndarray]) -> np.ndarray:
    """Those pairs as points of which both questions have a vector."""
    whole = [pair for pair in pairs if set(pair) <= points.keys()]
    if not whole:
        return np.zeros((0, 1))
    ones, others = (np.stack([points[pair[end]] for pair in whole]) for end in (0, 1))
    return choosing.pair_points(ones, others)


def _points(ids: Collection[int], release: Release) -> dict[int, np.ndarray]:
    """The vectors of questions, by the release's bi-encoder."""
    rows = Embedding.objects.filter(question__in=ids, fingerprint=release.embedding_fingerprint)
    return {row.question_id: np.asarray(row.vector, np.float64) for row in rows}


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


def _open(
    one: Candidate, release: Release, scorer: Scorer, most: int, now: datetime
) -> Flag | None:
    """Its flag; None where a text, a thread or what was asked about changed meanwhile."""
    words = pipeline.align(one.newer, [one.older], scorer=scorer).get(one.older.question_id)
    said = None if words is None else [astuple(pair) for pair in words]
    return _store(one, release, said, most, now)


@merging.retried
def _store(
    one: Candidate, release: Release, words: list[Any] | None, most: int, now: datetime
) -> Flag | None:
    threads = merging.lock_threads(*one.ends)
    older, newer = (threads[pk] for pk in one.ends)
    if not _is_as_read(older, one.older) or not _is_as_read(newer, one.newer):
        return None
    if Flag.objects.filter(marks.pair_of(older.pk, newer.pk)).exists():
        return None
    with connection.cursor() as cursor:  # who chooses at the same time has counted the same flags
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('dedup_flag_chosen'))")
    if _waiting() >= most:
        return None
    return Flag.objects.create(
        older=older, newer=newer, older_hash=one.older.hash, newer_hash=one.newer.hash,
        probability=one.probability, release=release, lane=Flag.Lane.CHOSEN, asked_share=None,
        alignment=words, flagged_at=now,
    )  # fmt: skip


def _is_as_read(question: Question, text: Text) -> bool:
    return question.canonical_id is None and text_of(question).hash == text.hash
