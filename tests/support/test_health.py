import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from support import health, permissions

pytestmark = pytest.mark.django_db

PATHS = ("/livez", "/readyz")
WELL = {"status": "ok", "database": "ok", "migrations": "ok", "redis": "ok"}


@pytest.fixture(autouse=True)
def nobody_has_asked_redis(monkeypatch):
    monkeypatch.setattr(health, "_redis_asked_at", float("-inf"))


@pytest.fixture
def no_redis(settings):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"


def test_a_process_that_answers_lives_and_asks_nobody_for_it(
    client, agent, no_redis, django_assert_num_queries
):
    client.force_login(agent)

    with django_assert_num_queries(0):
        answer = client.get("/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert health._redis_asked_at == float("-inf")


def test_a_process_with_all_that_it_needs_is_ready(client, django_assert_max_num_queries):
    client.get("/readyz")

    with django_assert_max_num_queries(2):
        answer = client.get("/readyz")

    assert (answer.status_code, answer.json()) == (200, WELL)


def test_without_redis_it_is_ready_and_says_what_is_away(client, no_redis):
    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()) == (
        200, WELL | {"status": "degraded", "redis": "away"}
    )  # fmt: skip


def test_redis_is_not_asked_again_for_each_probe(client, no_redis, monkeypatch):
    client.get("/readyz")
    monkeypatch.setattr(health.redis.Redis, "from_url", None)  # would fail

    assert client.get("/readyz").json()["redis"] == "away"


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
def test_without_its_database_it_is_not_ready(client, monkeypatch, error):
    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr(connection, "cursor", refuse)

    answer = client.get("/readyz")

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    said = {"status": "unready", "database": "away", "migrations": "unknown"}
    assert answer.json() == WELL | said


def test_before_a_migration_of_its_code_it_is_not_ready(client):
    newest = MigrationRecorder.Migration.objects.filter(app="support").latest("pk")
    newest.delete()

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["migrations"]) == (503, "behind")


def test_a_database_without_any_migration_is_not_ready(client):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations")

    assert client.get("/readyz").json()["migrations"] == "behind"


def test_beside_newer_code_that_has_migrated_it_is_ready(client):
    MigrationRecorder(connection).record_applied("support", "9999_of_a_newer_version")

    assert client.get("/readyz").status_code == 200


def test_what_the_code_needs_is_what_migrate_applies():
    call_command("migrate", "--check")

    assert not health.is_behind()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [True, False])
def test_a_probe_gets_no_cookie_and_nobody_keeps_its_answer(client, path, cookie):
    if cookie:
        client.cookies["sessionid"] = "made-up"

    answer = client.get(path)

    assert not answer.cookies
    assert "no-store" in answer["Cache-Control"]
    assert client.head(path).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_probe_needs_neither_https_nor_a_second_factor(settings, agent, path):
    settings.SECURE_SSL_REDIRECT = settings.SECOND_FACTOR = True
    agent.groups.set([Group.objects.get(name=permissions.ADMIN)])
    client = Client()
    client.force_login(agent)

    assert client.get(path).status_code == 200
