import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone
from rest_framework.test import APIClient

from support import quota
from support.models import Question, Usage
from support.quota import Quota, forget, give_back, spend, tidy
from tests.factories import ProductFactory

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 25, 12, 0, 10, tzinfo=UTC)
THREE = Quota("test", most=3, seconds=60)


def spent(times, *, spender="1", now=NOON):
    return [spend(THREE, spender=spender, now=now) for _ in range(times)]


def test_what_is_within_a_quota_is_free_and_the_rest_has_to_wait():
    assert spent(5) == [0, 0, 0, 50, 50]


def test_the_next_stretch_begins_anew():
    spent(5)

    assert spent(4, now=NOON + timedelta(seconds=50)) == [0, 0, 0, 60]


def test_one_does_not_spend_what_is_anothers():
    spent(3)

    assert spent(1, spender="2") == [0]


def test_what_was_given_back_can_be_spent_again():
    spent(3)
    give_back(THREE, spender="1", now=NOON)

    assert spent(2) == [0, 50]


def test_nothing_is_given_back_of_another_stretch():
    spent(1)
    give_back(THREE, spender="1", now=NOON + timedelta(seconds=60))
    give_back(THREE, spender="2", now=NOON)

    assert Usage.objects.get().used == 1


def test_what_is_forgotten_begins_anew():
    spent(5)
    forget(THREE, spender="1")

    assert spent(1) == [0]


def test_a_count_names_nobody_and_is_kept_for_hours_only():
    spent(1, spender="ada@example.org")
    assert "ada" not in Usage.objects.get().spender

    tidy(now=NOON + timedelta(hours=1))
    assert Usage.objects.exists()
    tidy(now=NOON + timedelta(hours=3))

    assert not Usage.objects.exists()


def test_the_database_keeps_one_count_for_each():
    spent(1)
    kept = Usage.objects.get()

    with pytest.raises(IntegrityError, match="usage_once_per_spender"):
        Usage.objects.create(name=kept.name, spender=kept.spender, begun_at=NOON, used=1)


@pytest.mark.django_db(transaction=True)
def test_eighty_at_once_get_exactly_what_there_is():
    start, answers = threading.Barrier(80), []
    allowed = Quota("test", most=5, seconds=60)

    def once():
        start.wait()
        try:
            answers.append(spend(allowed, spender="1", now=NOON))
        finally:
            connection.close()

    threads = [threading.Thread(target=once) for _ in range(80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (answers.count(0), len(answers)) == (5, 80)


class TestApi:
    @pytest.fixture(autouse=True)
    def small(self, settings, monkeypatch):
        settings.API_WRITES_PER_MINUTE = 2
        ProductFactory()
        fixed = timezone.now()
        monkeypatch.setattr("support.api_requests.timezone.now", lambda: fixed)

    def ask(self, person, **headers):
        client = APIClient()
        client.force_authenticate(person)
        given = {"product": "lamp", "title": "How do I dim it?"}
        return client.post("/api/v1/questions/", given, **headers)

    def test_over_the_quota_a_write_is_told_when_to_come_again(self, customer):
        answers = [self.ask(customer) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert 1 <= int(answers[2]["Retry-After"]) <= 60
        assert answers[2].json()["code"] == "throttled"
        assert answers[2]["Content-Type"] == "application/problem+json"
        assert Question.objects.count() == 2

    def test_another_address_helps_nobody(self, customer):
        answers = [self.ask(customer, HTTP_X_FORWARDED_FOR=f"10.0.0.{n}", REMOTE_ADDR=f"10.0.1.{n}")
                   for n in range(3)]  # fmt: skip

        assert answers[2].status_code == 429

    def test_others_go_on_and_reading_goes_on(self, customer, agent):
        for _ in range(3):
            self.ask(customer)
        client = APIClient()
        client.force_authenticate(customer)

        assert self.ask(agent).status_code == 201
        assert client.get("/api/v1/questions/").status_code == 200

    def test_a_refused_write_is_not_remembered_under_its_key(self, customer, monkeypatch):
        for _ in range(2):
            self.ask(customer)
        assert self.ask(customer, HTTP_IDEMPOTENCY_KEY="k").status_code == 429

        later = timezone.now() + timedelta(seconds=60)
        monkeypatch.setattr("support.api_requests.timezone.now", lambda: later)

        assert self.ask(customer, HTTP_IDEMPOTENCY_KEY="k").status_code == 201

    def test_a_quota_needs_no_broker(self, customer, settings):
        settings.CACHES = {}  # neither Redis nor any cache

        assert self.ask(customer).status_code == 201
        assert quota.spend(THREE, spender="1", now=NOON) == 0
