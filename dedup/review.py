"""What a reviewer can do with a flag: confirm, dismiss, skip, and take it back.

Locks: questions in id order, then the flag; everywhere the same, so that nobody waits in a circle.
"""

from collections.abc import Mapping
from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from dedup import flagging
from dedup.models import Flag, Review
from dedup.texts import text_of
from support import audit, merging
from support.merging import Evidence
from support.models import Merge, Question, User


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


class NotOfPair(ReviewRefused):
    """The question that is to stay is not, or no longer, in one of the two threads."""

    code = "not_of_pair"


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

    `canonical` is in one of the two threads; its live question stays. On a disputed merge it means
    that the merge stays. Where readers differ, the two are from then on linked, for agents.
    Raises FlagClosed, NotOfPair, merging.MergeRefused (Stale where `seen` is not the newest).
    """
    now = now or timezone.now()
    threads = merging.lock_threads(flag.older_id, flag.newer_id)
    flag = _open(flag)
    merging.refuse_stale(threads, seen or {})
    if canonical.pk not in threads:
        raise NotOfPair("The question that is to stay is not one of the two.")
    one, other = (threads[threads[pk].root_id] for pk in (flag.older_id, flag.newer_id))
    stays = threads[threads[canonical.pk].root_id]
    goes = other if stays.pk == one.pk else one
    review = _decide(flag, Review.Verdict.CONFIRMED, by=by, now=now, canonical=stays)
    can_be_one = goes.pk != stays.pk and stays.has_same_readers_as(goes)
    if can_be_one and merging.may_merge(by, goes, stays):
        evidence = Evidence(flag.known_probability, flag.release.name)
        review.merge = merging.merge(
            duplicate=goes, canonical=stays, by=by, evidence=evidence, now=now
        )
        review.save(update_fields=["merge"])
    return review


@merging.retried
def dismiss(
    *, flag: Flag, by: User, seen: Mapping[int, int] | None = None, now: datetime | None = None
) -> Review:
    """Record that two questions are not the same: remembered until one of the texts changes.

    On a disputed merge, the merge is taken back where `by` may do that; otherwise it waits for
    somebody who may. Raises FlagClosed, merging.Stale where `seen` is not the newest.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(flag.older_id, flag.newer_id)
    flag = _open(flag)
    merging.refuse_stale(threads, seen or {})
    review = _decide(flag, Review.Verdict.DISMISSED, by=by, now=now)
    if edge := disputed_edge(flag):
        try:
            review.merge = merging.unmerge(merge=edge, by=by, now=now)
        except merging.NotAllowed:
            return review
        review.save(update_fields=["merge"])
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
    """Take one's own decision back, with the merge or unmerge it led to; the flag is open again.

    A flag that has left the decision meanwhile (its texts were edited and a check withdrew it)
    stays as it is. Leaves neither mark nor label. Raises NotYours, merging.MergeRefused.
    """
    now = now or timezone.now()
    flag, edge = review.flag, review.merge
    ends = (edge.duplicate_id, edge.canonical_id) if edge else ()
    merging.lock_threads(flag.older_id, flag.newer_id, *ends)
    flag = Flag.objects.select_for_update().get(pk=flag.pk)
    review = Review.objects.select_for_update().get(pk=review.pk)
    newest = flag.reviews.standing().order_by("-pk").first()
    if review.by_id != by.pk or newest is None or newest.pk != review.pk:
        raise NotYours("Only the newest decision can be taken back, by who took it.")
    if review.merge and review.verdict == Review.Verdict.CONFIRMED:
        merging.unmerge(merge=review.merge, by=by, now=now)
    elif review.merge:
        merging.restore(merge=review.merge, by=by, now=now)
    review.undone_at = now
    review.save(update_fields=["undone_at"])
    if flag.status == review.verdict:
        flag.status, flag.decided_at = Flag.Status.OPEN, None
        flag.save(update_fields=["status", "decided_at"])
    audit.record("review_undone", by=by, now=now, flag=flag.pk, review=review.pk)
    return flag


def disputed_edge(flag: Flag) -> Merge | None:
    """The merge in force that a disputed flag is about."""
    if flag.disputed_at is None:
        return None
    pair = _edge(flag.older_id, flag.newer_id)
    edges = Merge.objects.in_force().select_related("duplicate", "canonical")
    return edges.filter(pair).first()


def is_marked(one: Question, other: Question) -> bool:
    """Whether people said of any pair between these two threads that it is not a duplicate."""
    marks = Flag.objects.filter(across(one, other), status=Flag.Status.DISMISSED)
    return marks.exists() or flagging.was_parted(one.pk, other.pk)


def earlier(flag: Flag) -> list[Review]:
    """What people said of a pair before and did not take back, newest first."""
    said = flag.reviews.standing().exclude(verdict=Review.Verdict.SKIPPED)
    return list(said.select_related("by").order_by("-pk"))


def across(one: Question, other: Question) -> Q:
    """Which flags join these two threads."""
    members = Question.objects.of_threads(one.pk).values("pk")
    others = Question.objects.of_threads(other.pk).values("pk")
    return Q(older__in=members, newer__in=others) | Q(older__in=others, newer__in=members)


def pair_of(one: int, other: int) -> Q:
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
    close(flag, verdict, now=now)
    audit.record("reviewed", by=by, now=now, flag=flag.pk, verdict=verdict)
    return _review(flag, verdict, by=by, now=now, canonical=canonical)


def close(flag: Flag, status: str, *, now: datetime) -> None:
    """Close a flag on the texts as they are now: only when one changes may it be asked again."""
    flag.status, flag.decided_at = status, now
    flag.claimed_by = flag.claimed_until = None
    flag.older_hash, flag.newer_hash = text_of(flag.older).hash, text_of(flag.newer).hash
    flag.save()


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
