"""Merge and unmerge. Nothing moves: a merge adds an edge and sets pointers, an unmerge undoes both.

The edges (Merge rows in force) are the truth. `Question.canonical` is always the root that they
lead to, so that reading a thread needs no recursion.

Whoever changes threads locks all their questions in id order first, and looks again under the lock.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection, transaction
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _

from support import audit, notifications
from support.models import Answer, Merge, Question, User

P = ParamSpec("P")
R = TypeVar("R")

TRIES = 4  # of a whole transaction: a deadlock or the like is repaired up to three times
UNDO = timedelta(seconds=notifications.UNDO_SECONDS)  # taken back by then, it never was
LOOKS = 10  # at a thread that changes while it is being locked

# What happens to each relation to Question when its question is merged. A test walks all models.
#   stays:    remains on the question where it was made, and is read from there
#   union:    stays too; a thread shows each person once
#   computed: counted or derived when a thread is read
#   carried:  the merge itself
MERGE_RULES: dict[str, str] = {
    "support.Question.canonical": "carried",
    "support.Merge.duplicate": "carried",
    "support.Merge.canonical": "carried",
    "support.Answer.question": "stays",
    "support.Acceptance.question": "stays",
    "support.AuditEntry.question": "stays",
    "support.Notification.question": "stays",
    "support.OutboxEntry.question": "stays",
    "support.GuestRequest.question": "stays",
    "support.Vote.question": "union",
    "support.Subscription.question": "union",
    "support.MailStop.question": "union",
}


class MergeRefused(Exception):
    """A merge or unmerge that cannot be done. `code` says why, for programs."""

    code = "refused"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details = details


class SameQuestion(MergeRefused):
    code = "same_question"


class NotLive(MergeRefused):
    code = "merged"


class AudienceDiffers(MergeRefused):
    code = "audience_differs"


class Stale(MergeRefused):
    code = "stale"


class NotAllowed(MergeRefused):
    code = "not_allowed"


class ThreadsMoved(MergeRefused):
    """Other people merged and unmerged these threads faster than they could be locked."""

    code = "busy"


@dataclass(frozen=True)
class Evidence:
    """What the machine had said when somebody decided, as plain values."""

    probability: float | None = None
    release: str = ""


def retried(function: Callable[P, R]) -> Callable[P, R]:
    """Run in a transaction; after a deadlock, a serialization failure or a moved thread, again.

    Only the outermost call retries: a transaction that failed cannot be repeated from inside.
    """

    @wraps(function)
    def outermost(*args: P.args, **kwargs: P.kwargs) -> R:
        if connection.in_atomic_block:
            return function(*args, **kwargs)
        for left in reversed(range(TRIES)):
            try:
                with transaction.atomic():
                    return function(*args, **kwargs)
            except ThreadsMoved:
                if not left:
                    raise
            except OperationalError as error:
                state = getattr(error.__cause__, "sqlstate", None)
                if state not in {"40P01", "40001"} or not left:
                    raise
            time.sleep(0.02 * (TRIES - left))
        raise AssertionError("unreachable")

    return outermost


def lock_threads(*question_ids: int) -> dict[int, Question]:
    """Lock all questions of the threads in which these are, in id order; return them by id.

    To be called in a transaction, before any other lock is taken. Raises Question.DoesNotExist
    when an id is unknown, ThreadsMoved when the threads gained or lost members at every look.
    """
    for _look in range(LOOKS - 1):
        try:
            with transaction.atomic():  # a savepoint: going back to it lets the locks go
                return _lock(question_ids)
        except ThreadsMoved:
            continue
    return _lock(question_ids)


def lock_keys(question_ids: Iterable[int]) -> None:
    """Hold questions, in id order, as the foreign keys of what is written about them will.

    Before any lock of what hangs on them. Whoever changes their threads waits; others that only
    write about them do not.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM support_question WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE",
            [sorted(set(question_ids))],
        )


def _lock(question_ids: Iterable[int]) -> dict[int, Question]:
    members = Question.objects.of_threads(*question_ids)
    expected = set(members.values_list("pk", flat=True))
    if missing := set(question_ids) - expected:
        raise Question.DoesNotExist(f"no question {sorted(missing)}")
    locked = Question.objects.filter(pk__in=expected).order_by("pk").select_for_update()
    by_id = {question.pk: question for question in locked}
    if set(members.values_list("pk", flat=True)) != expected:
        raise ThreadsMoved(_("These questions are being merged by somebody else."))
    return by_id


def choose_canonical(questions: Iterable[Question]) -> Question:
    """Which of these stays: the oldest that is answered, or else the oldest."""
    asked = list(questions)
    return _first(asked, answered=_answered(question.pk for question in asked))


def _first(questions: Iterable[Question], *, answered: Collection[int]) -> Question:
    return min(questions, key=lambda question: (question.pk not in answered, question.order))


def choose_direction(one: Question, other: Question) -> tuple[Question, Question]:
    """Return (duplicate, canonical): the answered one stays, or else the older."""
    return choose_directions([(one, other)])[0]


def choose_directions(
    pairs: Sequence[tuple[Question, Question]],
) -> list[tuple[Question, Question]]:
    """`choose_direction` for many pairs, with one look at their answers."""
    answered = _answered({question.pk for pair in pairs for question in pair})
    return [direct(one, other, answered=answered) for one, other in pairs]


def _answered(ids: Iterable[int]) -> set[int]:
    """Those of these questions in whose threads somebody answered."""
    given = Answer.objects.filter(question__in=Question.objects.of_threads(*ids).values("pk"))
    roots = given.values_list(Coalesce("question__canonical_id", "question_id"), flat=True)
    return set(roots.distinct())


def direct(
    one: Question, other: Question, *, answered: Collection[int]
) -> tuple[Question, Question]:
    """`choose_direction` where it is known which of the two are answered."""
    stays = _first([one, other], answered=answered)
    return (other if stays is one else one), stays


def why_stays(duplicate: Question, canonical: Question) -> str:
    """Why `choose_direction` lets this one stay: answered, or older."""
    return "older" if canonical.order < duplicate.order else "answered"


@retried
def merge(
    *,
    duplicate: Question,
    canonical: Question,
    by: User,
    reason: str = "",
    seen: Mapping[int, int] | None = None,
    evidence: Evidence = Evidence(),
    now: datetime | None = None,
) -> Merge:
    """Let `canonical` stand for `duplicate` and for all that was merged into that.

    `seen` maps ids of questions to the versions that the person had before them. Repeating a merge
    that is in force returns it unchanged.

    Raises SameQuestion, NotLive (one of them is merged already), AudienceDiffers (other people may
    read them), Stale (edited since it was seen), NotAllowed, ThreadsMoved.
    """
    now = now or timezone.now()
    threads = lock_threads(duplicate.pk, canonical.pk)
    duplicate, canonical = threads[duplicate.pk], threads[canonical.pk]
    _require_right(by, duplicate, canonical)
    repeated = Merge.objects.in_force().filter(duplicate=duplicate, canonical=canonical).first()
    if repeated:
        return repeated
    _refuse_impossible(duplicate, canonical)
    refuse_stale(threads, seen or {})
    told = notifications.told_of_merge(duplicate, canonical, by=by)

    edge = Merge.objects.create(
        duplicate=duplicate,
        canonical=canonical,
        merged_by=by,
        merged_at=now,
        reason=reason,
        probability=evidence.probability,
        release=evidence.release,
    )
    _point(duplicate, canonical)
    audit.record_merge("merged", edge, by=by, now=now)
    notifications.put_merged(edge, told, now=now)
    return edge


@retried
def unmerge(*, merge: Merge, by: User, now: datetime | None = None) -> Merge:
    """Give the duplicate of this edge back, with all that hangs below it.

    What was written since stays where it was written. Undoing what is undone changes nothing.
    Raises NotAllowed, ThreadsMoved.
    """
    now = now or timezone.now()
    threads = lock_threads(merge.duplicate_id, merge.canonical_id)
    edge = Merge.objects.select_for_update().get(pk=merge.pk)
    restored = subtree(edge.duplicate_id)
    canonical = threads[edge.canonical_id]
    _require_right_for(by, *(threads[pk] for pk in [*restored, canonical.pk, canonical.root_id]))
    if not edge.is_in_force:
        return edge
    edge.undone_by, edge.undone_at = by, now
    edge.save(update_fields=["undone_by", "undone_at"])
    Question.objects.filter(pk__in=restored).update(
        canonical=Case(
            When(pk=edge.duplicate_id, then=Value(None)), default=Value(edge.duplicate_id)
        )
    )
    audit.record_merge("unmerged", edge, by=by, now=now)
    notifications.cancel_merged(edge)
    return edge


@retried
def restore(*, merge: Merge, by: User, now: datetime | None = None) -> Merge:
    """Put a merge that was taken back in force again: the same edge, so that nobody is told twice.

    Restoring what is in force changes nothing. Raises what `merge` raises.
    """
    now = now or timezone.now()
    threads = lock_threads(merge.duplicate_id, merge.canonical_id)
    edge = Merge.objects.select_for_update().get(pk=merge.pk)
    duplicate, canonical = threads[edge.duplicate_id], threads[edge.canonical_id]
    root = threads[canonical.root_id]
    _require_right(by, duplicate, root)
    if edge.is_in_force:
        return edge
    _refuse_impossible(duplicate, root)
    edge.undone_by = edge.undone_at = None
    edge.save(update_fields=["undone_by", "undone_at"])
    _point(duplicate, root)
    audit.record_merge("merged", edge, by=by, now=now)
    notifications.renew_merged(edge, now=now)
    return edge


def _point(duplicate: Question, root: Question) -> None:
    """One statement for the whole thread: the key allows no moment with a chain in it."""
    Question.objects.filter(Q(pk=duplicate.pk) | Q(canonical=duplicate)).update(canonical=root)


def subtree(question_id: int) -> list[int]:
    """The question and all that was merged into it, directly or through others, by the edges."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH RECURSIVE below (id) AS (
                SELECT %s::bigint
                UNION
                SELECT edge.duplicate_id FROM support_merge edge
                JOIN below ON edge.canonical_id = below.id WHERE edge.undone_at IS NULL
            ) SELECT id FROM below ORDER BY id
            """,
            [question_id],
        )
        return [row[0] for row in cursor.fetchall()]


def broken_pointers() -> list[int]:
    """Questions whose `canonical` is not the root of their edges: none, or something is wrong."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH RECURSIVE up (id, root, depth) AS (
                SELECT id, id, 0 FROM support_question
                UNION ALL
                SELECT up.id, edge.canonical_id, depth + 1 FROM up
                JOIN support_merge edge ON edge.duplicate_id = up.root AND edge.undone_at IS NULL
                WHERE depth < 1000
            ), roots AS (SELECT DISTINCT ON (id) id, root FROM up ORDER BY id, depth DESC)
            SELECT question.id FROM support_question question JOIN roots USING (id)
            WHERE coalesce(question.canonical_id, question.id) <> roots.root ORDER BY 1
            """
        )
        return [row[0] for row in cursor.fetchall()]


def may_merge(by: User, duplicate: Question, canonical: Question) -> bool:
    """Whether `by` has the right on both sides: for all that would close, and for what stays."""
    closing = Question.objects.of_threads(duplicate.pk).values_list("product_id", flat=True)
    return by.may_merge(canonical.product_id, *closing)


def refuse(duplicate: Question, canonical: Question, *, by: User) -> None:
    """Raise why these two, as they stand now, cannot be merged by this person, if so."""
    _refuse_impossible(duplicate, canonical)
    _require_right(by, duplicate, canonical)


def _require_right(by: User, duplicate: Question, canonical: Question) -> None:
    if not may_merge(by, duplicate, canonical):
        raise NotAllowed(_("Merging these needs a right that you do not have."))


def _require_right_for(by: User, *questions: Question) -> None:
    if not by.may_merge(*(question.product_id for question in questions)):
        raise NotAllowed(_("Merging these needs a right that you do not have."))


def _refuse_impossible(duplicate: Question, canonical: Question) -> None:
    if duplicate.pk == canonical.pk:
        raise SameQuestion(_("A question cannot be merged into itself."))
    for question in (duplicate, canonical):
        if question.canonical_id:
            raise NotLive(
                _("One of these questions is merged already."),
                question=question.pk,
                canonical=question.canonical_id,
            )
    if not duplicate.has_same_readers_as(canonical):
        raise AudienceDiffers(
            _("Other people may read the one than the other: they stay linked only.")
        )


def refuse_stale(threads: Mapping[int, Question], seen: Mapping[int, int]) -> None:
    """Raise Stale, naming them, where locked questions have other versions than a person saw."""
    changed: Iterable[int] = [
        pk for pk, version in seen.items() if pk in threads and threads[pk].version != version
    ]
    if changed:
        raise Stale(_("These questions were edited meanwhile."), changed=sorted(changed))
