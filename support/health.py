"""What a machine asks this process: does it answer, can it serve. Nobody is signed in here."""

import time
from collections.abc import Callable
from functools import cache

import redis
from django.conf import settings
from django.db import ProgrammingError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from support.http import DATABASE_AWAY, FOR_MONITORS

PING_SECONDS = 0.3
REMEMBERED_SECONDS = 5.0  # what Redis last answered: a probe is quick also where it hangs

_redis_answered = True
_redis_asked_at = float("-inf")


def without_cookies(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Whoever asks for health is nobody: no session is looked up, and none is begun."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(FOR_MONITORS):
            request.COOKIES = {}
        return get_response(request)

    return middleware


@never_cache
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """The process answers. Asks nobody else."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether this process can serve: Postgres answers, and is as this code needs it.

    Without Redis the site works: that is said, and no reason to send nobody here.
    """
    said = {"database": "ok", "migrations": "ok", "redis": "ok" if redis_answers() else "away"}
    try:
        said["migrations"] = "behind" if is_behind() else "ok"
    except DATABASE_AWAY:
        said |= {"database": "away", "migrations": "unknown"}
    if said["migrations"] != "ok":
        return JsonResponse({"status": "unready", **said}, status=503, headers={"Retry-After": "5"})
    status = "ok" if said["redis"] == "ok" else "degraded"
    return JsonResponse({"status": status, **said})


def is_behind() -> bool:
    """Whether a migration of this code is not applied; those of newer code do no harm."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")  # a connection that was lost is no missing table
    try:
        applied = MigrationRecorder.Migration.objects.values_list("app", "name")
        return not _newest_migrations() <= set(applied)
    except ProgrammingError:  # nothing was ever applied
        return True


@cache
def _newest_migrations() -> frozenset[tuple[str, str]]:
    """The last ones of each app, as they lie on this machine's disk."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).graph.leaf_nodes())


def redis_answers() -> bool:
    """Whether Redis does, as it did within the last seconds."""
    global _redis_answered, _redis_asked_at  # noqa: PLW0603 - remembered by each process
    if time.monotonic() - _redis_asked_at > REMEMBERED_SECONDS:
        limits = {"socket_timeout": PING_SECONDS, "socket_connect_timeout": PING_SECONDS}
        try:
            _redis_answered = bool(redis.Redis.from_url(settings.REDIS_URL, **limits).ping())
        except (redis.RedisError, OSError, ValueError):
            _redis_answered = False
        _redis_asked_at = time.monotonic()
    return _redis_answered
