import pytest

from dedup import desk, review
from support import merging
from tests.factories import FlagFactory, QuestionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair(agent):
    """A public and a private question that an agent found to be the same."""
    public, private = QuestionFactory(), QuestionFactory(audience="private", title="My secret lamp")
    review.confirm(flag=FlagFactory(older=public, newer=private), canonical=public, by=agent)
    return public, private


def test_agents_see_what_is_linked_on_both_pages(pair, agent, client):
    client.force_login(agent)

    for one, other in (pair, reversed(pair)):
        assert f'href="{other.get_absolute_url()}"' in client.get(one.get_absolute_url()).text


def test_nobody_else_sees_that_a_private_question_is_linked(pair, customer, client):
    public, private = pair
    for sign_in in (lambda: None, lambda: client.force_login(customer)):
        sign_in()
        page = client.get(public.get_absolute_url()).text
        assert private.get_absolute_url() not in page
        assert "secret" not in page


def test_a_link_is_shown_from_all_of_a_thread(pair, admin):
    public, private = pair
    top = QuestionFactory()
    merging.merge(duplicate=public, canonical=top, by=admin)

    assert desk.linked(top) == [private]
    assert desk.linked(private) == [top]


def test_what_is_confirmed_but_not_merged_yet_is_no_link(agent):
    flag = FlagFactory()
    review.confirm(flag=flag, canonical=flag.older, by=agent)

    assert desk.linked(flag.older) == []
