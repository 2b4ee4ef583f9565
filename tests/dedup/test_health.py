"""What a monitor is told of the check for duplicates."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from dedup import watching
from dedup.models import Release, Worker
from support import outbox
from support.models import ApiToken, OutboxEntry
from tests.factories import QuestionFactory, ReleaseFactory

pytestmark = pytest.mark.django_db

PATH = "/healthz/detection"
WELL = {
    "status": "ok", "oldest_seconds": "ok", "quarantined": "ok", "worker_seconds": "ok",
    "release": "ok",
}  # fmt: skip


@pytest.fixture
def well():
    """A portal with a release and a worker."""
    watching.note_alive("checks@here", ["checks"], now=timezone.now())
    return ReleaseFactory(is_active=True, name="quick-fox")


def wait(*, seconds):
    question = QuestionFactory(title="Wombat secrets", audience="private")
    outbox.put(question, now=timezone.now() - timedelta(seconds=seconds))
    return question


def figures_for(person):
    _, secret = ApiToken.objects.issue(user=person, name="monitor")
    return Client().get(PATH, headers={"Authorization": f"Bearer {secret}"})


def test_where_all_is_well_it_says_so(well, client):
    wait(seconds=5)

    answer = client.get(PATH)

    assert (answer.status_code, answer.json()) == (200, WELL)


def late():
    wait(seconds=700)


def given_up():
    wait(seconds=5)
    OutboxEntry.objects.update(quarantined_at=timezone.now())


def silent():
    seen = timezone.now() - timedelta(seconds=400)
    Worker.objects.update(seen_at=seen)


def without_release():
    Release.objects.update(is_active=False)


@pytest.mark.parametrize(
    ("happens", "part"),
    [(late, "oldest_seconds"), (given_up, "quarantined"), (silent, "worker_seconds"),
     (without_release, "release")],
)  # fmt: skip
def test_each_part_that_is_not_well_is_named_and_makes_it_503(well, client, happens, part):
    happens()

    answer = client.get(PATH)

    assert (answer.status_code, answer.json()) == (
        503, WELL | {"status": "failing", part: "failing"}
    )  # fmt: skip


def test_a_worker_that_was_never_seen_is_not_well(client):
    ReleaseFactory(is_active=True)

    assert client.get(PATH).json()["worker_seconds"] == "failing"


def test_the_bounds_are_those_of_the_alerts(well, client, settings):
    wait(seconds=700)
    settings.ALERT_UNCHECKED_SECONDS = 800

    assert client.get(PATH).status_code == 200


def test_an_admins_program_reads_the_figures(well, admin):
    wait(seconds=100)
    watching.note_alive("mail@here", ["mail"], now=timezone.now() - timedelta(seconds=20))

    figures = figures_for(admin).json()["figures"]

    assert 100 <= figures["oldest_seconds"]["value"] < 110
    assert figures["oldest_seconds"]["bound"] == 600
    assert figures["quarantined"] == {"value": 0, "bound": 0}
    assert figures["release"] == "quick-fox"
    assert 20 <= figures["seconds_since_workers"]["mail"] < 30
    assert set(figures["seconds_since_workers"]) == {"checks", "mail"}


def test_nobody_else_learns_when_a_question_was_asked(well, customer, agent, client):
    wait(seconds=100)

    for answer in (client.get(PATH), figures_for(customer), figures_for(agent)):
        assert answer.json() == WELL


def test_no_word_of_a_question_is_in_it(well, admin):
    question = wait(seconds=100)

    said = figures_for(admin).content.decode()

    assert "ombat" not in said
    assert question.asked_by.username not in said


def test_however_often_it_is_asked_the_rows_are_counted_once(
    well, client, django_assert_max_num_queries
):
    client.get(PATH)

    with django_assert_max_num_queries(1):  # what was found a moment ago
        assert client.get(PATH).status_code == 200
    cache.clear()
    with django_assert_max_num_queries(13):
        assert client.get(PATH).status_code == 200


def test_a_session_is_not_looked_up_and_no_cookie_is_set(well, client, admin):
    client.force_login(admin)

    answer = client.get(PATH)

    assert "figures" not in answer.json()
    assert not answer.cookies
    assert "no-store" in answer["Cache-Control"]


def test_it_needs_no_https_of_a_monitor_inside(well, client, settings):
    settings.SECURE_SSL_REDIRECT = True

    assert client.get(PATH).status_code == 200


def test_a_token_that_is_none_is_refused(well):
    answer = Client().get(PATH, headers={"Authorization": "Bearer ask_made_up"})

    assert answer.status_code == 401


def test_without_its_database_it_is_a_503(client, monkeypatch):
    def refuse(*_args, **_options):
        raise OperationalError("gone")

    monkeypatch.setattr(connection, "cursor", refuse)

    answer = client.get(PATH)

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
