import pytest
from django.contrib.auth.models import AnonymousUser

from dedup import embedding, related, review
from dedup.texts import text_of
from support import merging
from support.models import Question
from tests.factories import FlagFactory, QuestionFactory
from tests.fakes import FakeScorer

pytestmark = pytest.mark.django_db

TITLE = "My blue lamp is dark"


def ask(title=TITLE, **fields):
    question = QuestionFactory(title=title, body="", **fields)
    embedding.renew([text_of(question)], scorer=FakeScorer())
    return question


def near(question, reader=None, **given):
    return related.related(question, reader or AnonymousUser(), **given)


def test_the_nearest_come_first_and_what_is_far_not_at_all():
    own, other, same = ask(), ask("My blue lamp is broken"), ask()
    ask("Where can the invoice of March be found")

    assert near(own) == [same, other]


def test_there_are_five_at_most_and_never_the_question_itself():
    own = ask()
    for _ in range(8):
        ask()

    shown = near(own)

    assert len(shown) == 5
    assert own not in shown


def test_a_question_that_was_not_checked_yet_has_none():
    ask()

    assert near(QuestionFactory(title=TITLE)) == []


def test_vectors_of_another_network_are_not_compared():
    own, other = ask(), ask()
    other.embedding.fingerprint = "o" * 64
    other.embedding.save()

    assert near(own) == []


def test_what_is_private_is_related_for_its_asker_and_agents_only(customer, agent):
    own, mine = ask(), ask(audience="private", asked_by=customer)
    ask(audience="private")

    assert near(own) == []
    assert near(own, customer) == [mine]
    assert len(near(own, agent)) == 2


def test_private_neighbours_take_no_place_of_public_ones():
    own = ask()
    for _ in range(10):
        ask(audience="private")
    public = ask("My blue lamp is broken")

    assert near(own) == [public]


def test_a_duplicate_is_related_to_nothing_any_more(admin):
    own, canonical, duplicate = ask(), ask("My blue lamp is out"), ask()
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)

    assert near(own) == [canonical]
    assert near(canonical) == [own]


def test_what_somebody_said_is_not_the_same_may_well_be_related(agent):
    own, other = ask(), ask()
    review.dismiss(flag=FlagFactory(older=own, newer=other), by=agent)

    assert near(own) == [other]


def test_the_page_shows_them_with_whether_they_are_answered(client):
    own, other = ask(), ask("My blue lamp is broken")
    shown = client.get(own.get_absolute_url()).content.decode().partition('id="related"')[2]

    assert f'href="{other.get_absolute_url()}"' in shown
    assert "Waiting for an answer" in shown
    assert 'id="related"' not in client.get(QuestionFactory().get_absolute_url()).content.decode()


@pytest.mark.parametrize("count", [1, 9])
def test_they_take_four_queries_however_many_there_are(count, django_assert_num_queries):
    own = ask()
    for _ in range(count):
        ask()

    with django_assert_num_queries(4):
        near(own)
    assert Question.objects.count() == count + 1
