import json

import pytest
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.utils import timezone

from dedup import review
from dedup.models import Deflection
from support import answering, asking, audit, exporting, merging
from support.models import ApiToken, GuestRequest, MailStop, User
from tests.factories import FlagFactory, ProductFactory, QuestionFactory, UserFactory
from tests.support.test_account import signed_in

pytestmark = pytest.mark.django_db


RULES = exporting.EXPORT_RULES.items()


def exported(person):
    return json.loads("".join(exporting.export(person)))


def test_every_relation_to_a_person_is_in_the_export_or_says_why_not():
    relations = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.get_fields(include_hidden=True)
        if field.concrete and field.remote_field and field.related_model is User
    }

    without = {field for field, rule in RULES if not getattr(rule, "of", None)}
    assert relations == without


def test_every_field_of_an_export_is_there(customer):
    """Also of rows that this person has none of."""
    assert {"about", "profile"} < set(exported(customer))
    names = [rule.name for rule in exporting.EXPORT_RULES.values() if hasattr(rule, "name")]
    assert len(names) == len(set(names))
    assert set(exported(customer)) == {"about", "profile", *names}


def test_a_person_gets_all_that_they_wrote_and_did(agent):
    given = {"product": ProductFactory(), "audience": "private"}
    question = asking.submit_question(title="How?", body="“Quoted”", by=agent, **given)
    answering.post_answer(question=question, body="So.", by=agent)
    answering.set_vote(question=question, by=agent, wanted=True)
    review.dismiss(flag=FlagFactory(), by=agent)
    ApiToken.objects.issue(user=agent, name="script")
    GuestRequest.objects.create(
        email=agent.email, kind="question", title="Waits", product=ProductFactory()
    )
    MailStop.objects.create(person=agent, question=question)
    Deflection.objects.create(asker=agent, shown=3)
    audit.record("person_changed", by=None, now=timezone.now(), person=agent.pk)
    UserSession.objects.create(user=agent, ip="203.0.113.7", user_agent="F", session_key="k")

    told = exported(agent)

    assert told["profile"]["username"] == agent.username
    assert [(one["title"], one["body"]) for one in told["questions"]] == [("How?", "“Quoted”")]
    assert [one["body"] for one in told["answers"]] == ["So."]
    assert [one["question_id"] for one in told["votes for questions"]] == [question.pk]
    assert [one["verdict"] for one in told["reviews"]] == ["dismissed"]
    assert [one["name"] for one in told["tokens for programs"]] == ["script"]
    assert [one["ip"] for one in told["signed-in browsers"]] == ["203.0.113.7"]
    assert [one["email"] for one in told["mail addresses"]] == [agent.email]
    assert [one["title"] for one in told["what you sent without signing in, of the last days"]] == [
        "Waits"
    ]
    assert [one["question_id"] for one in told["questions about which you want no mail"]] == [
        question.pk
    ]
    assert [one["shown"] for one in told["times that you were shown similar questions"]] == [3]
    assert [
        one["action"] for one in told["what the audit trail says was done to your account"]
    ] == ["person_changed"]
    assert {"asked", "answered"} <= {
        one["action"] for one in told["what the audit trail says you did"]
    }


def test_what_somebody_sent_from_an_address_goes_to_nobody_who_only_claims_it():
    claimant = UserFactory(email="claimed@example.com", confirmed=False)
    claimant.emailaddress_set.create(email=claimant.email, verified=False)
    GuestRequest.objects.create(
        email=claimant.email, kind="question", title="Private", product=ProductFactory()
    )

    assert "Private" not in "".join(exporting.export(claimant))


def test_no_secret_and_no_text_of_others_is_in_it(agent, admin):
    other = UserFactory(username="othername")
    question = QuestionFactory(title="canary", body="canary", asked_by=other, audience="private")
    answering.post_answer(question=question, body="Mine.", by=agent)
    answering.post_answer(question=question, body="canary", by=admin)
    answering.set_following(question=question, by=agent, wanted=True)
    duplicate = QuestionFactory(title="canary", asked_by=other, audience="private")
    merging.merge(duplicate=duplicate, canonical=question, by=admin, reason="canary")
    token, secret = ApiToken.objects.issue(user=agent, name="script")

    text = "".join(exporting.export(agent))

    for hidden in ("canary", "othername", other.email, secret, token.digest, agent.password):
        assert hidden not in text


def test_the_page_gives_a_file_that_no_cache_keeps(customer):
    client = signed_in(customer)

    answer = client.post("/account/export/")

    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Disposition"] == 'attachment; filename="askonce.json"'
    assert "no-store" in answer["Cache-Control"]
    told = json.loads(b"".join(answer.streaming_content))
    assert told["profile"]["id"] == customer.pk
    assert "by its id only" in told["about"]


def test_a_large_export_is_read_row_by_row(customer, django_assert_num_queries):
    QuestionFactory.create_batch(30, asked_by=customer)
    rules = [rule for rule in exporting.EXPORT_RULES.values() if isinstance(rule, exporting.Rows)]

    with django_assert_num_queries(len(rules)):
        pieces = list(exporting.export(customer))

    assert len(pieces) > 30
