import os
import signal
import threading
import time

import pytest
from django.db import OperationalError, close_old_connections, connection, transaction
from django.http import HttpResponse
from django.test import RequestFactory

from support import database
from support.database import base, waiting
from support.models import Product
from tests import services

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.3)


@pytest.fixture(autouse=True)
def _nothing_stood_still(monkeypatch):
    monkeypatch.setattr(waiting, "_stood_still_at", float("-inf"))


def during_a_request(work):
    def view(request):
        work()
        return HttpResponse()

    try:
        return database.with_patience(view)(RequestFactory().get("/"))
    finally:
        close_old_connections()  # as Django does between two requests


def sleep():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [5])


def test_a_request_does_not_wait_for_a_statement_without_end(impatient):
    begun = time.monotonic()
    with pytest.raises(OperationalError):
        during_a_request(sleep)

    assert time.monotonic() - begun < 2
    assert during_a_request(lambda: Product.objects.count()).status_code == 200  # on a new one


def test_what_was_written_before_the_patience_ended_is_rolled_back(impatient):
    @transaction.atomic
    def write():
        Product.objects.create(slug="lamp", name="Lamp")
        with transaction.atomic():
            sleep()

    with pytest.raises(OperationalError):
        during_a_request(write)

    assert not Product.objects.exists()


def test_postgres_does_not_go_on_for_nobody(impatient):
    with pytest.raises(OperationalError):
        during_a_request(sleep)
    seen = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"

    begun = time.monotonic()
    while True:
        with connection.cursor() as cursor:
            cursor.execute(seen, ["SELECT pg_sleep(5%"])
            if cursor.fetchone() == (0,):
                break
        assert time.monotonic() - begun < 3.5, "it sleeps on"


def test_outside_of_requests_a_statement_may_take_long(impatient):
    during_a_request(lambda: None)

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.5)")


def test_each_thread_has_patience_of_its_own(impatient):
    waits, ended = threading.Event(), []

    def long():
        waits.wait(5)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.6)")
        connection.close()
        ended.append("well")

    thread = threading.Thread(target=long)
    thread.start()
    with pytest.raises(OperationalError):
        during_a_request(lambda: (waits.set(), sleep()))
    thread.join()

    assert ended == ["well"]


def test_after_a_standstill_no_request_waits_for_a_new_connection():
    connection.close()
    waiting.note_standstill()

    with pytest.raises(OperationalError, match="a moment ago"):
        during_a_request(Product.objects.count)
    assert Product.objects.count() == 0  # who is no request may wait


def test_when_the_break_is_over_requests_try_again(monkeypatch):
    connection.close()
    waiting.note_standstill()
    monkeypatch.setattr(waiting, "BREAK_SECONDS", 0.0)

    assert during_a_request(Product.objects.count).status_code == 200


def test_a_connection_that_says_nothing_is_a_standstill(monkeypatch):
    if services.services is None or services.services.postgres is None:
        pytest.skip("DATABASE_URL names a server that the tests may not stop")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    monkeypatch.setattr(base, "USABLE_SECONDS", 0.3)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not connection.is_usable()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert waiting.stands_still()
    connection.close()


def test_a_connection_that_was_ended_is_none():
    with connection.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert not connection.is_usable()
    assert not waiting.stands_still()
    connection.close()
