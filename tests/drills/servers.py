"""Postgres and Valkey for drills, there before Django reads its settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django

from support import local

SETTINGS = {
    "SECRET_KEY": "only-for-drills-" + "x" * 50,
    "HTTPS": "false",
    "EMAIL_URL": "console",
    "LOG_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
    "API_WRITES_PER_MINUTE": "1000000",  # what is drilled are faults, not quotas
    "DEDUP_SHORTLIST": "6",  # and processes, not networks: a few pairs a question are enough
    "DEDUP_SAMPLED_PER_QUESTION": "0",
    "DEDUP_NICENESS": "0",  # nobody waits for what else runs here
}

STATIC = "django.contrib.staticfiles.storage"


@contextmanager
def servers(folder: Path) -> Iterator[local.Services]:
    """Postgres, that forgets nothing it acknowledged, and Valkey; Django is set up on them.

    The database that is there is copied for each drill: tables and the shipped release.
    """
    with local.start(folder, keep=False, environ={}) as services:
        given = {"DATABASE_URL": services.database_url, "REDIS_URL": services.redis_url}
        os.environ.update(SETTINGS | given | {"ASKONCE_FOLDER": str(folder)})
        os.environ["DJANGO_SETTINGS_MODULE"] = "support.settings"
        django.setup()
        _make_tables()
        yield services


def _make_tables() -> None:
    from django.conf import settings  # noqa: PLC0415 - Django has to be set up
    from django.core.management import call_command  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415
    from django.test import override_settings  # noqa: PLC0415

    from dedup import releases  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    if not (Path(settings.STATIC_ROOT) / "staticfiles.json").exists():  # pages fail without
        plain = {"staticfiles": {"BACKEND": f"{STATIC}.ManifestStaticFilesStorage"}}
        with override_settings(STORAGES=settings.STORAGES | plain):  # compressing takes a minute
            call_command("collectstatic", interactive=False, verbosity=0)
    releases.activate(release=releases.add(settings.DEDUP_RELEASE))
    connection.close()
