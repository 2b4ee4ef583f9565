"""The merge desk: merges with the machine's evidence, taken back, disputed, or linked instead.

Locks: questions in id order, then flags; everywhere the same, so that nobody waits in a circle.
"""

from collections.abc import Mapping
from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from dedup.models import Flag, Release, Review
from dedup.review import NotYours, ReviewRefused, across, close, pair_of
from dedup.texts import text_of
from support import audit, merging
from support.merging import Evidence
from support.models import Merge, Question, User


class NotMerged(ReviewRefused):
    """The question is not merged into another, so there is nothing to dispute."""

    code = "not_merged"


class NotReviewable(ReviewRefused):
    """There has never been a release, and a flag needs one."""

    code = "not_reviewable"


@merging.retried
def merge(
    *,
    duplicate: Question,
    canonical: Question,
    by: User,
    reason: str = "",
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> Merge:
    """Merge two live questions, with what the machine said of their threads as evidence.

    Reviews that asked for it and waited for somebody with the right point at the merge from now on.
    Raises merging.MergeRefused.
    """
    merging.lock_threads(duplicate.pk, canonical.pk)
    flags = Flag.objects.filter(across(duplicate, canonical)).exclude(status=Flag.Status.WITHDRAWN)
    locked = list(flags.order_by("pk").select_for_update(of=["self"]).select_related("release"))
    likeliest = max(locked, key=lambda flag: flag.probability, default=None)
    edge = merging.merge(
        duplicate=duplicate,
        canonical=canonical,
        by=by,
        reason=reason,
        seen=seen,
        evidence=Evidence(likeliest.known_probability, likeliest.release.name)
        if likeliest
        else Evidence(),
        now=now,
    )
    asked = Review.objects.standing().filter(verdict=Review.Verdict.CONFIRMED, flag__in=locked)
    asked.filter(merge=None).update(merge=edge)
    return edge


@merging.retried
def unmerge(*, merge: Merge, by: User, now: datetime | None = None) -> Merge:
    """Take any merge back, and mark its pair as "not a duplicate", so that no check asks again.

    Within 30 s of the merge it was a slip: no mark, and what was decided with it is open again.
    Raises merging.MergeRefused.
    """
    now = now or timezone.now()
    led = Q(reviews__merge=merge, reviews__undone_at=None)
    flags = Flag.objects.filter(led | pair_of(merge.duplicate_id, merge.canonical_id))
    ids = {pk for pair in flags.values_list("older_id", "newer_id") for pk in pair}
    merging.lock_threads(merge.duplicate_id, merge.canonical_id, *ids)
    locked = list(Flag.objects.filter(pk__in=flags.values("pk")).order_by("pk").select_for_update())
    was_in_force = Merge.objects.in_force().filter(pk=merge.pk).exists()
    undone = merging.unmerge(merge=merge, by=by, now=now)
    if was_in_force and now - undone.merged_at > merging.UNDO:
        for flag in locked:
            close(flag, Flag.Status.DISMISSED, now=now)
    elif was_in_force:
        _forget(undone, now=now)
    return undone


def _forget(edge: Merge, *, now: datetime) -> None:
    """Open again what was decided with this merge; what was decided before it still stands."""
    led = Review.objects.standing().filter(merge=edge, verdict=Review.Verdict.CONFIRMED)
    same_act = led.filter(by=edge.merged_by_id, reviewed_at=edge.merged_at)
    Flag.objects.filter(reviews__in=same_act).update(status=Flag.Status.OPEN, decided_at=None)
    same_act.update(undone_at=now)
    led.update(merge=None)


@merging.retried
def dispute(*, question: Question, by: User, reason: str, now: datetime | None = None) -> Flag:
    """Let the asker of a merged question say "mine is different": the pair is reviewed again.

    Raises NotMerged, NotYours, NotReviewable.
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
    pair = Flag.objects.filter(pair_of(older.pk, newer.pk)).select_for_update()
    flag = pair.first() or Flag(
        older=older, newer=newer, probability=edge.probability or 0.0, release=_release(edge)
    )
    flag.older_hash, flag.newer_hash = text_of(older).hash, text_of(newer).hash
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.disputed_by, flag.disputed_at, flag.dispute = by, now, reason.strip()[:500]
    flag.save()
    audit.record("disputed", by=by, now=now, question=question, merge=edge.pk)
    return flag


def linked(question: Question) -> list[Question]:
    """Live questions that are related to this one, or the same but with other readers; for agents
    only."""
    members = Question.objects.of_threads(question.pk)
    either = Q(older__in=members) | Q(newer__in=members)
    known = Flag.objects.filter(either, status__in=[Flag.Status.CONFIRMED, Flag.Status.RELATED])
    ends = known.with_roots().values_list("low", "high", "status")  # type: ignore[misc]
    related = {pk for *pair, status in ends for pk in pair if status == Flag.Status.RELATED}
    roots = {pk for *pair, _ in ends for pk in pair}
    others = Question.objects.filter(pk__in=roots).exclude(pk__in=members).order_by("pk")
    return [o for o in others if o.pk in related or not o.has_same_readers_as(question)]


def _release(edge: Merge) -> Release:
    """The release that led to a merge, or else the one in service, or any that ever was."""
    known = Release.objects.order_by("-is_active", "-pk")
    release = known.filter(name=edge.release).first() or known.first()
    if release is None:
        raise NotReviewable("Nothing can be reviewed before there is a release.")
    return release
