from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from support import page_limits
from tests.factories import ProductFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A new stretch might begin in the midst of a test."""
    stands = [timezone.now()]
    monkeypatch.setattr("support.page_limits.timezone.now", lambda: stands[0])
    return stands


@pytest.fixture
def three(monkeypatch):
    """So many of everything, that a test need not send thirty times."""
    monkeypatch.setattr(page_limits, "SEARCHES", replace(page_limits.SEARCHES, most=3))
    for table in (page_limits.SENT_BY_PERSON, page_limits.SENT_BY_ANYBODY):
        for page, allowed in table.items():
            monkeypatch.setitem(table, page, replace(allowed, most=3))


def signed_in(user, address="10.0.0.1"):
    client = Client(REMOTE_ADDR=address)
    client.force_login(user)
    return client


def ask(client):
    given = {"title": "", "body": "", "product": ProductFactory().pk, "audience": "public"}
    return client.post("/ask/", given).status_code


def search(client, words="lamp"):
    return client.get("/", {"q": words}).status_code


def test_a_person_sends_a_page_thirty_times_a_minute_and_no_oftener(clock):
    client = signed_in(UserFactory())

    assert [ask(client) for _ in range(31)] == [400] * 30 + [429]

    clock[0] += timedelta(seconds=60)
    assert ask(client) == 400


def test_it_is_the_person_who_is_counted_whatever_computer_they_sit_at(three):
    ada, bob = UserFactory(), UserFactory()

    at_two = [ask(signed_in(ada, f"10.0.0.{n % 2}")) for n in range(4)]

    assert at_two == [400] * 3 + [429]
    assert ask(signed_in(bob)) == 400


def test_whoever_is_over_it_still_reads(three):
    client = signed_in(UserFactory())
    for _ in range(4):
        ask(client)

    assert client.get("/ask/").status_code == 200
    assert client.get("/").status_code == 200


def test_searches_without_signing_in_are_counted_by_computer(three):
    one, other = Client(REMOTE_ADDR="10.0.0.1"), Client(REMOTE_ADDR="10.0.0.2")

    assert [search(one) for _ in range(4)] == [200] * 3 + [429]
    assert search(other) == 200
    assert one.get("/").status_code == 200
    assert search(one, words=" ") == 200  # the newest ones, and no search


def test_somebody_who_signed_in_has_searches_of_their_own(three):
    guest, member = Client(REMOTE_ADDR="10.0.0.1"), signed_in(UserFactory(), "10.0.0.1")
    for _ in range(4):
        search(guest)

    assert [search(member) for _ in range(4)] == [200] * 3 + [429]


def test_drafts_are_suggested_for_so_often_as_somebody_types(three):
    guest = Client(REMOTE_ADDR="10.0.0.1")

    answers = [guest.post("/ask/similar/", {"title": "The lamp is dark"}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200] * 3 + [429]
    assert 1 <= int(answers[3]["Retry-After"]) <= 60
