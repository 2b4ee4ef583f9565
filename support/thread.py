"""What a reader sees of a canonical question with its duplicates: built when it is read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Value, When

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
    def members(self) -> list[Question]:
        """The canonical, then its duplicates."""
        return [self.question, *self.duplicates]

    @property
    def is_solved(self) -> bool:
        return any(answer.accepted_by for answer in self.answers)


def read(question: Question, reader: User | AnonymousUser) -> Thread:
    """Return the thread of a live question as `reader` sees it.

    A duplicate whose canonical the reader may not see is read like a live one. Raises
    Question.DoesNotExist where the reader may not see the question.
    """
    members = _members([question.pk], reader)
    if question.pk not in {member.pk for member in members}:
        raise Question.DoesNotExist(question.pk)
    return _threads({question.pk: members}, reader)[question.pk]


def read_all(question_ids: Collection[int], reader: User) -> dict[int, Thread]:
    """The threads in which these questions are, by the ids of their canonicals; for readers who
    may see all of them. As many queries as for one."""
    members: dict[int, list[Question]] = {}
    for member in _members(question_ids, reader):
        members.setdefault(member.root_id, []).append(member)
    return _threads(members, reader)


def together(canonical: Question, duplicate: Question, reader: User) -> Thread:
    """The thread as `reader` would see it if `duplicate` were merged into `canonical`."""
    both = _members([canonical.pk, duplicate.pk], reader)
    return _threads({canonical.pk: both}, reader)[canonical.pk]


def _members(question_ids: Collection[int], reader: User | AnonymousUser) -> list[Question]:
    rows = Question.objects.visible_to(reader).of_threads(*question_ids)
    return list(rows.select_related("asked_by", "product").order_by("asked_at", "pk"))


def _threads(
    members: Mapping[int, list[Question]], reader: User | AnonymousUser
) -> dict[int, Thread]:
    """Threads by the id of the question that stands for each, out of their members."""
    answers = _answers(members, reader)
    votes = _people(Vote.objects.all(), "by", members, reader)
    followers = _people(Subscription.objects.all(), "subscriber", members, reader)
    return {
        pk: Thread(
            question=next(row for row in rows if row.pk == pk),
            duplicates=[row for row in rows if row.pk != pk],
            answers=answers[pk],
            votes=votes[pk][0],
            followers=followers[pk][0],
            has_my_vote=votes[pk][1],
            is_followed=followers[pk][1],
        )
        for pk, rows in members.items()
    }


def _people(
    rows: QuerySet[Any], who: str, members: Mapping[int, list[Question]], reader: Any
) -> dict[int, tuple[int, bool]]:
    """For each thread how many people there are in these rows, and whether `reader` is one."""
    stands = {row.pk: pk for pk, thread in members.items() for row in thread}
    place = Case(*(When(question=one, then=Value(pk)) for one, pk in stands.items()))
    counted = (
        rows.filter(question__in=stands)
        .values(place=place)
        .annotate(people=Count(who, distinct=True), mine=Count("pk", filter=Q(**{who: reader.pk})))
    )
    found = {row["place"]: (row["people"], row["mine"] > 0) for row in counted}
    return {pk: found.get(pk, (0, False)) for pk in members}


def _answers(
    members: Mapping[int, list[Question]], reader: User | AnonymousUser
) -> dict[int, list[ThreadAnswer]]:
    """Answers by the id of the question that stands for their thread, the solution first."""
    by_id = {row.pk: row for thread in members.values() for row in thread}
    stands = {row.pk: pk for pk, thread in members.items() for row in thread}
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
    found: dict[int, list[ThreadAnswer]] = {pk: [] for pk in members}
    for row in rows:
        pk = stands[row.question_id]
        accepted = [one for one in acceptances.get(row.pk, []) if stands[one] == pk]
        found[pk].append(
            ThreadAnswer(
                answer=row,
                origin=None if row.question_id == pk else by_id[row.question_id],
                accepted_by=[by_id[one].asked_by for one in accepted],
                is_solution=pk in accepted,
                votes=row.helped,
                has_my_vote=row.mine,
            )
        )
    return {pk: sorted(given, key=lambda one: not one.is_solution) for pk, given in found.items()}


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
    members = Question.objects.visible_to(reader).filter(Q(pk__in=ids) | Q(canonical__in=ids))
    rows = (
        Answer.objects.filter(question__in=members)
        .select_related("question", "written_by")
        .annotate(solved=Exists(Acceptance.objects.filter(answer=OuterRef("pk"), question__in=ids)))
        .order_by("-solved", "written_at", "pk")
    )
    found: dict[int, list[Answer]] = {}
    for answer in rows:
        found.setdefault(answer.question.root_id, []).append(answer)
    return found
