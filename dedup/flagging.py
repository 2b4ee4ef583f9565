"""Writes scores and flags, in the transaction that settles the claim."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F, Q

from dedup import marks
from dedup.decision import Sampled, ScoredCandidate
from dedup.ml.pairs import AlignedWords
from dedup.models import Flag, Release, Review, Score
from dedup.texts import Text, text_of
from support import merging
from support.models import Question, User


@dataclass(frozen=True)
class Findings:
    """What one check found: all scored candidates, those to flag with the words aligned in them,
    and those to ask about blindly."""

    text: Text
    others: dict[int, Text]
    scored: Sequence[ScoredCandidate]
    to_flag: Sequence[ScoredCandidate]
    release: Release
    aligned: Mapping[int, Sequence[AlignedWords]]  # by the other question's id
    sampled: Sequence[Sampled] = ()


def write(findings: Findings, *, now: datetime) -> None:
    """Store scores; open, renew or withdraw the question's flags. Never overrules a person.

    To be called inside `outbox.settling`. Questions are locked in id order, then flags.
    """
    ids = sorted({findings.text.question_id, *findings.others})
    merging.lock_keys(ids)
    edited = _edited_since(findings)
    _store_scores(findings, now, edited)
    question_id = findings.text.question_id
    flags = {
        flag.older_id if flag.newer_id == question_id else flag.newer_id: flag
        for flag in Flag.objects.filter(Q(older=question_id) | Q(newer=question_id))
        .order_by("pk")
        .select_for_update()
    }
    wanted = {candidate.question_id: candidate for candidate in findings.to_flag}
    for other_id, candidate in wanted.items():
        if other_id not in edited:
            _open(flags.get(other_id), findings, candidate, now)
    for other_id, flag in flags.items():
        if other_id not in wanted and other_id not in edited:
            _withdraw(flag, findings, other_id, now)
    for drawn in findings.sampled:
        if (other_id := drawn.candidate.question_id) not in edited:
            _open(flags.get(other_id), findings, drawn.candidate, now, blind_share=drawn.share)


@transaction.atomic
def keep_scores(scores: Sequence[Score]) -> int:
    """Store what a release said of pairs apart from a check; return of how many.

    Of those whose texts are no longer what was judged, nothing is kept.
    """
    ids = sorted({pk for one in scores for pk in (one.older_id, one.newer_id)})
    merging.lock_keys(ids)
    now = {q.pk: text_of(q).hash for q in Question.objects.filter(pk__in=ids).defer("words")}
    fresh = [
        one
        for one in scores
        if (now.get(one.older_id), now.get(one.newer_id)) == (one.older_hash, one.newer_hash)
    ]
    _upsert(sorted(fresh, key=lambda one: (one.older_id, one.newer_id)))
    return len(fresh)


def _edited_since(findings: Findings) -> set[int]:
    """Other questions whose text is no longer the one that was judged: their own check will say."""
    questions = Question.objects.filter(pk__in=findings.others)
    return {q.pk for q in questions if text_of(q).hash != findings.others[q.pk].hash}


def _ordered(findings: Findings, other_id: int) -> tuple[Text, Text]:
    one, other = sorted([findings.text, findings.others[other_id]], key=lambda text: text.order)
    return one, other


def _store_scores(findings: Findings, now: datetime, edited: Collection[int]) -> None:
    """Of what still reads as it was judged: a score outlives no text that was erased."""
    rows = []
    judged = [one for one in findings.scored if one.question_id not in edited]
    for candidate in sorted(judged, key=lambda candidate: candidate.question_id):
        older, newer = _ordered(findings, candidate.question_id)
        rows.append(
            Score(
                older_id=older.question_id,
                newer_id=newer.question_id,
                older_hash=older.hash,
                newer_hash=newer.hash,
                release=findings.release,
                logit=candidate.logit,
                cosine=candidate.cosine,
                probability=candidate.probability,
                settled_by=candidate.settled_by,
                scored_at=now,
            )
        )
    _upsert(rows)


def _upsert(rows: Sequence[Score]) -> None:
    Score.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["older", "newer", "release"],
        update_fields=[
            "older_hash",
            "newer_hash",
            "logit",
            "cosine",
            "probability",
            "settled_by",
            "scored_at",
        ],
    )


def _open(
    flag: Flag | None,
    findings: Findings,
    candidate: ScoredCandidate,
    now: datetime,
    *,
    blind_share: float | None = None,
) -> None:
    """Open or renew a flag; with a `blind_share`, one that is asked about without its score."""
    lane = Flag.Lane.FLAGGED if blind_share is None else Flag.Lane.SAMPLED
    older, newer = _ordered(findings, candidate.question_id)
    texts = (older.hash, newer.hash)
    if flag is None:
        if marks.was_parted(older.question_id, newer.question_id):
            return
        if lane == Flag.Lane.FLAGGED:
            _wake(older.question_id, newer.question_id)
        pair = {"older_id": older.question_id, "newer_id": newer.question_id}
        flag = Flag(**pair, lane=lane, asked_share=blind_share or 1.0, flagged_at=now)
    elif not _reopen(flag, texts, now=now, lane=lane, blind_share=blind_share):
        if flag.status in Review.DECISIONS and (flag.older_hash, flag.newer_hash) == texts:
            _count_in(flag, findings, candidate, lane=lane, share=blind_share or 1.0)
        return
    words = findings.aligned.get(candidate.question_id)
    flag.alignment = None if words is None else [astuple(pair) for pair in words]
    flag.older_hash, flag.newer_hash = texts
    flag.probability, flag.release = candidate.probability, findings.release
    flag.save()


def _reopen(
    flag: Flag, texts: tuple[str, str], *, now: datetime, lane: str, blind_share: float | None
) -> bool:
    """Have a pair asked about again in this lane; False where it stays as it is.

    The share of a pair that two checks could draw is the larger one: both used the same number.
    """
    is_same = (flag.older_hash, flag.newer_hash) == texts
    if flag.status in Review.DECISIONS and is_same:
        return False  # a person said what it is, and both texts still say what that person read
    if flag.status == Flag.Status.CONFIRMED:
        return False
    if flag.status != Flag.Status.OPEN:
        flag.status, flag.flagged_at, flag.decided_at = Flag.Status.OPEN, now, None
        flag.disputed_by, flag.disputed_at, flag.dispute = None, None, ""
    elif lane in Flag.BLIND and flag.lane == Flag.Lane.FLAGGED:
        return False  # it waits with its score
    elif lane != flag.lane:
        flag.flagged_at = now
    asked_before = (flag.asked_share or 0.0) if is_same and flag.lane == Flag.Lane.SAMPLED else 0.0
    flag.asked_share = 1.0 if blind_share is None else max(blind_share, asked_before)
    flag.lane = lane
    return True


def _count_in(
    flag: Flag, findings: Findings, candidate: ScoredCandidate, *, lane: str, share: float
) -> None:
    """A decided pair that would be asked about now belongs to what is measured with, whoever asked
    about it before: with the larger share, as its number is the same for all checks."""
    if flag.asked_share is None:
        flag.lane = lane
        flag.probability, flag.release = candidate.probability, findings.release
    elif share <= flag.asked_share:
        return
    flag.asked_share = share
    flag.save(update_fields=["lane", "asked_share", "probability", "release"])


def _wake(*question_ids: int) -> None:
    """Count one more flag of these questions for those that sleep until some have come.

    What somebody has before them just now is passed over: nobody waits for anybody here.
    """
    ends = Q(older__in=question_ids) | Q(newer__in=question_ids)
    asleep = Flag.objects.open().filter(ends, snoozed_left__gt=0)
    free = asleep.select_for_update(skip_locked=True).values_list("pk", flat=True)
    Flag.objects.filter(pk__in=list(free)).update(snoozed_left=F("snoozed_left") - 1)


def _withdraw(flag: Flag, findings: Findings, other_id: int, now: datetime) -> None:
    """An open flag goes when its question now reads otherwise, or the pair was scored too low:
    but for those that are asked about because they are."""
    if flag.status != Flag.Status.OPEN or flag.disputed_at:
        return
    own = flag.older_hash if flag.older_id == findings.text.question_id else flag.newer_hash
    rescored = {candidate.question_id: candidate.probability for candidate in findings.scored}
    is_flagged = flag.lane == Flag.Lane.FLAGGED
    too_low = is_flagged and rescored.get(other_id, 1.0) < findings.release.threshold
    if own != findings.text.hash or too_low:
        flag.status, flag.decided_at = Flag.Status.WITHDRAWN, now
        flag.save(update_fields=["status", "decided_at"])


def forget(question_ids: Collection[int], *, asked_by: User, now: datetime) -> None:
    """Take out what flags and reviews know of texts that are erased, and close what is open.

    A merge that somebody else disputes is still to be looked at. Without their hashes no verdict
    on these texts becomes a label. Whoever calls holds the questions' locks.
    """
    ends = Q(older__in=question_ids) | Q(newer__in=question_ids)
    locked = Flag.objects.filter(ends).order_by("pk").select_for_update(of=["self"])
    flags = Flag.objects.filter(pk__in=[flag.pk for flag in locked])
    flags.update(alignment=None)
    flags.open().filter(Q(disputed_by__isnull=True) | Q(disputed_by=asked_by)).update(
        status=Flag.Status.WITHDRAWN, decided_at=now, claimed_by=None, claimed_until=None
    )
    for end in ("older", "newer"):
        Flag.objects.filter(**{f"{end}__in": question_ids}).update(**{f"{end}_hash": ""})
        said = Review.objects.filter(**{f"flag__{end}__in": question_ids})
        said.update(**{f"{end}_hash": ""})
