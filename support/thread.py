"""What a reader sees of a canonical question with its duplicates: built when it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Exists, OuterRef, Q

from support.models import (
    Acceptance,
    Answer,
    AnswerVote,
    AuditEntry,
    Merge,
    Question,
    Subscription,
    User,
    Vote,
)
from support.models.question import QuestionQuerySet


@dataclass(frozen=True)
class ThreadAnswer:
    """An answer with where it was written and who accepted it."""

    answer: Answer
    origin: Question | None  # the duplicate under which it was written; None on the canonical
    accepted_by: list[User]
    is_solution: bool  # accepted by the canonical's asker
    votes: int
    has_my_vote: bool


@dataclass(frozen=True)
class Thread:
    """A canonical question, what was merged into it, and the unions over all of them."""

    question: Question
    duplicates: list[Question]
    answers: list[ThreadAnswer]  # the solution first, then by time
    votes: int  # people who have the question, each once
    followers: int
    has_my_vote: bool
    is_followed: bool

    @property
    def is_solved(self) -> bool:
        return any(answer.accepted_by for answer in self.answers)


def read(question: Question, reader: User | AnonymousUser) -> Thread:
    """Return the thread of a live question as `reader` sees it.

    A duplicate whose canonical the reader may not see is read like a live one. Raises
    Question.DoesNotExist where the reader may not see the question.
    """
    return _whole(question, Question.objects.visible_to(reader).of_threads(question.pk), reader)


def together(canonical: Question, duplicate: Question, reader: User) -> Thread:
    """The thread as `reader` would see it if `duplicate` were merged into `canonical`."""
    both = Question.objects.visible_to(reader).of_threads(canonical.pk, duplicate.pk)
    return _whole(canonical, both, reader)


def _whole(question: Question, of_thread: QuestionQuerySet, reader: User | AnonymousUser) -> Thread:
    members = list(of_thread.select_related("asked_by", "product").order_by("asked_at", "pk"))
    shown = next((member for member in members if member.pk == question.pk), None)
    if shown is None:
        raise Question.DoesNotExist(question.pk)
    ids = [member.pk for member in members]
    votes = Vote.objects.filter(question__in=ids)
    followers = Subscription.objects.filter(question__in=ids)
    return Thread(
        question=shown,
        duplicates=[member for member in members if member.pk != question.pk],
        answers=_answers(question, members, reader),
        votes=votes.values("by").distinct().count(),
        followers=followers.values("subscriber").distinct().count(),
        has_my_vote=votes.filter(by=reader.pk).exists(),
        is_followed=followers.filter(subscriber=reader.pk).exists(),
    )


def _answers(
    question: Question, members: list[Question], reader: User | AnonymousUser
) -> list[ThreadAnswer]:
    by_id = {member.pk: member for member in members}
    rows = (
        Answer.objects.filter(question__in=by_id)
        .select_related("written_by")
        .annotate(
            helped=Count("votes"),
            mine=Exists(AnswerVote.objects.filter(answer=OuterRef("pk"), by=reader.pk)),
        )
        .order_by("written_at", "pk")
    )
    acceptances: dict[int, list[int]] = {}
    for answer_id, question_id in Acceptance.objects.filter(question__in=by_id).values_list(
        "answer", "question"
    ):
        acceptances.setdefault(answer_id, []).append(question_id)
    found = [
        ThreadAnswer(
            answer=row,
            origin=None if row.question_id == question.pk else by_id[row.question_id],
            accepted_by=[by_id[pk].asked_by for pk in acceptances.get(row.pk, [])],
            is_solution=question.pk in acceptances.get(row.pk, []),
            votes=row.helped,
            has_my_vote=row.mine,
        )
        for row in rows
    ]
    return sorted(found, key=lambda answer: not answer.is_solution)


@dataclass(frozen=True)
class Event:
    """Something that happened to a question. Why it did is kept apart, for it can be erased."""

    at: datetime
    by: User | None
    action: str
    details: Mapping[str, object]
    why: str


def history(question: Question) -> list[Event]:
    """What happened to a question, newest first; for agents."""
    entries = AuditEntry.objects.filter(question=question).select_related("by")
    reasons = dict(
        Merge.objects.filter(Q(duplicate=question) | Q(canonical=question)).values_list(
            "pk", "reason"
        )
    )
    return [
        Event(
            at=entry.at,
            by=entry.by,
            action=entry.action,
            details=entry.details,
            why=reasons.get(entry.details.get("merge"), "") if entry.action == "merged" else "",
        )
        for entry in entries.order_by("-at", "-pk")
    ]


def merges_in_force(question: Question) -> list[Merge]:
    """The edges of the thread in which the question is, newest first."""
    members = Question.objects.of_threads(question.pk)
    return list(
        Merge.objects.in_force()
        .filter(duplicate__in=members)
        .select_related("duplicate", "canonical", "merged_by")
        .order_by("-merged_at", "-pk")
    )


def openings(questions: list[Question], reader: User | AnonymousUser) -> dict[int, str]:
    """For each of these live questions that has answers, the text of the one that stands first."""
    return {pk: given[0].body for pk, given in answers(questions, reader).items()}


def answers(questions: list[Question], reader: User | AnonymousUser) -> dict[int, list[Answer]]:
    """For each of these live questions that has answers, all in its thread: what solved it first
    (`solved`), then by time."""
    ids = [question.pk for question in questions]
    rows = (
        Answer.objects.filter(question__in=Question.objects.visible_to(reader).of_threads(*ids))
        .select_related("question", "written_by")
        .annotate(solved=Exists(Acceptance.objects.filter(answer=OuterRef("pk"), question__in=ids)))
        .order_by("-solved", "written_at", "pk")
    )
    found: dict[int, list[Answer]] = {}
    for answer in rows:
        found.setdefault(answer.question.root_id, []).append(answer)
    return found
