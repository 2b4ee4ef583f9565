"""The merge desk: merges with the machine's evidence, one or many, taken back, disputed, or linked
instead.

Locks: questions in id order, then flags; everywhere the same, so that nobody waits in a circle.
"""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from dedup import review
from dedup.marks import across, pair_of
from dedup.models import Flag, Release, Review
from dedup.review import NotWaiting, NotYours, ReviewRefused, reopen
from dedup.texts import text_of
from support import audit, merging
from support.merging import Evidence
from support.models import Merge, Question, User


class NotMerged(ReviewRefused):
    """The question is not merged into another, so there is nothing to dispute."""

    code = "not_merged"


class NotLinked(ReviewRefused):
    """The same people may read both questions, so they are merged, not linked."""

    code = "not_linked"


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
    """Take any merge back, and mark its pair as "not a duplicate", so that no check asks again; so
    are all confirmed pairs across the two threads that it leaves, or they would wait to be merged.

    Within 30 s of the merge it was a slip: no mark, and what was decided with it is open again.
    Raises merging.MergeRefused.
    """
    now = now or timezone.now()
    led = Q(reviews__merge=merge, reviews__undone_at=None)
    own = Flag.objects.filter(led | pair_of(merge.duplicate_id, merge.canonical_id))
    ids = {pk for pair in own.values_list("older_id", "newer_id") for pk in pair}
    threads = merging.lock_threads(merge.duplicate_id, merge.canonical_id, *ids)
    crossing = Flag.objects.filter(_between(merge, threads), status=Flag.Status.CONFIRMED)
    flags = Flag.objects.filter(Q(pk__in=own.values("pk")) | Q(pk__in=crossing.values("pk")))
    locked = list(flags.order_by("pk").select_for_update())
    was_in_force = Merge.objects.in_force().filter(pk=merge.pk).exists()
    undone = merging.unmerge(merge=merge, by=by, now=now)
    if was_in_force and now - undone.merged_at > merging.UNDO:
        _mark(undone, locked, by=by, now=now)
    elif was_in_force:
        _forget(undone, locked, now=now)
    return undone


def _mark(edge: Merge, flags: Collection[Flag], *, by: User, now: datetime) -> None:
    """Say of pairs that a merge had joined that they are not duplicates; one undo of that puts the
    merge in force again."""
    batch = uuid.uuid4()
    for flag in flags:
        if flag.status not in (Flag.Status.DISMISSED, Flag.Status.RELATED):
            said = review.record(flag, Review.Verdict.DISMISSED, by=by, now=now)
            said.batch, said.merge = batch, edge
            said.save(update_fields=["batch", "merge"])


def _between(edge: Merge, threads: Mapping[int, Question]) -> Q:
    """Which flags join what an unmerge gives back to what stays in its thread."""
    back = set(merging.subtree(edge.duplicate_id))
    root_id = threads[edge.canonical_id].root_id
    rest = {pk for pk, question in threads.items() if question.root_id == root_id} - back
    return Q(older__in=back, newer__in=rest) | Q(older__in=rest, newer__in=back)


@merging.retried
def merge_many(
    *,
    flag_ids: Collection[int],
    by: User,
    shown: Mapping[int, tuple[int, int]] | None = None,
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> list[Merge]:
    """Merge pairs that wait for it, each in the direction that the list proposes, or none of them.

    `shown` has what a person saw that would close and stay, by flag. Pairs that an earlier one of
    them has brought together already need no merge of their own. Raises review.NotWaiting,
    merging.MergeRefused (Stale where another question would close or stay than was shown).
    """
    pairs = Flag.objects.filter(pk__in=flag_ids)
    ids = {pk for pair in pairs.values_list("older_id", "newer_id") for pk in pair}
    threads = merging.lock_threads(*ids)
    merging.refuse_stale(threads, seen or {})
    waiting = list(Flag.objects.to_merge().filter(pk__in=flag_ids))
    if {flag.pk for flag in waiting} != set(flag_ids):
        raise NotWaiting(_("Some of these pairs do not wait to be merged any more."))
    asked = [(flag.pk, (goes.pk, stays.pk)) for flag, goes, stays in proposals(waiting)]
    if shown is not None and any(shown.get(pk) != pair for pk, pair in asked):
        raise merging.Stale(_("These questions would be merged otherwise than you saw."))
    if shown is not None:
        never_seen = {pk: 0 for _flag, pair in asked for pk in pair}
        merging.refuse_stale(threads, never_seen | dict(seen or {}))
    edges = []
    for _flag, pair in asked:
        now_live = Question.objects.in_bulk(pair)
        goes, stays = (now_live[pk].root_id for pk in pair)  # as the merges before have left them
        if goes != stays:
            both = Question.objects.in_bulk([goes, stays])
            edges.append(merge(duplicate=both[goes], canonical=both[stays], by=by, now=now))
    return edges


@merging.retried
def unmerge_many(
    *, merges: Collection[Merge], by: User, now: datetime | None = None
) -> list[Merge]:
    """Take merges back, the last one first, or none of them. Raises merging.MergeRefused."""
    merging.lock_threads(*{pk for edge in merges for pk in (edge.duplicate_id, edge.canonical_id)})
    return [
        unmerge(merge=edge, by=by, now=now)
        for edge in sorted(merges, key=lambda edge: edge.pk, reverse=True)
    ]


def proposals(flags: Collection[Flag]) -> list[tuple[Flag, Question, Question]]:
    """Each pair with the live question that would close and the one that would stay: which who
    confirmed it chose, or else the one that a card proposes."""
    ends = Question.objects.in_bulk({pk for flag in flags for pk in flag.question_ids})
    roots = Question.objects.select_related("product").in_bulk({q.root_id for q in ends.values()})
    pairs = [
        (roots[ends[flag.older_id].root_id], roots[ends[flag.newer_id].root_id]) for flag in flags
    ]
    said = Review.objects.standing().filter(verdict=Review.Verdict.CONFIRMED, flag__in=flags)
    newest = said.order_by("pk").select_related("canonical").exclude(canonical=None)
    chosen = {one.flag_id: one.canonical.root_id for one in newest if one.canonical}
    directed = merging.choose_directions(pairs)
    return [
        (flag, *(reversed(both) if chosen.get(flag.pk) == both[0].pk else both))
        for flag, both in zip(flags, directed, strict=True)
    ]


def _forget(edge: Merge, flags: Collection[Flag], *, now: datetime) -> None:
    """Open again what was decided with this merge; what was decided before it still stands."""
    confirmed = Review.objects.standing().filter(verdict=Review.Verdict.CONFIRMED)
    led = confirmed.filter(merge=edge)
    same_act = confirmed.filter(
        Q(merge=edge) | Q(flag__in=flags), by=edge.merged_by_id, reviewed_at=edge.merged_at
    )
    for said in same_act.select_related("flag"):
        reopen(said.flag, said)
        said.flag.save()
    Review.objects.filter(pk__in=list(same_act.values_list("pk", flat=True))).update(undone_at=now)
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
        raise NotYours(_("Only who asked a question can say that it is different."))
    edge = Merge.objects.in_force().filter(duplicate=question).select_related("canonical").first()
    if edge is None:
        raise NotMerged(_("This question is not merged into another."))
    flag = _pair(question, edge.canonical, edge)
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.lane = Flag.Lane.FLAGGED
    flag.disputed_by, flag.disputed_at, flag.dispute = by, now, reason.strip()[:500]
    flag.save()
    audit.record("disputed", by=by, now=now, question=question, merge=edge.pk)
    return flag


@merging.retried
def link(*, one: Question, other: Question, by: User, now: datetime | None = None) -> Review | None:
    """Say that two are the same although other people may read the one than the other.

    Agents then see each beside the other; nothing is merged. None where somebody said so before.
    Raises NotLinked where the same people may read both, NotReviewable.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(one.pk, other.pk)
    one, other = threads[one.pk], threads[other.pk]
    if one.has_same_readers_as(other):
        raise NotLinked(_("The same people may read both: they can be merged."))
    flag = _pair(one, other)
    if flag.pk and flag.status == Flag.Status.CONFIRMED:
        return None
    if flag.pk is None:
        flag.flagged_at = now  # nobody had asked: an undo closes it again
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.save()
    return review.confirm(flag=flag, canonical=one, by=by, now=now)


def linked(question: Question) -> list[Question]:
    """Live questions that are related to this one, or the same but with other readers; for agents
    only."""
    members = Question.objects.of_threads(question.pk)
    either = Q(older__in=members) | Q(newer__in=members)
    known = Flag.objects.filter(either, status__in=[Flag.Status.CONFIRMED, Flag.Status.RELATED])
    ends = known.with_roots().values_list("low", "high", "status")  # type: ignore[misc]
    related = {pk for *pair, status in ends for pk in pair if status == Flag.Status.RELATED}
    roots = {pk for *pair, _status in ends for pk in pair}
    others = Question.objects.filter(pk__in=roots).exclude(pk__in=members).order_by("pk")
    return [o for o in others if o.pk in related or not o.has_same_readers_as(question)]


def _pair(one: Question, other: Question, edge: Merge | None = None) -> Flag:
    """The locked flag of a pair on its texts as they are now, or a new one that is not stored."""
    older, newer = sorted([one, other], key=lambda question: question.order)
    flag = Flag.objects.filter(pair_of(older.pk, newer.pk)).select_for_update(of=["self"]).first()
    if flag is None:
        probability = edge.probability if edge else None
        flag = Flag(
            older=older, newer=newer, probability=probability or 0.0, asked_share=None,
            release=_release(edge),
        )  # fmt: skip
    texts = (text_of(older).hash, text_of(newer).hash)
    if texts != (flag.older_hash, flag.newer_hash):
        (flag.older_hash, flag.newer_hash), flag.alignment = texts, None
    return flag


def _release(edge: Merge | None) -> Release:
    """The release that led to a merge, or else the one in service, or any that ever was."""
    known = Release.objects.order_by("-is_active", "-pk")
    release = known.filter(name=edge.release).first() if edge else None
    release = release or known.first()
    if release is None:
        raise NotReviewable(_("Nothing can be reviewed before there is a release."))
    return release
