"""Eighty at once, each on its own connection: a limit lets through what it says, and no more."""

from collections import Counter
from importlib import import_module

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from support.models import GuestRequest, IdempotencyRecord, Question
from tests.factories import ProductFactory, QuestionFactory, UserFactory
from tests.support.test_merging_races import raced

pytestmark = pytest.mark.django_db(transaction=True)
MANY = 80
LOGIN = "/accounts/login/"


@pytest.fixture(autouse=True)
def the_clock_stands(monkeypatch):
    """A new stretch might begin in the midst of a test."""
    fixed = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: fixed)


def eighty(send):
    """The statuses of eighty answers; each refusal says when to come again."""
    answers = raced(*[lambda number=number: send(number) for number in range(MANY)])
    for answer in answers:
        assert answer.status_code != 429 or 1 <= int(answer["Retry-After"]) <= 3600
    return Counter(answer.status_code for answer in answers)


def posting(path, given, *, address="10.0.0.{}"):
    """Posts `given` with the number of the request in it, each from another address."""

    def send(number):
        client = Client(REMOTE_ADDR=address.format(number))
        return client.post(path, {name: text.format(number) for name, text in given.items()})

    return send


@pytest.fixture
def looked_at(monkeypatch):
    """What passwords or codes were compared, however it ended."""
    seen = []

    def noting(place, name):
        place = import_module(place) if isinstance(place, str) else place
        real = getattr(place, name)

        def note(*given, **named):
            seen.append(name)
            return real(*given, **named)

        monkeypatch.setattr(place, name, note)

    noting.seen = seen
    return noting


@pytest.mark.parametrize("key", [None, "key{}"])
def test_writes_of_one_person_by_programs(settings, customer, bells, key):
    settings.API_WRITES_PER_MINUTE = 5
    ProductFactory()

    def ask(number):
        client = APIClient(HTTP_X_FORWARDED_FOR=f"192.0.2.{number}")
        client.force_authenticate(customer)
        headers = {"Idempotency-Key": key.format(number)} if key else {}
        given = {"product": "lamp", "title": f"Why {number}?"}
        return client.post("/api/v1/questions/", given, headers=headers)

    assert eighty(ask) == {201: 5, 429: 75}
    assert Question.objects.count() == 5
    assert IdempotencyRecord.objects.count() == (5 if key else 0)


@pytest.mark.parametrize(
    ("mailed", "client", "let_through"),
    [("ada@example.org", "10.0.0.{}", 5), ("ada{}@example.org", "10.0.0.1", 20)],
)
def test_guests_for_one_address_and_from_one_computer(bells, mailed, client, let_through):
    page = f"/questions/{QuestionFactory().pk}/follow-by-mail/"

    answers = eighty(posting(page, {"email": mailed}, address=client))

    assert answers == {302: let_through, 429: MANY - let_through}
    assert GuestRequest.objects.count() == let_through


@pytest.mark.parametrize(
    ("name", "client", "let_through"), [("ada", "10.0.0.{}", 5), ("ada{}", "10.0.0.1", 10)]
)
def test_wrong_passwords_for_one_name_and_from_one_computer(looked_at, name, client, let_through):
    UserFactory(username="ada")
    looked_at("allauth.account.adapter", "authenticate")

    answers = eighty(posting(LOGIN, {"login": name, "password": "wrong{}"}, address=client))

    assert answers == {200: let_through, 429: MANY - let_through}
    assert len(looked_at.seen) == let_through


@pytest.mark.parametrize(
    ("page", "let_through"),
    [(LOGIN, 30), ("/accounts/signup/", 20), ("/accounts/2fa/webauthn/login/", 10)],
)
def test_forms_from_one_computer(page, let_through):
    answers = eighty(posting(page, {}, address="10.0.0.1"))

    assert answers[429] == MANY - let_through


@pytest.mark.parametrize(
    ("page", "let_through"), [("/accounts/login/code/", 3), ("/accounts/password/reset/", 5)]
)
def test_mails_to_one_address_that_let_one_in(page, let_through):
    UserFactory(email="ada@example.org")

    assert eighty(posting(page, {"email": "ada@example.org"})) == {
        302: let_through, 429: MANY - let_through,
    }  # fmt: skip
    assert len(mail.outbox) == let_through


def test_guesses_at_one_mailed_code(looked_at):
    UserFactory(email="ada@example.org")
    client = Client()
    client.post("/accounts/login/code/", {"email": "ada@example.org"})
    looked_at("allauth.account.forms", "compare_user_code")

    def guess(number):
        same = Client(REMOTE_ADDR=f"10.0.0.{number}")
        same.cookies = client.cookies
        return same.post("/accounts/login/code/confirm/", {"code": f"AAA-A{number:02}"})

    assert eighty(guess)[429] == MANY - 5
    assert len(looked_at.seen) <= 5


def test_wrong_codes_of_a_second_factor(looked_at):
    person = UserFactory(username="ada")
    TOTP.activate(person, generate_totp_secret())
    client = Client()
    client.post(LOGIN, {"login": "ada", "password": "correct horse battery"})
    looked_at(TOTP, "validate_code")

    def guess(number):
        same = Client(REMOTE_ADDR=f"10.0.0.{number}")
        same.cookies = client.cookies
        return same.post("/accounts/2fa/authenticate/", {"code": f"0000{number:02}"})

    assert eighty(guess) == {200: 5, 429: MANY - 5}
    assert len(looked_at.seen) == 5
