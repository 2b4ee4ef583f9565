"""A portal that was watched for a while: what monitoring and the weekly report know how to show."""

import math
import random
from collections import Counter
from datetime import datetime, timedelta

from django.db import connection

from dedup import alerts, drift, timing, watching
from dedup.models import Alert, Baseline, BlindItem, Delivery, Flag, Review, Score
from dedup.timing import Stage
from support import audit
from support.models import Question, User
from tests.factories import ProductFactory, ReleaseFactory, UserFactory

SECONDS = {
    Stage.CLAIM: 0.004, Stage.EMBED: 0.03, Stage.SHORTLIST: 0.02, Stage.SCORE: 0.3,
    Stage.ALIGN: 0.02, Stage.WRITE: 0.012, Stage.WAITED: 2.5, Stage.SUGGEST_SCORES: 0.18,
    Stage.SUGGEST_MEANING: 0.26, Stage.SUGGEST_WORDS: 0.05,
}  # fmt: skip


def time_stages(*, now: datetime, days: int) -> None:
    """Some hours of each day, each stage about as long as it takes."""
    chance = random.Random(1)
    for hours in range(2, 24 * days, 7):
        noted: Counter = Counter()
        for stage, seconds in SECONDS.items():
            for _ in range(3 if stage == Stage.SUGGEST_WORDS else 25):
                noted[stage, timing.bucket_of(seconds * math.exp(chance.gauss(0, 0.5)))] += 1
        noted[Stage.UNALIGNED, 0] += 1
        timing.write(noted, now=now - timedelta(hours=hours))


def ask_many(number: int, **fields) -> list[Question]:
    """So many questions at once, of one person."""
    fields.setdefault("product", ProductFactory())
    fields.setdefault("asked_by", User.objects.filter(is_guest=False).first() or UserFactory())
    made = [Question(title=f"How do I change bulb {one}?", **fields) for one in range(number)]
    return Question.objects.bulk_create(made)


def store(rows: list[Score]) -> None:
    """Write scores, and let plans know of them: else each takes them for as few as were there."""
    Score.objects.bulk_create(rows)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE dedup_score, support_question")


def score_lately(release, *, now: datetime, questions: int, each: int, power: float, **fields):
    """New questions with scores, whose probabilities are even numbers to this power."""
    asked_at = now - timedelta(days=1)
    others = ask_many(each, asked_at=now - timedelta(days=99))
    rows = []
    for number, newer in enumerate(ask_many(questions, asked_at=asked_at, **fields)):
        for place, other in enumerate(others):
            even = ((number * each + place) % 97 + 0.5) / 97
            rows.append(
                Score(older=other, newer=newer, older_hash="o", newer_hash="n", release=release,
                      logit=0, cosine=0.9 - even / 2, probability=even**power, scored_at=asked_at)
            )  # fmt: skip
    store(rows)


def baseline(release, *, now: datetime) -> None:
    """What its scores looked like at first: even numbers squared."""
    for measure, edge in (
        ("probability", lambda i: (i / 10) ** 2),
        ("cosine", lambda i: 0.4 + i / 20),
    ):
        segments = ["", "asker:known", "language:", "length:short"]
        Baseline.objects.create(
            release=release, measure=measure, edges=[edge(i) for i in range(1, 10)],
            counts={segment: [400] * 10 for segment in segments},
            questions=dict.fromkeys(segments, 200),
            begins_at=now - timedelta(days=40), ends_at=now - timedelta(days=33),
        )  # fmt: skip


def decide(release, by, *, at: datetime, confirmed: int, dismissed: int, **fields) -> None:
    """Flags of this release that somebody decided on."""
    verdicts = ["confirmed"] * confirmed + ["dismissed"] * dismissed
    older = ask_many(len(verdicts), asked_at=at - timedelta(days=50))
    newer = ask_many(len(verdicts), asked_at=at - timedelta(hours=2), **fields)
    flags = Flag.objects.bulk_create(
        Flag(older=one, newer=other, older_hash="o", newer_hash="n", probability=0.9,
             release=release, status=verdict, flagged_at=at - timedelta(hours=1), decided_at=at)
        for one, other, verdict in zip(older, newer, verdicts, strict=True)
    )  # fmt: skip
    Review.objects.bulk_create(
        Review(flag=flag, verdict=flag.status, by=by, reviewed_at=at, probability=0.9,
               release=release.name, older_hash="o", newer_hash="n")
        for flag in flags
    )  # fmt: skip


def live_a_while(*, now: datetime, by, other) -> None:
    """Two releases, some weeks of decisions, a segment that drifts, alerts and their messages."""
    old = ReleaseFactory(name="minilm-l6-1")
    release = ReleaseFactory(
        name="minilm-l6-2", is_active=True, activated_at=now - timedelta(days=40), previous=old
    )
    audit.record("release_activated", by=by, now=now - timedelta(days=3), release=release.name)
    baseline(release, now=now)
    guest, kettle = UserFactory(is_guest=True, password="!"), ProductFactory(slug="kettle")
    score_lately(release, now=now, questions=60, each=12, power=2)
    score_lately(release, now=now, questions=45, each=12, power=9, asked_by=guest, product=kettle)
    for weeks in range(6):
        at = now - timedelta(days=7 * weeks + 1)
        decide(old if weeks > 4 else release, by, at=at, confirmed=9 - weeks % 2, dismissed=3)
    decide(release, by, at=now - timedelta(days=2), confirmed=3, dismissed=9, product=kettle)
    for flag in release.flags.all()[:12]:
        BlindItem.objects.create(
            flag=flag, by=other, asked_share=0.1, expected=flag.status, verdict="confirmed",
            decided_at=now - timedelta(days=1),
        )  # fmt: skip
    time_stages(now=now, days=20)
    watching.note_alive("checks@machine", ["checks"], now=now)
    watching.note_alive("interactive@machine", ["interactive"], now=now - timedelta(hours=4))
    alert = Alert.objects.create(
        rule="drift", subject=f"probability product:{kettle.pk}", value=0.41, worst=0.52,
        bound=0.25, opened_at=now - timedelta(hours=30),
    )  # fmt: skip
    over = Alert.objects.create(
        rule="unchecked", value=700, worst=1260, bound=600, opened_at=now - timedelta(days=2),
        closed_at=now - timedelta(days=1, hours=20),
    )  # fmt: skip
    for one in (alert, over):
        alerts._put(one, is_over=False, now=one.opened_at)
    Delivery.objects.update(state="sent", attempts=1, said="1", tried_at=now)
    Delivery.objects.create(
        alert=over, is_over=True, channel="webhook", attempts=2, said="HTTP 503", tried_at=now
    )
    drift.keep_baselines(now=now)
