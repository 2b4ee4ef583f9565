import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection

from support import answering, asking, merging, thread
from support.models import AnswerVote, Question
from tests.factories import (
    AnswerFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair():
    older, newer = QuestionFactory(), QuestionFactory()
    return newer, older


def merged(pair, by):
    return merging.merge(duplicate=pair[0], canonical=pair[1], by=by)


def bodies(question, reader):
    return [given.answer.body for given in thread.read(question, reader).answers]


def test_answers_stand_in_the_order_in_which_they_were_written_with_where_that_was(pair, admin):
    newer, older = pair
    answers = [AnswerFactory(question=question) for question in (newer, older, newer)]

    merged(pair, admin)

    read = thread.read(older, admin)
    assert [given.answer for given in read.answers] == answers
    assert [given.origin for given in read.answers] == [newer, None, newer]
    assert read.duplicates == [newer]


def test_an_acceptance_shows_only_while_its_answer_is_in_the_thread(pair, admin):
    newer, older = pair
    theirs = AnswerFactory(question=newer)
    edge = merged(pair, admin)
    answering.accept_answer(question=older, answer=theirs, by=older.asked_by)
    assert thread.read(older, admin).is_solved

    merging.unmerge(merge=edge, by=admin)

    assert not thread.read(older, admin).is_solved
    assert not thread.read(newer, admin).is_solved


def test_two_askers_who_accept_one_answer_are_both_named(pair, admin):
    newer, older = pair
    answer = AnswerFactory(question=older)
    merged(pair, admin)
    for question in pair:
        answering.accept_answer(question=question, answer=answer, by=question.asked_by)

    (given,) = thread.read(older, admin).answers

    assert set(given.accepted_by) == {older.asked_by, newer.asked_by}
    assert given.is_solution


def test_a_reader_sees_what_is_theirs_wherever_in_the_thread_they_said_it(pair, admin):
    newer, older = pair
    person = UserFactory()
    VoteFactory(question=newer, by=person)
    SubscriptionFactory(question=newer, subscriber=person)
    AnswerVote.objects.create(answer=AnswerFactory(question=newer), by=person)

    merged(pair, admin)

    read = thread.read(older, person)
    assert (read.has_my_vote, read.is_followed) == (True, True)
    assert [(given.votes, given.has_my_vote) for given in read.answers] == [(1, True)]
    other = thread.read(older, UserFactory())
    assert (other.has_my_vote, other.is_followed, other.answers[0].has_my_vote) == (False,) * 3


def test_a_visitor_who_is_not_signed_in_has_neither_voted_nor_followed(pair):
    VoteFactory(question=pair[0])
    SubscriptionFactory(question=pair[0])

    read = thread.read(pair[0], AnonymousUser())

    assert (read.votes, read.followers, read.has_my_vote, read.is_followed) == (1, 1, False, False)


@pytest.mark.parametrize("who", ["asker", "agent"])
def test_a_private_thread_is_read_by_its_asker_and_by_agents(who, agent):
    question = QuestionFactory(audience="private")
    AnswerFactory(question=question, body="For you alone.")

    assert bodies(question, question.asked_by if who == "asker" else agent) == ["For you alone."]


@pytest.mark.parametrize("make_reader", [UserFactory, AnonymousUser])
def test_a_private_question_is_not_there_for_others(make_reader):
    with pytest.raises(Question.DoesNotExist):
        thread.read(QuestionFactory(audience="private"), make_reader())


def test_a_duplicate_whose_canonical_is_hidden_is_read_like_a_question_of_its_own(pair, admin):
    newer, older = pair
    AnswerFactory(question=newer, body="Open to all.")
    AnswerFactory(question=older, body="Hidden.")
    merged(pair, admin)
    Question.objects.filter(pk=older.pk).update(audience="private")  # around all functions

    read = thread.read(newer, UserFactory())

    assert read.question == newer
    assert read.duplicates == []
    assert [given.answer.body for given in read.answers] == ["Open to all."]


def test_an_unmerge_gives_each_thread_what_it_had_but_what_was_written_since_stays(pair, admin):
    newer, older = pair
    for question in pair:
        AnswerFactory(question=question, body=f"Before, on {question.pk}.")
    edge = merged(pair, admin)
    answering.post_answer(question=newer, body="Since.", by=UserFactory())

    merging.unmerge(merge=edge, by=admin)

    assert bodies(newer, admin) == [f"Before, on {newer.pk}."]
    assert bodies(older, admin) == [f"Before, on {older.pk}.", "Since."]


def test_an_edit_under_a_merge_shows_in_the_thread_and_stays_after_an_unmerge(pair, admin):
    newer, older = pair
    edge = merged(pair, admin)
    asking.edit_question(
        question=newer, title="Said better", body="", audience="public", by=newer.asked_by, seen=1
    )
    assert [q.title for q in thread.read(older, admin).duplicates] == ["Said better"]

    merging.unmerge(merge=edge, by=admin)

    assert thread.read(newer, admin).question.title == "Said better"


def test_a_history_tells_merge_and_unmerge_with_the_reason_at_the_merge_alone(pair, admin):
    edge = merging.merge(duplicate=pair[0], canonical=pair[1], by=admin, reason="Same lamp")
    merging.unmerge(merge=edge, by=admin)

    for question in pair:
        told = [(event.action, event.why) for event in thread.history(question)]
        assert told == [("unmerged", ""), ("merged", "Same lamp")]


def test_the_merges_of_a_thread_are_those_in_force_newest_first(admin):
    leaf, middle, top = QuestionFactory.create_batch(3)
    lower = merging.merge(duplicate=leaf, canonical=middle, by=admin)
    upper = merging.merge(duplicate=middle, canonical=top, by=admin)
    assert thread.merges_in_force(leaf) == [upper, lower]

    merging.unmerge(merge=lower, by=admin)

    assert thread.merges_in_force(top) == [upper]


@pytest.mark.parametrize("size", [1, 12])
def test_a_thread_is_read_in_five_queries_however_large(
    size, admin, agent, django_assert_num_queries
):
    canonical = QuestionFactory()
    for duplicate in QuestionFactory.create_batch(size):
        for answer in AnswerFactory.create_batch(2, question=duplicate):
            AnswerVote.objects.create(answer=answer, by=agent)
        VoteFactory(question=duplicate)
        answering.accept_answer(question=duplicate, answer=answer, by=duplicate.asked_by)
        merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    agent.has_perm("support.view_private_question")  # read once, and kept

    with django_assert_num_queries(5):
        read = thread.read(canonical, agent)
        named = [(given.answer.written_by.username, given.accepted_by) for given in read.answers]

    assert len(named) == 2 * size
    assert sum(len(accepted_by) for _, accepted_by in named) == size


def test_a_thread_is_found_by_indexes_and_never_by_reading_all_questions(pair, admin):
    merged(pair, admin)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")

    members = Question.objects.of_threads(pair[0].pk)

    assert set(members) == set(pair)
    assert "Seq Scan" not in members.explain()


def test_a_question_is_answered_where_anybody_answered_in_its_thread(admin):
    bare, itself, through, duplicate = QuestionFactory.create_batch(4)
    AnswerFactory(question=itself)
    AnswerFactory(question=duplicate)
    merged((duplicate, through), admin)

    found = Question.objects.live().with_answered().order_by("pk")

    assert [(question, question.answered) for question in found] == [
        (bare, False),
        (itself, True),
        (through, True),
    ]
