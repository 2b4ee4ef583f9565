from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone
from django.utils.html import escape

from dedup.suggesting import Ranking, Suggestions
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


PATHS = {
    "ask": "/ask/",
    "edit_question": "/questions/7/edit/",
    "answer": "/questions/7/answer/",
    "dispute": "/questions/7/different/",
}


def test_each_limit_is_of_a_page_that_is_there():
    tables = (
        page_limits.SENT_BY_CLIENT, page_limits.SENT_BY_PERSON, page_limits.SENT_BY_ANYBODY,
        page_limits.SENT_BY_SESSION, {page_limits.SEARCH_PAGE: page_limits.SEARCHES},
    )  # fmt: skip
    there = set(get_resolver().reverse_dict)

    assert {page for table in tables for page in table} <= there


@pytest.mark.parametrize("page", page_limits.TEXTS)
def test_a_page_of_text_that_is_sent_too_often_keeps_it_to_be_sent_again(three, page):
    client = signed_in(UserFactory())
    typed = {"body": 'two lines\nand a "quote" <b>', "version": "1"}

    answers = [client.post(PATHS[page], typed) for _ in range(4)]

    assert [answer.status_code == 429 for answer in answers] == [False] * 3 + [True]
    kept = answers[3].content.decode()
    assert f'<form method="post" action="{PATHS[page]}">' in kept
    assert escape(typed["body"]) in kept
    assert kept.count("csrfmiddlewaretoken") == 1


def test_a_password_is_never_kept_on_a_page(three, monkeypatch):
    for table in (page_limits.SENT_BY_CLIENT, page_limits.SENT_BY_PERSON):
        for page, allowed in table.items():
            monkeypatch.setitem(table, page, replace(allowed, most=0))

    answer = Client().post("/accounts/login/", {"login": "ada", "password": "a secret of mine"})

    assert answer.status_code == 429
    assert "a secret of mine" not in answer.content.decode()


def test_guests_who_ask_are_counted_by_computer_before_anything_is_compared(three, monkeypatch):
    compared = []

    def similar(**given):
        compared.append(given)
        return Suggestions([], Ranking.WORDS)

    monkeypatch.setattr("dedup.views.asking.suggesting.similar", similar)
    guest = Client(REMOTE_ADDR="10.0.0.1")
    given = {"title": "My lamp is dark", "body": "", "audience": "public", "email": "a@b.example",
             "product": ProductFactory().pk, "add_difference": "1"}  # fmt: skip

    answers = [guest.post("/ask/", given).status_code for _ in range(5)]

    assert answers == [200] * 3 + [429] * 2
    assert len(compared) == 3


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
