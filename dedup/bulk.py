"""Many pairs decided in one go: in one transaction, and taken back in one."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from dedup import review
from dedup.models import Flag, Review
from support import merging
from support.models import Question, User

VERDICTS = (*Review.DECISIONS, Review.Verdict.SKIPPED)


@dataclass(frozen=True)
class Row:
    """One pair, and what the decision would do to it."""

    flag: Flag
    canonical: Question
    duplicate: Question
    effect: str  # merged | to_merge | linked | remembered | skipped | closed | together


@dataclass(frozen=True)
class Preview:
    """What deciding these pairs would do, before anybody does it."""

    verdict: str
    rows: list[Row]
    versions: dict[int, int] = field(default_factory=dict)


def preview(*, flag_ids: Collection[int], verdict: str, by: User) -> Preview:
    """Say of each pair what the verdict would do to it. Writes and locks nothing."""
    flags = Flag.objects.filter(pk__in=flag_ids).unhidden().in_queue_order()
    flags = flags.select_related("older__canonical", "newer__canonical", "release")
    pairs = [(f.older.canonical or f.older, f.newer.canonical or f.newer) for f in flags]
    rows: list[Row] = []
    versions: dict[int, int] = {}
    for flag, both in zip(flags, merging.choose_directions(pairs), strict=True):
        duplicate, canonical = both
        rows.append(Row(flag, canonical, duplicate, _effect(flag, *both, verdict, by)))
        versions |= {q.pk: q.version for q in (*both, flag.older, flag.newer)}
    return Preview(verdict, rows, versions)


def _effect(flag: Flag, duplicate: Question, canonical: Question, verdict: str, by: User) -> str:
    if flag.status != Flag.Status.OPEN:
        return "closed"
    if verdict == Review.Verdict.SKIPPED:
        return "skipped"
    if verdict != Review.Verdict.CONFIRMED:
        return "remembered"
    if duplicate.pk == canonical.pk:
        return "together"
    if not duplicate.has_same_readers_as(canonical):
        return "linked"
    return "merged" if merging.may_merge(by, duplicate, canonical) else "to_merge"


@merging.retried
def apply(
    *,
    flag_ids: Collection[int],
    verdict: str,
    by: User,
    stays: Mapping[int, int] | None = None,
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> list[Review]:
    """Decide all pairs alike, or none of them.

    `stays` has the question that is to stay, by flag; by default the one that a card proposes.
    Raises review.FlagClosed where one was decided meanwhile, merging.MergeRefused (Stale where
    `seen` is not the newest).
    """
    now, batch = now or timezone.now(), uuid.uuid4()
    flags = list(Flag.objects.filter(pk__in=flag_ids).in_queue_order())
    threads = merging.lock_threads(*{pk for flag in flags for pk in flag.question_ids})
    merging.refuse_stale(threads, seen or {})
    chosen = Question.objects.in_bulk((stays or {}).values())
    said = [
        _decide(flag, verdict, chosen.get((stays or {}).get(flag.pk, 0)), by=by, now=now)
        for flag in flags
    ]
    for one in said:
        one.batch = batch
    Review.objects.bulk_update(said, ["batch"])
    return said


def _decide(
    flag: Flag, verdict: str, canonical: Question | None, *, by: User, now: datetime
) -> Review:
    if verdict == Review.Verdict.CONFIRMED:
        flag = Flag.objects.select_related("older__canonical", "newer__canonical").get(pk=flag.pk)
        stays = canonical or review.proposed(flag)
        return review.confirm(flag=flag, canonical=stays, by=by, now=now)
    if verdict == Review.Verdict.SKIPPED:
        return review.skip(flag=flag, by=by, now=now)
    is_related = verdict == Review.Verdict.RELATED
    return review.dismiss(flag=flag, by=by, is_related=is_related, now=now)
