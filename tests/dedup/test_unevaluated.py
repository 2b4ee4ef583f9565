"""A question in a language that the release was not evaluated in gets no probability."""

import pytest
from django.urls import reverse

from dedup import review
from support.models import Merge
from tests.factories import FlagFactory, QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def german():
    return FlagFactory(
        newer=QuestionFactory(title="Wo ist meine Rechnung?", language="de"), probability=0.9312
    )


def test_the_queue_and_the_card_say_so_and_show_no_probability(german, agent, client):
    client.force_login(agent)

    for page in (reverse("review_queue"), reverse("review_card", args=[german.pk])):
        shown = client.get(page).content.decode()
        assert "Not evaluated in German" in shown
        assert "93 %" not in shown
        assert "<meter" not in shown


def test_one_in_an_evaluated_language_has_its_probability(agent, client):
    flag = FlagFactory(
        older=QuestionFactory(language="en"), newer=QuestionFactory(language=""), probability=0.93
    )
    client.force_login(agent)

    shown = client.get(reverse("review_card", args=[flag.pk])).content.decode()

    assert "Not evaluated" not in shown
    assert "<meter" in shown


def test_a_release_says_itself_in_which_languages_it_was_evaluated(german):
    german.release = ReleaseFactory(manifest={"languages": ["en", "de"]})

    assert german.unevaluated_languages == []
    assert german.known_probability == 0.9312


def test_programs_get_null_and_the_languages(german, agent, client):
    client.force_login(agent)

    row = client.get(f"/api/v1/flags/{german.pk}/").json()

    assert row["probability"] is None
    assert row["unevaluated_languages"] == ["de"]


def test_a_merge_out_of_such_a_flag_claims_no_probability(german, admin):
    review.confirm(flag=german, canonical=german.older, by=admin)

    assert Merge.objects.get().probability is None
