"""What a reader sees of a canonical question with its duplicates: built when it is read."""

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Exists, OuterRef

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
    """Return the thread of a live question as `reader` sees it."""
    members = list(
        Question.objects.visible_to(reader)
        .of_threads(question.pk)
        .select_related("asked_by", "product")
        .order_by("asked_at", "pk")
    )
    ids = [member.pk for member in members]
    votes = Vote.objects.filter(question__in=ids)
    followers = Subscription.objects.filter(question__in=ids)
    return Thread(
        question=next(member for member in members if member.pk == question.pk),
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


def history(question: Question) -> list[AuditEntry]:
    """What happened to a question, newest first; for agents."""
    return list(
        AuditEntry.objects.filter(question=question).select_related("by").order_by("-at", "-pk")
    )


def merges_in_force(question: Question) -> list[Merge]:
    """The edges of the thread in which the question is, newest first."""
    members = Question.objects.of_threads(question.pk)
    return list(
        Merge.objects.in_force()
        .filter(duplicate__in=members)
        .select_related("duplicate", "canonical", "merged_by")
        .order_by("-merged_at", "-pk")
    )
