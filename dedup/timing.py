"""How long stages take: measured where they run, kept as histograms by the hour.

A bar of a histogram is half a doubling wide, from a thousandth of a second on: what is read out of
it is off by a fifth at most. A batch of checks is written at once, in one statement.
"""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import Max, Sum
from django.db.models.functions import TruncDay
from django.utils import timezone

from dedup.models import StageTime

log = logging.getLogger(__name__)

Stage = StageTime.Stage
KEPT = timedelta(days=90)
FIRST_SECONDS = 0.001  # the upper end of the first bar
LAST_BUCKET = 44  # ends above an hour
CHECKS = (Stage.CLAIM, Stage.EMBED, Stage.SHORTLIST, Stage.SCORE, Stage.ALIGN, Stage.WRITE)
SUGGESTIONS = (Stage.SUGGEST_SCORES, Stage.SUGGEST_MEANING, Stage.SUGGEST_WORDS)

ADD = """
INSERT INTO dedup_stagetime (hour, stage, bucket, count, last_at)
SELECT %s, stage, bucket, count, %s
FROM unnest(%s::text[], %s::int[], %s::int[]) AS noted (stage, bucket, count)
ON CONFLICT (hour, stage, bucket) DO UPDATE
SET count = dedup_stagetime.count + excluded.count,
    last_at = greatest(dedup_stagetime.last_at, excluded.last_at)
"""

Noted = Counter[tuple[str, int]]  # (stage, bucket) -> how often
_batch: ContextVar[Noted | None] = ContextVar("stage times of this batch", default=None)


def bucket_of(seconds: float) -> int:
    """The bar in which so many seconds are counted."""
    if seconds <= FIRST_SECONDS:
        return 0
    return min(LAST_BUCKET, math.ceil(2 * math.log2(seconds / FIRST_SECONDS)))


def upper_end(bucket: int) -> float:
    """Where a bar ends, in seconds."""
    return FIRST_SECONDS * 2 ** (bucket / 2)


def note(stage: str, seconds: float, *, times: int = 1) -> None:
    """Count a stage that took so long, in the batch under way; without one nothing is counted."""
    noted = _batch.get()
    if noted is not None and times:
        noted[stage, bucket_of(seconds)] += times


@contextmanager
def stage(name: str, *, times: int = 1) -> Iterator[None]:
    """Count what is done inside, unless it fails; `times` where it is done for so many at once."""
    begun = time.perf_counter()
    yield
    note(name, (time.perf_counter() - begun) / max(times, 1), times=times)


@contextmanager
def batch() -> Iterator[None]:
    """Write all that is noted inside, at the end and at once, whatever becomes of the batch."""
    noted: Noted = Counter()
    token = _batch.set(noted)
    try:
        yield
    finally:
        _batch.reset(token)
        write(noted, now=timezone.now())


def write(noted: Noted, *, now: datetime) -> None:
    """Add to the hour's histograms. That it cannot be written is nobody's failure."""
    if not noted:
        return
    rows = sorted(noted.items())  # all in one order: two batches never wait for each other
    hour = now.replace(minute=0, second=0, microsecond=0)
    columns: list[list[Any]] = [
        [key[0] for key, _ in rows],
        [key[1] for key, _ in rows],
        [n for _, n in rows],
    ]
    try:
        with connection.cursor() as cursor:  # by itself, in no transaction of a caller
            cursor.execute(ADD, [hour, now, *columns])
    except DatabaseError as error:
        log.warning("Times of stages are lost: %s", type(error).__name__)


def note_now(name: str, seconds: float, *, now: datetime | None = None) -> None:
    """Count one that stands alone, as a suggestion does."""
    write(Counter({(name, bucket_of(seconds)): 1}), now=now or timezone.now())


@dataclass(frozen=True)
class Histogram:
    """How often something took how long."""

    counts: Mapping[int, int] = field(default_factory=dict)  # bucket -> how often

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share was done; None of nothing."""
        wanted, passed = share * self.count, 0
        for bucket in sorted(self.counts):
            number = self.counts[bucket]
            if passed + number >= wanted and number:
                if bucket == 0:
                    return FIRST_SECONDS
                inside = (wanted - passed) / number
                return upper_end(bucket - 1) * 2 ** (inside / 2)
            passed += number
        return None

    @property
    def p50(self) -> float | None:
        return self.percentile(0.5)

    @property
    def p95(self) -> float | None:
        return self.percentile(0.95)


def histograms(*, since: datetime, until: datetime) -> dict[str, Histogram]:
    """By stage, of the hours that began in this time."""
    rows = StageTime.objects.filter(hour__gt=since - timedelta(hours=1), hour__lte=until)
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for name, bucket, count in rows.values_list("stage", "bucket").annotate(n=Sum("count")):
        found[name][bucket] = count
    return {name: Histogram(counts) for name, counts in found.items()}


def by_day(*, since: datetime, until: datetime) -> dict[str, dict[datetime, Histogram]]:
    """By stage and day."""
    rows = StageTime.objects.filter(hour__gt=since, hour__lte=until)
    days = rows.annotate(day=TruncDay("hour")).values_list("stage", "day", "bucket")
    found: dict[str, dict[datetime, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for name, day, bucket, count in days.annotate(n=Sum("count")):
        found[name][day][bucket] = count
    return {
        name: {day: Histogram(counts) for day, counts in sorted(of_days.items())}
        for name, of_days in found.items()
    }


def last_seen() -> dict[str, datetime]:
    """By stage, when it was last done, as far as it is kept."""
    return dict(StageTime.objects.values_list("stage").annotate(at=Max("last_at")))


def forget_old(*, now: datetime) -> int:
    """Drop what is older than 90 days; returns how many rows there were."""
    return StageTime.objects.filter(hour__lt=now - KEPT).delete()[0]
