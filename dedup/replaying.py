"""The last days again, as they would have been with other thresholds: out of the scores kept.

A pair's day is the one on which its newer question was asked, whenever it was scored: so checks
that were done again later move nothing. As in a check, one pair for each thread counts, its
likeliest, and only so many for each question (`dedup.decision.decide`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from dedup.models import Release
from dedup.suggesting import UNFINISHED

DAYS = 30
KEPT_SECONDS = 60.0  # while somebody moves a slider, nothing is read anew
FINEST = 1_000  # thresholds are told apart by one of so many
LOWEST = 0.004  # scores below it are not read: the index `score_likely` holds the others
SHOWN = 5  # similar questions beside a draft

THREADS = """
WITH threads AS (
    SELECT score.newer_id, coalesce(older.canonical_id, older.id) AS root,
           max(score.probability) AS probability
    FROM dedup_score AS score
    JOIN support_question AS newer ON newer.id = score.newer_id
    JOIN support_question AS older ON older.id = score.older_id
    WHERE score.release_id = %s AND score.probability >= 0.004
      AND newer.asked_at > %s AND newer.asked_at <= %s
    GROUP BY 1, 2
), ranked AS (
    SELECT newer_id, probability,
           row_number() OVER (PARTITION BY newer_id ORDER BY probability DESC) AS place
    FROM threads
)
SELECT (newer.asked_at AT TIME ZONE %s)::date, newer.product_id, newer.language,
       floor(ranked.probability * 1000)::int, ranked.place, count(*)
FROM ranked JOIN support_question AS newer ON newer.id = ranked.newer_id
WHERE ranked.place <= %s
GROUP BY 1, 2, 3, 4, 5
"""
CHECKED = """
SELECT (question.asked_at AT TIME ZONE %s)::date, question.product_id, question.language, count(*)
FROM support_question AS question
JOIN support_outboxentry AS entry ON entry.question_id = question.id
WHERE question.asked_at > %s AND question.asked_at <= %s AND entry.checked_by <> ''
GROUP BY 1, 2, 3
"""

Segment = tuple[int, str]  # id of the product, language


@dataclass(frozen=True)
class Replay:
    """How many questions were checked, by day and segment, and what their scores are.

    `pairs` has a row for each day, segment, thousandth of probability and place among the
    question's pairs, by these four, and how many there are.
    """

    days: Sequence[date]
    segments: Sequence[Segment]
    checked: np.ndarray  # (days, segments)
    pairs: np.ndarray  # (n, 5)

    def opened(self, threshold: float) -> np.ndarray:
        """(days, segments) flags that a threshold would have opened."""
        return self._counted(threshold, settings.DEDUP_FLAGS_PER_QUESTION)

    def shown(self, floor: float) -> np.ndarray:
        """(days, segments) similar questions that would stand beside a draft, had each question
        been typed whole."""
        return self._counted(UNFINISHED * floor, SHOWN)

    def with_any(self, floor: float) -> np.ndarray:
        """(days, segments) questions for which at least one would."""
        return self._counted(UNFINISHED * floor, 1)

    def _counted(self, least: float, places: int) -> np.ndarray:
        day, segment, thousandth, place, count = self.pairs.T
        found = np.zeros_like(self.checked)
        chosen = (thousandth >= math.ceil(FINEST * least - 1e-9)) & (place <= places)
        np.add.at(found, (day[chosen], segment[chosen]), count[chosen])
        return found


def last_days(release: Release, *, now: datetime) -> Replay:
    """What this release said of the questions of the last thirty days; kept for a minute."""
    zone = timezone.get_current_timezone_name()
    key = f"replay:{release.pk}:{zone}"
    found: Replay | None = cache.get(key)
    if found is None:
        found = read(release, now=now, zone=zone)
        cache.set(key, found, KEPT_SECONDS)
    return found


def read(release: Release, *, now: datetime, zone: str) -> Replay:
    """The same, from the database."""
    since, most = now - timedelta(days=DAYS), max(SHOWN, settings.DEDUP_FLAGS_PER_QUESTION)
    with connection.cursor() as cursor:
        cursor.execute(THREADS, [release.pk, since, now, zone, most])
        scored = cursor.fetchall()
        cursor.execute(CHECKED, [zone, since, now])
        asked = cursor.fetchall()
    today = timezone.localdate(now)
    days = [today - timedelta(days=back) for back in range(DAYS, -1, -1)]
    segments = sorted({(product, language) for _, product, language, *_ in (*scored, *asked)})
    day_at = {day: row for row, day in enumerate(days)}
    segment_at = {segment: row for row, segment in enumerate(segments)}
    checked = np.zeros((len(days), len(segments)), dtype=np.int64)
    for day, product, language, count in asked:
        checked[day_at[day], segment_at[product, language]] = count
    pairs = [
        (day_at[day], segment_at[product, language], thousandth, place, count)
        for day, product, language, thousandth, place, count in scored
    ]
    return Replay(days, segments, checked, np.asarray(pairs, dtype=np.int64).reshape(-1, 5))
