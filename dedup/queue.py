"""What waits for a reviewer, in which order, and who looks at what just now."""

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from dedup.models import Flag, FlagQuerySet, Review
from support.models import User

CLAIM = timedelta(minutes=5)
SKIP = timedelta(hours=12)


def queue(reviewer: User, *, now: datetime | None = None) -> FlagQuerySet:
    """Open flags in queue order: one for each two live threads, without what `reviewer` skipped."""
    now = now or timezone.now()
    skipped = Review.objects.standing().filter(
        flag=OuterRef("pk"),
        by=reviewer,
        verdict=Review.Verdict.SKIPPED,
        reviewed_at__gt=now - SKIP,
    )
    found = Flag.objects.open().across_threads().one_per_threads()
    return found.filter(~Exists(skipped)).in_queue_order()


def free_for(reviewer: User, flags: FlagQuerySet, *, now: datetime) -> FlagQuerySet:
    """Flags that nobody else holds."""
    return flags.filter(Q(claimed_by=None) | Q(claimed_by=reviewer) | Q(claimed_until__lt=now))


def claim(*, flag: Flag, by: User, now: datetime | None = None) -> bool:
    """Hold a flag for five minutes; False where somebody else holds it."""
    now = now or timezone.now()
    free = free_for(by, Flag.objects.open().filter(pk=flag.pk), now=now)
    return bool(free.update(claimed_by=by, claimed_until=now + CLAIM))


def next_for(reviewer: User, *, now: datetime | None = None) -> Flag | None:
    """Claim and return the likeliest flag that nobody else holds, or None when all is done."""
    now = now or timezone.now()
    for flag in free_for(reviewer, queue(reviewer, now=now), now=now)[:20]:
        if claim(flag=flag, by=reviewer, now=now):
            return flag
    return None
