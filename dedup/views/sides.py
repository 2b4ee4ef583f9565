"""The two questions of a pair as a card shows them: in their threads, or each by itself."""

from dataclasses import dataclass, replace
from datetime import datetime

from dedup.marking import Marked
from support.models import Question
from support.thread import Thread, ThreadAnswer


@dataclass(frozen=True)
class Side:
    """One of the two questions on a card, with the thread in which it stands now."""

    question: Question
    marked: Marked
    root: Question
    thread: Thread
    answers: list[ThreadAnswer]
    duplicates: list[Question]


def in_thread(question: Question, opposite: Question, marked: Marked, read: Thread) -> Side:
    """A question with its whole thread, or its own part where both are in one."""
    root = read.question
    if root.pk == opposite.root_id:
        return Side(question, marked, root, read, _own(read, question), [])
    shown = [one for one in read.duplicates if one.pk != question.pk]
    return Side(question, marked, root, read, read.answers, shown)


def alone(
    question: Question, _opposite: Question, marked: Marked, read: Thread, *, until: datetime
) -> Side:
    """A question with its own answers as they were at some time, whatever it was merged with."""
    votes, followers = question.votes.count(), question.subscriptions.count()
    read = replace(read, question=question, duplicates=[], votes=votes, followers=followers)
    before = [one for one in _own(read, question) if one.answer.written_at <= until]
    answers = [_accepted_by_asker(one, question) for one in before]
    answers.sort(key=lambda one: (not one.is_solution, one.answer.written_at))
    return Side(question, marked, question, read, answers, [])


def _own(read: Thread, question: Question) -> list[ThreadAnswer]:
    return [given for given in read.answers if given.answer.question_id == question.pk]


def _accepted_by_asker(given: ThreadAnswer, question: Question) -> ThreadAnswer:
    asker = [who for who in given.accepted_by if who.pk == question.asked_by_id]
    return replace(given, accepted_by=asker, is_solution=bool(asker))


def whole(question: Question) -> str:
    """All that a question says."""
    return f"{question.title}\n{question.body}"
