"""What a reviewer can do with a flag: confirm, dismiss, pass on, and take it back.

Locks: questions in id order, then the flag; everywhere the same, so that nobody waits in a circle.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext as _

from dedup import marks
from dedup.models import Flag, Review, ReviewQuerySet
from dedup.texts import text_of
from support import audit, merging
from support.merging import Evidence
from support.models import Question, User

LONGEST_SNOOZE = timedelta(days=92)


class ReviewRefused(Exception):
    """A decision that cannot be taken; `code` says why, for programs."""

    code = "refused"


class FlagClosed(ReviewRefused):
    """Somebody else decided first."""

    code = "flag_closed"

    def __init__(self, flag: Flag) -> None:
        super().__init__(_("This pair has been decided already."))
        self.flag = flag
        self.last = flag.reviews.standing().order_by("-pk").select_related("by").first()


class NotYours(ReviewRefused):
    """Only who decided can take a decision back, and only while it is the newest."""

    code = "not_yours"


class WrongTime(ReviewRefused):
    """A time that lies behind, or too far ahead."""

    code = "wrong_time"


class NotWaiting(ReviewRefused):
    """The pair is not on the list of what waits to be merged."""

    code = "not_waiting"


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
    flag = _open(flag, threads)
    merging.refuse_stale(threads, seen or {})
    if canonical.pk not in threads:
        raise NotOfPair(_("The question that is to stay is not one of the two."))
    one, other = (threads[threads[pk].root_id] for pk in (flag.older_id, flag.newer_id))
    stays = threads[threads[canonical.pk].root_id]
    goes = other if stays.pk == one.pk else one
    review = record(flag, Review.Verdict.CONFIRMED, by=by, now=now, canonical=stays)
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
    *,
    flag: Flag,
    by: User,
    is_related: bool = False,
    note: str = "",
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> Review:
    """Record that two questions are not the same: remembered until one of the texts changes.

    Where they are related, each is shown beside the other. On a disputed merge, the merge is taken
    back where `by` may do that; otherwise it waits for somebody who may. Raises FlagClosed,
    merging.Stale where `seen` is not the newest.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(flag.older_id, flag.newer_id)
    flag = _open(flag, threads)
    merging.refuse_stale(threads, seen or {})
    verdict = Review.Verdict.RELATED if is_related else Review.Verdict.DISMISSED
    review = record(flag, verdict, by=by, now=now, note=note)
    if edge := marks.disputed_edge(flag):
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
    return _pass_on(flag, Review.Verdict.SKIPPED, by=by, now=now)


@merging.retried
def snooze(
    *, flag: Flag, by: User, until: datetime, more: int | None = None, now: datetime | None = None
) -> Review:
    """Hide a flag from everybody until a time, or until `more` flags of its questions have come.

    Raises FlagClosed, WrongTime where `until` lies behind, or further ahead than LONGEST_SNOOZE.
    """
    now = now or timezone.now()
    if not now < until <= now + LONGEST_SNOOZE:
        raise WrongTime(_("Choose a time within the next three months."))
    flag = _open(flag)
    flag.snoozed_until, flag.snoozed_left = until, more
    return _pass_on(flag, Review.Verdict.SNOOZED, by=by, now=now)


@merging.retried
def ask_second_opinion(
    *, flag: Flag, by: User, note: str = "", now: datetime | None = None
) -> Review:
    """Leave a flag to somebody else, with a word on what is unclear. Raises FlagClosed."""
    now = now or timezone.now()
    return _leave_to_others(_open(flag), by=by, note=note, now=now)


@merging.retried
def undo(*, review: Review, by: User, now: datetime | None = None) -> Flag:
    """Take one's own decision back, with the merge or unmerge it led to; the flag is open again.

    What was decided in one go goes back in one go, in one transaction. A flag that has left the
    decision meanwhile (its texts were edited and a check withdrew it) stays as it is. Leaves
    neither mark nor label. Raises NotYours, merging.MergeRefused.
    """
    now = now or timezone.now()
    review.refresh_from_db(fields=["batch", "undone_at"])
    merging.lock_threads(*_concerned(_together(review)))
    flags = Flag.objects.filter(reviews__in=_together(review)).order_by("pk")
    locked = {flag.pk: flag for flag in flags.select_for_update(of=["self"])}
    for said in _together(review).order_by("-pk").select_for_update(of=["self"]):
        if said.by_id != by.pk or not _is_newest(said, locked[said.flag_id]):
            raise NotYours(_("Only the newest decision can be taken back, by who took it."))
        _take_back(said, locked[said.flag_id], by=by, now=now)
    return locked[review.flag_id]


def _together(review: Review) -> ReviewQuerySet:
    """The review, and those that were made with it in one go and not taken back since."""
    alone = Review.objects.filter(pk=review.pk)
    if review.batch is None:
        return alone
    return alone | Review.objects.standing().filter(batch=review.batch)


def _concerned(reviews: ReviewQuerySet) -> set[int]:
    """Ids of the questions that flags and merges of these reviews join."""
    ends = ("flag__older", "flag__newer", "merge__duplicate", "merge__canonical")
    return {pk for row in reviews.values_list(*ends) for pk in row if pk is not None}


def _take_back(review: Review, flag: Flag, *, by: User, now: datetime) -> None:
    """Undo what a decision did. Whose it was has been looked at."""
    if review.merge and review.verdict == Review.Verdict.CONFIRMED:
        merging.unmerge(merge=review.merge, by=by, now=now)
    elif review.merge:
        merging.restore(merge=review.merge, by=by, now=now)
    review.undone_at = now
    review.save(update_fields=["undone_at"])
    if flag.status == review.verdict:
        reopen(flag, review)
    if review.verdict == Review.Verdict.SNOOZED:
        flag.snoozed_until = flag.snoozed_left = None
    if review.verdict == Review.Verdict.UNSURE:
        flag.unsure_by, flag.unsure_at, flag.unsure = None, None, ""
    flag.save()
    audit.record("review_undone", by=by, now=now, flag=flag.pk, review=review.pk)


def reopen(flag: Flag, review: Review) -> None:
    """Take a flag back to before the review that closed it: open, or as it was where nothing but
    the review itself had asked."""
    if flag.flagged_at != review.reviewed_at:
        flag.status, flag.decided_at = Flag.Status.OPEN, None
        return
    said = flag.reviews.standing().filter(verdict__in=Review.DECISIONS, pk__lt=review.pk)
    before = said.order_by("-pk").first()
    if before is None:
        flag.status = Flag.Status.WITHDRAWN
        return
    flag.status, flag.decided_at = before.verdict, before.reviewed_at
    flag.older_hash, flag.newer_hash = before.older_hash, before.newer_hash


def _is_newest(review: Review, flag: Flag) -> bool:
    newest = flag.reviews.standing().filter(verdict__in=_alike(review)).order_by("-pk").first()
    return newest is not None and newest.pk == review.pk


def _alike(review: Review) -> tuple[str, ...]:
    """A decision can be taken back while it is the newest one, whoever passed it on since."""
    return Review.DECISIONS if review.verdict in Review.DECISIONS else (review.verdict,)


@merging.retried
def overrule(
    *,
    review: Review,
    verdict: str,
    by: User,
    canonical: Question | None = None,
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> Review:
    """Take a decision back, whoever took it, and say another, in one transaction.

    `canonical` stays where the other is "duplicate": by default, the one that a card proposes.
    Raises FlagClosed where the decision stands no longer or a newer one does, merging.NotAllowed
    where it led to a merge that `by` may not take back, and what `confirm` and `dismiss` raise.
    """
    now = now or timezone.now()
    merging.lock_threads(*_concerned(Review.objects.filter(pk=review.pk)))
    flag = Flag.objects.select_for_update(of=["self"]).get(pk=review.flag_id)
    if not _is_newest(review, flag):
        raise FlagClosed(flag)
    is_its_own = flag.status == review.verdict
    _take_back(review, flag, by=by, now=now)
    if is_its_own:  # also where nothing but the review had asked: somebody does now
        flag.status, flag.decided_at = Flag.Status.OPEN, None
        flag.save(update_fields=["status", "decided_at"])
    if verdict == Review.Verdict.CONFIRMED:
        stays = canonical or proposed(flag)
        return confirm(flag=flag, canonical=stays, by=by, seen=seen, now=now)
    is_related = verdict == Review.Verdict.RELATED
    return dismiss(flag=flag, by=by, is_related=is_related, seen=seen, now=now)


@merging.retried
def send_back(*, flag: Flag, by: User, note: str, now: datetime | None = None) -> Review:
    """Open a confirmed pair again that waits to be merged: somebody else is to look, with a word.

    Raises NotWaiting where it is merged or not confirmed any more, merging.NotAllowed where `by`
    could not merge it either.
    """
    now = now or timezone.now()
    threads = merging.lock_threads(flag.older_id, flag.newer_id)
    flag = Flag.objects.select_for_update(of=["self"]).select_related("release").get(pk=flag.pk)
    one, other = (threads[threads[pk].root_id] for pk in flag.question_ids)
    if flag.status != Flag.Status.CONFIRMED or one.pk == other.pk:
        raise NotWaiting(_("This pair does not wait to be merged any more."))
    if not merging.may_merge(by, one, other):
        raise merging.NotAllowed(_("Only who may merge a pair can send it back."))
    flag.reviews.standing().filter(verdict=Review.Verdict.CONFIRMED).update(undone_at=now)
    flag.status, flag.decided_at = Flag.Status.OPEN, None
    flag.lane = Flag.Lane.FLAGGED
    audit.record("sent_back", by=by, now=now, flag=flag.pk)
    return _leave_to_others(flag, by=by, note=note, now=now)


def proposed(flag: Flag) -> Question:
    """The question that stays, where nobody chooses otherwise."""
    roots = (question.canonical or question for question in (flag.older, flag.newer))
    return merging.choose_direction(*roots)[1]


def _open(flag: Flag, threads: Mapping[int, Question] | None = None) -> Flag:
    """The flag, locked and looked at again, with its questions where they are locked already."""
    flag = Flag.objects.select_for_update(of=["self"]).select_related("release").get(pk=flag.pk)
    if flag.status != Flag.Status.OPEN:
        raise FlagClosed(flag)
    if threads:
        flag.older, flag.newer = threads[flag.older_id], threads[flag.newer_id]
    return flag


def record(
    flag: Flag,
    verdict: str,
    *,
    by: User,
    now: datetime,
    canonical: Question | None = None,
    note: str = "",
) -> Review:
    """Write down what a person says of a pair, and close its flag; it has been locked."""
    close(flag, verdict, now=now)
    audit.record("reviewed", by=by, now=now, flag=flag.pk, verdict=verdict)
    return _review(flag, verdict, by=by, now=now, canonical=canonical, note=note)


def close(flag: Flag, status: str, *, now: datetime) -> None:
    """Close a flag on the texts as they are now: only when one changes may it be asked again."""
    flag.status, flag.decided_at = status, now
    flag.claimed_by = flag.claimed_until = None
    flag.snoozed_until = flag.snoozed_left = None
    flag.unsure_by, flag.unsure_at, flag.unsure = None, None, ""
    flag.older_hash, flag.newer_hash = text_of(flag.older).hash, text_of(flag.newer).hash
    flag.save()


def _leave_to_others(flag: Flag, *, by: User, note: str, now: datetime) -> Review:
    flag.unsure_by, flag.unsure_at, flag.unsure = by, now, note.strip()[:500]
    return _pass_on(flag, Review.Verdict.UNSURE, by=by, now=now, note=flag.unsure)


def _pass_on(flag: Flag, verdict: str, *, by: User, now: datetime, note: str = "") -> Review:
    """Leave a flag open, for others or for later."""
    flag.claimed_by = flag.claimed_until = None
    flag.save()
    return _review(flag, verdict, by=by, now=now, note=note)


def _review(
    flag: Flag,
    verdict: str,
    *,
    by: User,
    now: datetime,
    canonical: Question | None = None,
    note: str = "",
) -> Review:
    return flag.reviews.create(
        verdict=verdict,
        by=by,
        reviewed_at=now,
        canonical=canonical,
        note=note,
        probability=flag.probability,
        release=flag.release.name,
        older_hash=flag.older_hash,
        newer_hash=flag.newer_hash,
    )
