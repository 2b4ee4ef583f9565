"""What a preview says is what then happens, and nothing in it is for others' eyes."""

from datetime import timedelta

import pytest
from django.utils import timezone

from support import merging, previewing, thread
from support.models import Notification
from tests.factories import (
    AnswerFactory,
    ProductFactory,
    QuestionFactory,
    SubscriptionFactory,
    UserFactory,
    VoteFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair():
    return QuestionFactory(), QuestionFactory()


def shape(read):
    """A thread without the rows that it was read from."""
    answers = [(a.answer.pk, a.origin, a.accepted_by, a.is_solution) for a in read.answers]
    return read.question, read.duplicates, answers, read.votes, read.followers


def test_a_preview_of_a_merge_shows_the_thread_that_then_is(pair, admin):
    canonical, duplicate = pair
    for question in (duplicate, canonical, duplicate):
        AnswerFactory(question=question)
        VoteFactory(question=question)
    below = QuestionFactory()
    merging.merge(duplicate=below, canonical=duplicate, by=admin)
    SubscriptionFactory(question=below)
    preview = previewing.merge(duplicate=duplicate, canonical=canonical, by=admin)

    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert shape(preview.thread) == shape(thread.read(canonical, admin))
    assert set(preview.closes) == {duplicate, below}
    assert len(preview.followers) == preview.thread.followers
    told = Notification.objects.filter(merge__duplicate=duplicate).values_list("recipient")
    assert {(person.pk,) for person in preview.mailed} == set(told)


def test_each_follower_is_said_to_find_what_they_did_not_follow_before(pair, admin):
    canonical, duplicate = pair
    for question in (canonical, canonical, duplicate):
        AnswerFactory(question=question)
    of_one, of_other, of_both = UserFactory.create_batch(3)
    for person in (of_one, of_both):
        SubscriptionFactory(question=duplicate, subscriber=person)
    for person in (of_other, of_both):
        SubscriptionFactory(question=canonical, subscriber=person)

    preview = previewing.merge(duplicate=duplicate, canonical=canonical, by=admin)

    found = {one.person: (one.new_answers, one.is_mailed) for one in preview.followers}
    assert found == {of_one: (2, True), of_other: (1, False), of_both: (0, True)}


def test_a_follower_who_may_not_read_a_private_thread_is_not_in_its_preview(admin, agent):
    asker, stranger = UserFactory.create_batch(2)
    one, other = QuestionFactory.create_batch(2, asked_by=asker, audience="private")
    for person in (asker, stranger, agent):  # the stranger followed while it was public
        SubscriptionFactory(question=one, subscriber=person)

    preview = previewing.merge(duplicate=one, canonical=other, by=admin)

    assert {follower.person for follower in preview.followers} == {asker, agent}
    assert set(preview.mailed) == {asker, agent}


@pytest.mark.parametrize(("audience", "code"), [("public", ""), ("private", "audience_differs")])
def test_a_preview_says_why_it_cannot_be_done(audience, code, admin):
    canonical, duplicate = QuestionFactory(), QuestionFactory(audience=audience)

    preview = previewing.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert preview.code == code
    assert bool(preview.refusal) == bool(code)
    assert bool(preview.thread) != bool(code)


def test_who_may_not_merge_sees_all_the_same_what_it_would_do(pair, agent):
    canonical, duplicate = pair

    preview = previewing.merge(duplicate=duplicate, canonical=canonical, by=agent)

    assert preview.code == "not_allowed"
    assert preview.thread.duplicates == [duplicate]


def test_a_preview_of_taking_back_says_what_returns_and_what_was_written_since(pair, admin):
    canonical, duplicate = pair
    below = QuestionFactory()
    AnswerFactory(question=below)
    VoteFactory(question=below, by=VoteFactory(question=duplicate).by)
    SubscriptionFactory(question=canonical)
    now = timezone.now()
    merging.merge(duplicate=below, canonical=duplicate, by=admin, now=now)
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin, now=now)
    since = AnswerFactory(question=canonical, written_at=now + timedelta(minutes=1))

    preview = previewing.unmerge(edge=edge, by=admin)

    assert preview.returns == previewing.Part([duplicate, below], answers=1, votes=1, followers=0)
    assert preview.stays == previewing.Part([canonical], answers=1, votes=0, followers=1)
    assert preview.written_since == [since]
    merging.unmerge(merge=edge, by=admin)
    assert len(thread.read(duplicate, admin).answers) == preview.returns.answers


def test_taking_back_needs_the_right_for_all_that_returns(pair, agent, admin):
    canonical, duplicate = pair
    edge = merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    agent.merge_grants.create(product=canonical.product)
    assert not previewing.unmerge(edge=edge, by=agent).refusal

    below = QuestionFactory(product=ProductFactory(slug="kettle"))
    merging.merge(duplicate=below, canonical=canonical, by=admin)
    lower = QuestionFactory(product=ProductFactory(slug="kettle"))
    edge = merging.merge(duplicate=lower, canonical=canonical, by=admin)

    assert previewing.unmerge(edge=edge, by=agent).refusal
