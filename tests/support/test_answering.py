import pytest
from django.core.exceptions import ValidationError

from support import answering, merging, thread
from support.models import (
    Acceptance,
    Answer,
    AnswerVote,
    AuditEntry,
    Notification,
    Question,
    Subscription,
    Vote,
)
from tests.factories import (
    AnswerFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair(admin):
    """A duplicate and its canonical, merged."""
    canonical, duplicate = QuestionFactory(), QuestionFactory()
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    return duplicate, canonical


def test_who_answers_follows_and_the_history_says_so():
    question, writer = QuestionFactory(), UserFactory()

    answer = answering.post_answer(question=question, body="  Turn it.  ", by=writer)

    assert answer.body == "Turn it."
    assert Subscription.objects.filter(question=question, subscriber=writer).exists()
    entry = AuditEntry.objects.get(action="answered")
    assert (entry.question, entry.by, entry.details) == (question, writer, {"answer": answer.pk})


def test_an_answer_to_a_duplicate_stands_on_the_canonical(pair):
    duplicate, canonical = pair

    answer = answering.post_answer(question=duplicate, body="Turn it.", by=UserFactory())

    assert answer.question == canonical


def test_an_answer_by_somebody_who_may_not_see_the_canonical_stays_on_the_duplicate(pair):
    duplicate, canonical = pair
    Question.objects.filter(pk=canonical.pk).update(audience="private")  # around all functions

    answer = answering.post_answer(question=duplicate, body="Turn it.", by=UserFactory())

    assert answer.question == duplicate


@pytest.mark.parametrize("body", ["", "  \n", "\u200b\u0301", "with \0"])
def test_an_answer_that_cannot_be_read_is_refused_and_leaves_nothing(body):
    question = QuestionFactory()

    with pytest.raises(ValidationError):
        answering.post_answer(question=question, body=body, by=UserFactory())

    assert not Answer.objects.exists()
    assert not Subscription.objects.exists()
    assert not AuditEntry.objects.exists()


def test_only_the_asker_accepts():
    answer = AnswerFactory()

    with pytest.raises(answering.NotTheAsker):
        answering.accept_answer(question=answer.question, answer=answer, by=answer.written_by)


def test_an_answer_of_another_thread_is_not_accepted():
    question = QuestionFactory()

    with pytest.raises(answering.NotInThread):
        answering.accept_answer(question=question, answer=AnswerFactory(), by=question.asked_by)


def test_each_asker_of_a_merged_thread_accepts_for_their_own_question(pair):
    duplicate, canonical = pair
    answer = AnswerFactory(question=canonical)

    answering.accept_answer(question=duplicate, answer=answer, by=duplicate.asked_by)

    (given,) = thread.read(canonical, canonical.asked_by).answers
    assert (given.accepted_by, given.is_solution) == ([duplicate.asked_by], False)
    with pytest.raises(answering.NotTheAsker):
        answering.accept_answer(question=canonical, answer=answer, by=duplicate.asked_by)


def test_an_asker_who_accepts_another_answer_changes_their_mind():
    question = QuestionFactory()
    first, second = AnswerFactory.create_batch(2, question=question)

    for answer in (first, second):
        answering.accept_answer(question=question, answer=answer, by=question.asked_by)

    assert Acceptance.objects.get().answer == second


def test_the_writer_of_an_accepted_answer_is_told_once_however_often_it_is_accepted(pair):
    duplicate, canonical = pair
    answer = AnswerFactory(question=canonical)
    Notification.objects.all().delete()

    for question in (canonical, duplicate, canonical):
        answering.accept_answer(question=question, answer=answer, by=question.asked_by)

    told = Notification.objects.get()
    assert (told.kind, told.recipient) == ("accepted", answer.written_by)


def test_a_person_votes_once_in_a_thread_and_takes_it_back_from_all_of_it(pair):
    duplicate, canonical = pair
    person = UserFactory()
    VoteFactory(question=duplicate, by=person)

    answering.set_vote(question=canonical, by=person, wanted=True)
    answering.set_vote(question=canonical, by=person, wanted=True)
    assert [vote.question for vote in Vote.objects.filter(by=person)] == [duplicate]

    answering.set_vote(question=canonical, by=person, wanted=False)
    assert not Vote.objects.exists()


def test_a_person_follows_a_thread_once_and_leaves_all_of_it(pair):
    duplicate, canonical = pair
    person = SubscriptionFactory(question=duplicate).subscriber
    others = SubscriptionFactory(question=canonical)

    answering.set_following(question=canonical, by=person, wanted=True)
    assert Subscription.objects.filter(subscriber=person).count() == 1

    answering.set_following(question=canonical, by=person, wanted=False)
    assert list(Subscription.objects.all()) == [others]


def test_that_an_answer_helped_is_said_once_and_taken_back():
    answer, person = AnswerFactory(), UserFactory()

    for _ in range(2):
        answering.set_answer_vote(answer=answer, by=person, wanted=True)
    assert AnswerVote.objects.count() == 1

    answering.set_answer_vote(answer=answer, by=person, wanted=False)
    assert not AnswerVote.objects.exists()
