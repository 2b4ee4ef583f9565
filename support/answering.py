"""Answers, acceptances, votes and followers."""

from datetime import datetime

from django.utils import timezone

from support import audit, merging, notifications
from support.models import Acceptance, Answer, AnswerVote, Question, Subscription, User, Vote


class NotTheAsker(Exception):
    """Only who asked a question can say what solved it."""


class NotInThread(Exception):
    """The answer does not stand in this question's thread."""


@merging.retried
def post_answer(*, question: Question, body: str, by: User, now: datetime | None = None) -> Answer:
    """Store an answer. On a duplicate it goes to the canonical, where its writer may see that.

    Raises ValidationError where the text is not fit to be stored.
    """
    now = now or timezone.now()
    question = merging.lock_threads(question.pk)[question.pk]
    canonical = Question.objects.visible_to(by).filter(duplicates=question).first()
    answer = Answer(
        question=canonical or question, body=body.strip(), written_by=by, written_at=now
    )
    answer.full_clean()
    answer.save()
    Subscription.objects.get_or_create(question=answer.question, subscriber=by)
    audit.record("answered", by=by, now=now, question=answer.question, answer=answer.pk)
    notifications.put_answered(answer, now=now)
    return answer


@merging.retried
def accept_answer(
    *, question: Question, answer: Answer, by: User, now: datetime | None = None
) -> Acceptance:
    """Let the asker of `question` say that `answer`, somewhere in its thread, solved it.

    Raises NotTheAsker, NotInThread.
    """
    now = now or timezone.now()
    if question.asked_by_id != by.pk:
        raise NotTheAsker(question.pk)
    if answer.question_id not in merging.lock_threads(question.pk):
        raise NotInThread(answer.pk)
    acceptance, _ = Acceptance.objects.update_or_create(
        question=question, defaults={"answer": answer, "accepted_at": now}
    )
    audit.record("accepted", by=by, now=now, question=question, answer=answer.pk)
    notifications.put_accepted(acceptance, now=now)
    return acceptance


def set_vote(*, question: Question, by: User, wanted: bool) -> None:
    """Say, or take back, that one has this question too: on any question of the thread, once."""
    if wanted:
        if not Vote.objects.filter(question__in=_thread(question), by=by).exists():
            Vote.objects.get_or_create(question=question, by=by)
    else:
        Vote.objects.filter(question__in=_thread(question), by=by).delete()


def set_answer_vote(*, answer: Answer, by: User, wanted: bool) -> None:
    """Say, or take back, that an answer helped."""
    if wanted:
        AnswerVote.objects.get_or_create(answer=answer, by=by)
    else:
        AnswerVote.objects.filter(answer=answer, by=by).delete()


def set_following(*, question: Question, by: User, wanted: bool) -> None:
    """Follow a thread, or stop following all of it."""
    if wanted:
        if not Subscription.objects.filter(question__in=_thread(question), subscriber=by).exists():
            Subscription.objects.get_or_create(question=question, subscriber=by)
    else:
        Subscription.objects.filter(question__in=_thread(question), subscriber=by).delete()


def _thread(question: Question) -> list[int]:
    return list(Question.objects.of_threads(question.pk).values_list("pk", flat=True))
