import threading
import time

import pytest
from django.db import OperationalError, close_old_connections, connection, transaction
from django.http import HttpResponse
from django.test import RequestFactory

from support import database
from support.models import Product

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.3)


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
