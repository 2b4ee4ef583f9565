"""How the machine fares: what waits, who works, what people confirm, what ran without a part.

Figures for pages, alerts, the weekly report and programs; each says of how many it is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError
from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import TruncWeek

from dedup import timing
from dedup.agreement import AGREED, Rate
from dedup.models import BlindItem, Flag, Review, Worker
from dedup.timing import Histogram, Stage
from support import outbox
from support.models import OutboxEntry, Question

CONFIRMED = Q(verdict=Review.Verdict.CONFIRMED)
FORGOTTEN = timedelta(days=7)  # after which a worker is no longer listed
ALIVE = timedelta(minutes=3)  # between two signs of life, at most
EVERY = timedelta(minutes=1)  # a worker gives a sign so often


@dataclass(frozen=True)
class Waiting:
    """What waits: for the machine, and for people."""

    waiting: int  # for a check
    oldest_seconds: float
    quarantined: int
    flags: int  # open, for a reviewer
    oldest_flag_at: datetime | None
    to_merge: int

    @property
    def unchecked(self) -> int:
        return self.waiting + self.quarantined


def waiting(*, now: datetime) -> Waiting:
    """What waits just now."""
    entries = OutboxEntry.objects
    flags = Flag.objects.open().flagged()
    oldest = flags.aggregate(number=Count("pk"), oldest=Min("flagged_at"))
    return Waiting(
        waiting=entries.waiting().count(),
        oldest_seconds=outbox.seconds_behind(now),
        quarantined=entries.quarantined().count(),
        flags=oldest["number"],
        oldest_flag_at=oldest["oldest"],
        to_merge=Flag.objects.to_merge().count(),
    )


# --- Workers ----------------------------------------------------------------------------------


def note_alive(name: str, queues: Collection[str], *, now: datetime) -> None:
    """A worker gives a sign of life; written once a minute, whatever it is called."""
    served = sorted(queues)
    recent = Worker.objects.filter(name=name[:150])
    if recent.filter(seen_at__gt=now - EVERY, queues=served).exists():
        return
    if not recent.update(seen_at=now, queues=served):
        try:
            Worker.objects.create(name=name[:150], queues=served, started_at=now, seen_at=now)
        except IntegrityError:  # two at once, under one name
            recent.update(seen_at=now)
    Worker.objects.filter(seen_at__lt=now - FORGOTTEN).delete()


def workers() -> list[Worker]:
    """Workers that gave a sign of life within a week, those seen last first."""
    return list(Worker.objects.order_by("-seen_at", "name"))


def seconds_without_worker(queue: str, *, now: datetime) -> float | None:
    """How long no worker of this queue was seen; None where none ever was."""
    last = Worker.objects.filter(queues__contains=[queue]).order_by("-seen_at").first()
    return max(0.0, (now - last.seen_at).total_seconds()) if last else None


# --- What people said -------------------------------------------------------------------------


def decided(*, since: datetime, until: datetime) -> QuerySet[Review]:
    """The standing decision on each pair that was flagged, where it was made within this time."""
    standing = Review.objects.standing().filter(
        verdict__in=Review.DECISIONS,
        flag__lane=Flag.Lane.FLAGGED,
        reviewed_at__gt=since,
        reviewed_at__lte=until,
    )
    newest = standing.order_by("flag", "-reviewed_at", "-pk").distinct("flag").values("pk")
    return Review.objects.filter(pk__in=newest)


def acceptance(*, since: datetime, until: datetime) -> Rate:
    """How many flags people confirmed, of those decided in this time."""
    of = decided(since=since, until=until)
    return Rate(**of.aggregate(agreed=Count("pk", filter=CONFIRMED), asked=Count("pk")))


def acceptance_by_release(*, since: datetime, until: datetime) -> list[tuple[str, Rate]]:
    """The same by the release that had flagged them, most decisions first."""
    rows = decided(since=since, until=until).values_list("release")
    found = rows.annotate(agreed=Count("pk", filter=CONFIRMED), asked=Count("pk"))
    rates = [(name, Rate(agreed, asked)) for name, agreed, asked in found]
    return sorted(rates, key=lambda row: (-row[1].asked, row[0]))


def acceptance_by_week(*, since: datetime, until: datetime) -> list[tuple[datetime, Rate]]:
    """The same by the week in which they were decided, oldest first."""
    rows = decided(since=since, until=until).annotate(week=TruncWeek("reviewed_at"))
    found = rows.values_list("week").annotate(
        agreed=Count("pk", filter=CONFIRMED), asked=Count("pk")
    )
    return sorted((week, Rate(agreed, asked)) for week, agreed, asked in found)


def agreement_by_release(*, since: datetime, until: datetime) -> list[tuple[str, Rate]]:
    """How often blind answers were what had been decided, by the release that had flagged it."""
    answered = BlindItem.objects.filter(
        verdict__in=Review.DECISIONS, decided_at__gt=since, decided_at__lte=until
    )
    rows = answered.values_list("flag__release__name")
    found = rows.annotate(agreed=AGREED, asked=Count("pk"))
    rates = [(name, Rate(agreed, asked)) for name, agreed, asked in found]
    return sorted(rates, key=lambda row: (-row[1].asked, row[0]))


# --- What ran without a part ------------------------------------------------------------------


@dataclass(frozen=True)
class Degraded:
    """How much was done without a part, within some time."""

    checks: int
    unaligned: int
    failed: int  # batches
    suggestions: int
    by_meaning: int  # ranked by vectors and words, not read by the cross-encoder in time
    by_words: int  # without the worker

    @property
    def unaligned_rate(self) -> Rate:
        return Rate(self.unaligned, self.checks)

    @property
    def meaning_rate(self) -> Rate:
        return Rate(self.by_meaning, self.suggestions)

    @property
    def words_rate(self) -> Rate:
        return Rate(self.by_words, self.suggestions)


def degraded(*, since: datetime, until: datetime) -> Degraded:
    """What ran without a part in the hours of this time."""
    found = timing.histograms(since=since, until=until)
    count = {name: histogram.count for name, histogram in found.items()}
    return Degraded(
        checks=count.get(Stage.WRITE, 0),
        unaligned=count.get(Stage.UNALIGNED, 0),
        failed=count.get(Stage.FAILED, 0),
        suggestions=sum(count.get(name, 0) for name in timing.SUGGESTIONS),
        by_meaning=count.get(Stage.SUGGEST_MEANING, 0),
        by_words=count.get(Stage.SUGGEST_WORDS, 0),
    )


def stage_times(*, since: datetime, until: datetime) -> list[tuple[Stage, Histogram]]:
    """Each stage that was timed, in the order of a check, then suggestions."""
    found = timing.histograms(since=since, until=until)
    order = (*timing.CHECKS, Stage.WAITED, *timing.SUGGESTIONS)
    return [(name, found[name]) for name in order if name in found]


def asked(*, since: datetime, until: datetime) -> int:
    """How many questions were asked in this time."""
    return Question.objects.filter(asked_at__gt=since, asked_at__lte=until).count()
