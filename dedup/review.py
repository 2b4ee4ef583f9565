"""What a reviewer can do with a flag: claim, confirm, dismiss, skip, and take it back.

Locks: questions in id order, then the flag; everywhere the same, so that nobody waits in a circle.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from dedup import releases
from dedup.models import Flag, FlagQuerySet, Review
from dedup.texts import text_of
from support import audit, merging
from support.merging import Evidence
from support.models import Merge, Question, User

CLAIM = timedelta(minutes=5)
SKIP = timedelta(hours=12)


class ReviewRefused(Exception):
    """A decision that cannot be taken; `code` says why, for programs."""

    code = "refused"


class FlagClosed(ReviewRefused):
    """Somebody else decided first."""

    code = "flag_closed"

    def __init__(self, flag: Flag) -> None:
        super().__init__("This pair has been decided already.")
        self.flag = flag
        self.last = flag.reviews.standing().order_by("-pk").select_related("by").first()


class NotYours(ReviewRefused):
    """Only who decided can take a decision back, and only while it is the newest."""

    code = "not_yours"


class NotMerged(ReviewRefused):
    """The question is not merged into another, so there is nothing to dispute."""

    code = "not_merged"


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
    return flags.filter(
        Q(claimed_by=None) | Q(claimed_by=reviewer) | Q(claimed_until__lt=now)
    )


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


@merging.retried
def confirm(
    *,
    flag: Flag,
    canonical: Question,
    by: User,
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> Review:
    """Record that a flag is right; merge at once where `by` may merge and the readers are the same.

    `canonical` is one of the pair or of their live questions. On a disputed merge it means that the
    merge stays. Raises FlagClosed, merging.MergeRefused.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(flag.older_id, flag.newer_id)
    flag = _open(flag)
    one, other = (threads[threads[pk].root_id] for pk in (flag.older_id, flag.newer_id))
    stays = threads[threads[canonical.pk].root_id] if canonical.pk in threads else one
    goes = other if stays.pk == one.pk else one
    review = _decide(flag, Review.Verdict.CONFIRMED, by=by, now=now, canonical=stays)
    if goes.pk != stays.pk and stays.has_same_readers_as(goes):
        if by.may_merge(goes.product_id, stays.product_id):
            review.merge = merging.merge(
                duplicate=goes, canonical=stays, by=by, seen=seen,
                evidence=Evidence(flag.probability, flag.release.name), now=now,
            )  # fmt: skip
            review.save(update_fields=["merge"])
    return review


@merging.retried
def dismiss(*, flag: Flag, by: User, now: datetime | None = None) -> Review:
    """Record that two questions are not the same: remembered until one of the texts changes.

    On a disputed merge, the merge is taken back where `by` may do that. Raises FlagClosed.
    """
    now = now or timezone.now()
    merging.lock_threads(flag.older_id, flag.newer_id)
    flag = _open(flag)
    review = _decide(flag, Review.Verdict.DISMISSED, by=by, now=now)
    edge = disputed_edge(flag)
    if edge and by.may_merge(flag.older.product_id, flag.newer.product_id):
        merging.unmerge(merge=edge, by=by, now=now)
    return review


@merging.retried
def skip(*, flag: Flag, by: User, now: datetime | None = None) -> Review:
    """Leave a flag to others for now. Raises FlagClosed."""
    now = now or timezone.now()
    flag = _open(flag)
    flag.claimed_by = flag.claimed_until = None
    flag.save(update_fields=["claimed_by", "claimed_until"])
    return _review(flag, Review.Verdict.SKIPPED, by=by, now=now)


@merging.retried
def undo(*, review: Review, by: User, now: datetime | None = None) -> Flag:
    """Take one's own decision back, the merge that it led to included; the flag is open again.

    Leaves neither mark nor label. Raises NotYours, merging.MergeRefused.
    """
    now = now or timezone.now()
    flag = review.flag
    merging.lock_threads(flag.older_id, flag.newer_id)
    flag = Flag.objects.select_for_update().get(pk=flag.pk)
    review = Review.objects.select_for_update().get(pk=review.pk)
    newest = flag.reviews.standing().order_by("-pk").first()
    if review.by_id != by.pk or newest is None or newest.pk != review.pk:
        raise NotYours("Only the newest decision can be taken back, by who took it.")
    if review.merge and review.merge.is_in_force:
        merging.unmerge(merge=review.merge, by=by, now=now)
    review.undone_at = now
    review.save(update_fields=["undone_at"])
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.save(update_fields=["status", "decided_at"])
    audit.record("review_undone", by=by, now=now, flag=flag.pk, review=review.pk)
    return flag


@merging.retried
def unmerge(*, merge: Merge, by: User, now: datetime | None = None) -> Merge:
    """Take any merge back, and mark its pair as "not a duplicate", so that no check asks again.

    Raises merging.MergeRefused.
    """
    now = now or timezone.now()
    merging.lock_threads(merge.duplicate_id, merge.canonical_id)
    flag = Flag.objects.filter(_pair(merge.duplicate_id, merge.canonical_id))
    locked = flag.select_for_update().first()
    undone = merging.unmerge(merge=merge, by=by, now=now)
    if locked and undone.undone_at == now:
        locked.status, locked.decided_at = Flag.Status.DISMISSED, now
        locked.save(update_fields=["status", "decided_at"])
    return undone


@merging.retried
def dispute(*, question: Question, by: User, reason: str, now: datetime | None = None) -> Flag:
    """Let the asker of a merged question say "mine is different": the pair is reviewed again.

    Raises NotMerged, NotYours.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(question.pk)
    question = threads[question.pk]
    if question.asked_by_id != by.pk:
        raise NotYours("Only who asked a question can say that it is different.")
    edge = Merge.objects.in_force().filter(duplicate=question).select_related("canonical").first()
    if edge is None:
        raise NotMerged("This question is not merged into another.")
    older, newer = sorted([question, edge.canonical], key=lambda q: q.order)
    pair = Flag.objects.filter(_pair(older.pk, newer.pk)).select_for_update()
    flag, _ = pair.get_or_create(
        defaults={
            "older": older,
            "newer": newer,
            "probability": edge.probability or 0.0,
            "release": releases.active(),
            "older_hash": text_of(older).hash,
            "newer_hash": text_of(newer).hash,
        },
    )
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.disputed_by, flag.disputed_at, flag.dispute = by, now, reason.strip()[:500]
    flag.save()
    audit.record("disputed", by=by, now=now, question=question, merge=edge.pk)
    return flag


def disputed_edge(flag: Flag) -> Merge | None:
    """The merge in force that a disputed flag is about."""
    if flag.disputed_at is None:
        return None
    pair = _edge(flag.older_id, flag.newer_id)
    return Merge.objects.in_force().filter(pair).first()


def is_marked(one: Question, other: Question) -> bool:
    """Whether people said of any pair between these two threads that it is not a duplicate."""
    members = list(Question.objects.of_threads(one.pk).values_list("pk", flat=True))
    others = list(Question.objects.of_threads(other.pk).values_list("pk", flat=True))
    across = Q(older__in=members, newer__in=others) | Q(older__in=others, newer__in=members)
    return Flag.objects.filter(across, status=Flag.Status.DISMISSED).exists()


def _pair(one: int, other: int) -> Q:
    return Q(older=one, newer=other) | Q(older=other, newer=one)


def _edge(one: int, other: int) -> Q:
    return Q(duplicate=one, canonical=other) | Q(duplicate=other, canonical=one)


def _open(flag: Flag) -> Flag:
    """The flag, locked and looked at again."""
    flag = Flag.objects.select_for_update(of=["self"]).select_related("release").get(pk=flag.pk)
    if flag.status != Flag.Status.OPEN:
        raise FlagClosed(flag)
    return flag


def _decide(
    flag: Flag, verdict: str, *, by: User, now: datetime, canonical: Question | None = None
) -> Review:
    flag.status, flag.decided_at = verdict, now
    flag.claimed_by = flag.claimed_until = None
    flag.older_hash, flag.newer_hash = text_of(flag.older).hash, text_of(flag.newer).hash
    flag.save()
    audit.record("reviewed", by=by, now=now, flag=flag.pk, verdict=verdict)
    return _review(flag, verdict, by=by, now=now, canonical=canonical)


def _review(
    flag: Flag, verdict: str, *, by: User, now: datetime, canonical: Question | None = None
) -> Review:
    return flag.reviews.create(
        verdict=verdict,
        by=by,
        reviewed_at=now,
        canonical=canonical,
        probability=flag.probability,
        release=flag.release.name,
        older_hash=flag.older_hash,
        newer_hash=flag.newer_hash,
    )
