"""Nothing that the database keeps is without a rule for the day when its person leaves."""

from datetime import timedelta

import pytest
from allauth.account.models import EmailConfirmation
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.search import SearchVectorField
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, models
from django.test import Client
from django.utils import timezone
from pgvector.django import HalfVectorField

from dedup import desk, feedback, pipeline, review
from dedup.models import Deflection, Draft, Embedding, Flag, SavedView, Score
from support import answering, asking, erasing, merging
from support.models import (
    ApiToken,
    GuestRequest,
    IdempotencyRecord,
    MailStop,
    MergeGrant,
    Question,
    User,
)
from tests.factories import (
    AnswerFactory,
    FlagFactory,
    ProductFactory,
    QuestionFactory,
    ReleaseFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
SAYS = (
    models.CharField, models.TextField, models.JSONField, models.GenericIPAddressField,
    models.BinaryField, models.FileField, models.GeneratedField, SearchVectorField, HalfVectorField,
)  # fmt: skip


def named():
    """Every relation to a person or a question, and every field that can hold what they wrote."""
    for model in apps.get_models(include_auto_created=True):
        for field in model._meta.get_fields(include_hidden=True):
            if not field.concrete:
                continue
            points = field.remote_field and field.related_model in {User, Question}
            says = isinstance(field, SAYS) and not field.choices and not field.remote_field
            if points or says:
                yield f"{model._meta.label}.{field.name}"


def test_every_relation_and_every_text_has_a_rule():
    assert [field for field in named() if erasing.rule_of(field) is None] == []


def test_every_rule_is_for_something_that_is_there():
    fields = set(named())

    assert set(erasing.ERASE_RULES) <= fields | {field.rpartition(".")[0] for field in fields}


def test_what_stays_says_why():
    for field, rule in erasing.ERASE_RULES.items():
        assert not isinstance(rule, erasing.Stays) or len(rule.because) > 10, field


CANARIES = (
    "numbatname", "numbatmail", "quokkatitle", "wombatbody", "bilbyanswer", "potorooreason",
    "dunnartnote", "possumview", "koalatoken", "wallabydraft", "emukey", "gliderbrowser",
    "echidnadispute", "dingounsure", "bettongguest", "203.0.113.77",
)  # fmt: skip


def columns():
    """Every column of every table that can hold a word, as the database itself lists them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT table_name, column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND (
                data_type IN ('text', 'character varying', 'character', 'json', 'jsonb', 'inet',
                              'tsvector', 'xml', 'bytea', 'ARRAY')
                OR udt_name IN ('citext', 'hstore'))
            ORDER BY 1, 2
            """
        )
        return cursor.fetchall()


def places_of(words):
    """Where in the database these words stand: {word: [table.column, ...]}."""
    found = {}
    with connection.cursor() as cursor:
        for table, column in columns():
            for word in words:
                cursor.execute(
                    f'SELECT count(*) FROM "{table}" WHERE "{column}"::text ILIKE %s',
                    [f"%{word}%"],
                )
                if cursor.fetchone()[0]:
                    found.setdefault(word, []).append(f"{table}.{column}")
    return found


@pytest.fixture
def person(agent):
    """An agent who wrote everywhere where somebody can write."""
    agent.username = agent.first_name = agent.last_name = agent.display_name = "numbatname"
    agent.email = "numbatmail@example.com"
    agent.language, agent.time_zone = "en", "Europe/Berlin"
    agent.save()
    agent.emailaddress_set.update(email=agent.email)
    return agent


@pytest.fixture
def wrote(person, admin, scorer):
    """All that a person can leave behind; with the threads of others in which it stands."""
    asked = asking.submit_question(
        product=ProductFactory(), title="How quokkatitle?", body="It is wombatbody.",
        audience="public", by=person,
    )  # fmt: skip
    others = QuestionFactory(title="How quokka?", body="It went dark.")
    merged = QuestionFactory(title="quokkatitle too", body="wombatbody", asked_by=person)
    pipeline.check_waiting(limit=16)
    AnswerFactory(question=others, written_by=person, body="Like bilbyanswer.")
    AnswerFactory(question=asked, body="Turn it.")
    flag = FlagFactory(older=asked, newer=QuestionFactory(), release=scorer.release)
    flag.alignment = [["quokkatitle", 0, "lamp", 0, 0.9]]
    flag.save()
    decided = FlagFactory(older=asked, release=scorer.release)
    review.dismiss(flag=decided, by=person)
    decided.reviews.update(note="dunnartnote")
    FlagFactory(release=scorer.release, unsure="dingounsure", unsure_by=person)
    merging.merge(duplicate=merged, canonical=others, by=admin)
    desk.dispute(question=merged, by=person, reason="echidnadispute")
    MergeGrant.objects.create(agent=person, product=others.product)
    edge = merging.merge(
        duplicate=QuestionFactory(), canonical=others, by=person, reason="potorooreason"
    )
    answering.set_vote(question=others, by=person, wanted=True)
    answering.set_answer_vote(answer=AnswerFactory(question=others), by=person, wanted=True)
    SavedView.objects.create(name="possumview", query="q=possumview", owner=person)
    ApiToken.objects.issue(user=person, name="koalatoken")
    Draft.objects.create(pk="0" * 32, text="wallabydraft", reader=person)
    body = {"title": "quokkatitle", "by": "numbatname"}
    IdempotencyRecord.objects.create(user=person, key="emukey", digest="d", status=201, body=body)
    IdempotencyRecord.objects.create(
        user=admin, key="another", digest="d", status=200, body={"merged_by": "numbatname"}
    )
    Deflection.objects.create(asker=person, shown=2, asked_at=timezone.now(), asked_question=asked)
    MailStop.objects.create(person=person, question=others)
    GuestRequest.objects.create(
        email=person.email, kind="question", title="bettongguest", body="bettongguest",
        product=others.product,
    )  # fmt: skip
    address = person.emailaddress_set.get()
    EmailConfirmation.create(address)
    Authenticator.objects.create(user=person, type="totp", data={"secret": "numbatname"})
    LogEntry.objects.create(
        user=admin, content_type=ContentType.objects.get_for_model(User), object_id=person.pk,
        object_repr="numbatname", action_flag=2, change_message="numbatname",
    )  # fmt: skip
    for login in ("numbatname", "numbatmail@example.com"):  # a failure that is counted
        Client(REMOTE_ADDR="203.0.113.77").post(
            "/accounts/login/", {"login": login, "password": "wrong"}
        )
    browser = Client(headers={"user-agent": "gliderbrowser"}, REMOTE_ADDR="203.0.113.77")
    signed_in = browser.post(
        "/accounts/login/", {"login": "numbatname", "password": "correct horse battery"}
    )
    assert signed_in.status_code == 302
    return {"asked": asked, "others": others, "merged": merged, "edge": edge, "browser": browser}


def test_no_word_of_somebody_who_left_stands_anywhere_in_the_database(person, wrote):
    UserSession.objects.create(
        user=person, ip="203.0.113.77", user_agent="gliderbrowser", session_key="k" * 32
    )
    before = places_of(CANARIES)
    assert set(before) == set(CANARIES)

    erasing.erase(person=person, by=person)

    assert places_of(CANARIES) == {}
    assert [(one.asker, one.shown) for one in Deflection.objects.all()] == [(None, 2)]
    assert not MailStop.objects.exists()


def test_the_search_for_canaries_looks_into_every_table_of_ours():
    tables = {table for table, _ in columns()}

    assert {"support_question", "dedup_flag", "cache", "django_session", "account_emailaddress",
            "usersessions_usersession", "mfa_authenticator", "dedup_draft"} <= tables  # fmt: skip


def test_nothing_of_the_networks_is_left_of_an_erased_text(person, wrote):
    asked = wrote["asked"]
    assert Embedding.objects.filter(question=asked).exists()

    erasing.erase(person=person, by=person)

    assert not Embedding.objects.filter(question__asked_by=person).exists()
    assert not Score.objects.filter(older__asked_by=person).exists()
    assert not Score.objects.filter(newer__asked_by=person).exists()
    assert not Flag.objects.open().filter(older=asked).exists()
    assert not Flag.objects.filter(older__asked_by=person).exclude(older_hash="").exists()
    assert not Flag.objects.filter(newer__asked_by=person).exclude(newer_hash="").exists()
    asked.outbox_entry.refresh_from_db()
    assert (asked.outbox_entry.settled_at is None, asked.outbox_entry.token) == (False, None)
    assert pipeline.check_waiting(limit=16) == 0


@pytest.mark.parametrize("stage", ["judge", "embed"])
def test_a_check_that_is_under_way_writes_nothing_of_an_erased_text(
    stage, scorer, monkeypatch, bells
):
    """The worker has read the text, and is in the midst of its networks when its writer leaves."""
    person = UserFactory()
    neighbour = asking.submit_question(
        product=ProductFactory(), title="How do I dim the lamp?", body="Too bright.",
        audience="public", by=UserFactory(),
    )  # fmt: skip
    assert pipeline.check_waiting(limit=16) == 1
    question = asking.submit_question(
        product=ProductFactory(), title="How do I dim the lamp?", body="Much too bright.",
        audience="public", by=person,
    )  # fmt: skip
    reached = getattr(scorer, stage)

    def leave(*given, **options):
        monkeypatch.setattr(scorer, stage, reached)
        erasing.erase(person=person, by=person)
        return reached(*given, **options)

    monkeypatch.setattr(scorer, stage, leave)
    pipeline.check_waiting(limit=16)

    person.refresh_from_db()
    assert person.erased_at
    assert not Embedding.objects.filter(question=question).exists()
    assert not Score.objects.exists()
    assert not Flag.objects.exists()
    assert Embedding.objects.filter(question=neighbour).exists()


def test_the_check_of_another_question_keeps_no_score_of_an_erased_text(scorer, monkeypatch):
    person = UserFactory()
    given = {"product": ProductFactory(), "body": "Too bright.", "audience": "public"}
    old = asking.submit_question(title="How do I dim the lamp?", by=person, **given)
    pipeline.check_waiting(limit=16)
    new = asking.submit_question(title="How to dim the lamp?", by=UserFactory(), **given)
    judge = scorer.judge

    def leave(*given, **options):
        erasing.erase(person=person, by=person)
        return judge(*given, **options)

    monkeypatch.setattr(scorer, "judge", leave)
    assert pipeline.check_waiting(limit=16) == 1

    assert Embedding.objects.filter(question=new).exists()
    assert not Score.objects.filter(older=old).exists()
    assert not Flag.objects.exists()


def test_a_verdict_on_an_erased_text_teaches_nothing(agent, scorer):
    flag = FlagFactory(release=scorer.release)
    review.dismiss(flag=flag, by=agent)
    assert len(feedback.labels()) == 1

    erasing.erase(person=flag.older.asked_by, by=None)

    assert feedback.labels() == []


def test_a_dispute_of_somebody_else_is_still_looked_at(admin):
    ReleaseFactory(is_active=True)
    duplicate, canonical = QuestionFactory(), QuestionFactory()
    merging.merge(duplicate=duplicate, canonical=canonical, by=admin)
    flag = desk.dispute(question=duplicate, by=duplicate.asked_by, reason="Mine is red.")

    erasing.erase(person=canonical.asked_by, by=None)
    flag.refresh_from_db()
    assert flag.status == Flag.Status.OPEN

    erasing.erase(person=duplicate.asked_by, by=None)
    flag.refresh_from_db()
    assert (flag.status, flag.dispute) == (Flag.Status.WITHDRAWN, "")


def test_a_new_release_checks_no_erased_text_again(scorer):
    kept, erased = QuestionFactory(), QuestionFactory()
    erasing.erase(person=erased.asked_by, by=None, now=timezone.now() - timedelta(days=1))

    call_command("recheck", "--no-wait")

    assert kept.outbox_entry.settled_at is None
    assert not hasattr(erased, "outbox_entry")


def test_the_counts_of_failed_logins_do_not_tell_who_failed(person):
    Client().post("/accounts/login/", {"login": "numbatname", "password": "wrong"})

    assert places_of(["numbatname"]).get("numbatname") is not None
    assert not any(place.startswith("cache.") for place in places_of(["numbatname"])["numbatname"])
    cache.clear()
