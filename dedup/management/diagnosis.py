"""What is there, what is missing, and the command that repairs it: `manage.py doctor`."""

import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from typing import Any

import redis
from django.conf import settings
from django.core.checks import run_checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from dedup import cascade, releases, tuning
from dedup.ml.artifact import ArtifactRefused, verify
from dedup.models import Release
from support import notifications, outbox
from support.models import Notification, OutboxEntry
from support.templatetags.texts import in_percent

GOOD, NOTE, BROKEN, UNKNOWN = "good", "note", "broken", "unknown"
LATE_SECONDS = 60.0  # what waits longer than this has nobody who checks it
PING_SECONDS = 2.0
QUEUES = ("checks", "interactive", "mail", "training")
MAIL_APP = "support.celery:mail_app"  # knows the mail tasks only, and no networks
TRAINING_APP = "support.celery:training_app"  # its jobs have processes of their own
OTHER_APPS = {"mail": MAIL_APP, "training": f"{TRAINING_APP} -P threads"}
INSTALL = "python3.11 -m venv .venv && .venv/bin/pip install -e ."
START_ALL = "python manage.py demo"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `repair` is a command, where one is needed."""

    name: str
    state: str
    detail: str
    repair: str = ""


def examine() -> list[Finding]:
    """Look at everything; what cannot be known without something broken is unknown."""
    found = [*_python(), *_packages(), *_settings(), *_database()]
    has_rows = not any(f.name in {"database", "migrations"} and f.state == BROKEN for f in found)
    found += _redis()
    has_broker = found[-1].state == GOOD
    found += (
        _workers() if has_broker else [Finding("workers", UNKNOWN, "there is no broker to ask")]
    )
    for name, look in ROWS.items():
        if has_rows:
            found += look()
        else:
            found.append(Finding(name, UNKNOWN, "there is no database to ask"))
    return [*found, *_processor()]


def is_healthy(found: list[Finding]) -> bool:
    """Whether nothing has to be repaired."""
    return all(finding.state != BROKEN for finding in found)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    fits = sys.version_info[:2] == (3, 11)
    yield Finding("python", GOOD if fits else BROKEN, version, "" if fits else INSTALL)


def _packages() -> Iterator[Finding]:
    try:
        wanted = metadata.requires("askonce") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", BROKEN, "the project is not installed", INSTALL)
        return
    pinned = [re.match(r"([\w.-]+)(?:\[[^]]*\])?==([\w.]+)$", line) for line in wanted]
    wrong = [_wrong(match[1], match[2]) for match in pinned if match]
    if missing := [said for said in wrong if said]:
        yield Finding("packages", BROKEN, "; ".join(missing), INSTALL)
    else:
        yield Finding("packages", GOOD, f"{len(wrong)} as pinned")


def _wrong(name: str, version: str) -> str:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return "" if installed.partition("+")[0] == version else f"{name} is {installed}, not {version}"


def _settings() -> Iterator[Finding]:
    unsafe = [message for message in run_checks(include_deployment_checks=True) if message.level]
    wrong = sorted({f"{message.id}: {message.msg}" for message in unsafe if message.level >= 30})
    repair = "python manage.py check --deploy"
    if not wrong:
        yield Finding("settings", GOOD, "safe where strangers can reach them")
    elif settings.DEMO and not any(message.level >= 40 for message in unsafe):
        yield Finding(
            "settings", NOTE, f"a demo's, not for strangers: {len(wrong)} warnings", repair
        )
    else:
        yield Finding("settings", BROKEN, "; ".join(wrong), repair)


def _database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            version = cursor.fetchone()[0]
            cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            vector = cursor.fetchone()
        plan = MigrationExecutor(connection)
        behind = plan.migration_plan(plan.loader.graph.leaf_nodes())
    except DatabaseError as error:
        detail = f"does not answer: {type(error).__name__}"
        yield Finding("database", BROKEN, detail, f"set DATABASE_URL, or: {START_ALL}")
        return
    yield Finding("database", GOOD, f"PostgreSQL {version}")
    migrate = "python manage.py migrate"
    if vector:
        yield Finding("pgvector", GOOD, vector[0])
    else:
        yield Finding("pgvector", BROKEN, "the extension vector is not there", migrate)
    if behind:
        yield Finding("migrations", BROKEN, f"{len(behind)} are not applied", migrate)
    else:
        yield Finding("migrations", GOOD, "all applied")


def _redis() -> list[Finding]:
    limits = {"socket_timeout": PING_SECONDS, "socket_connect_timeout": PING_SECONDS}
    try:
        version = redis.Redis.from_url(settings.REDIS_URL, **limits).info("server")["redis_version"]
    except (redis.RedisError, OSError, ValueError) as error:
        detail = f"does not answer ({type(error).__name__}): checks come late, suggestions by words"
        return [Finding("redis", BROKEN, detail, f"set REDIS_URL, or: {START_ALL}")]
    return [Finding("redis", GOOD, version)]


def _workers() -> Iterator[Finding]:
    answers = outbox.app.control.inspect(timeout=PING_SECONDS).active_queues() or {}
    served = {queue["name"] for queues in answers.values() for queue in queues}
    for queue in QUEUES:
        name = f"workers: {queue}"
        if queue in served:
            serving = sorted(
                worker for worker, queues in answers.items() if queue in {q["name"] for q in queues}
            )
            yield Finding(name, GOOD, ", ".join(serving))
        else:
            app, _, pool = OTHER_APPS.get(queue, "support").partition(" ")
            words = [
                "celery",
                "-A",
                app,
                "worker",
                "-Q",
                queue,
                pool,
                "-c",
                "1",
                "-n",
                f"{queue}@%h",
            ]
            repair = " ".join(word for word in words if word)
            yield Finding(name, BROKEN, "none answers", repair)
    yield from _held_up({name: [dict(q) for q in queues] for name, queues in answers.items()})


def _held_up(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Finding]:
    """Workers in which a question may wait behind a job that takes an hour."""
    for worker, queues in sorted(answers.items()):
        others = sorted({queue["name"] for queue in queues} - {"training"})
        if others and len(others) < len(queues):
            detail = f"{worker} does long work too: {', '.join(others)} may wait behind a job"
            repair = f"celery -A {OTHER_APPS['training']} -Q training -c 1 -n training@%h"
            repair = repair.replace(" -P threads", " worker -P threads")
            yield Finding("long work", NOTE, detail, repair)


def _release() -> Iterator[Finding]:
    activate = f"python manage.py activate_release {settings.DEDUP_RELEASE}"
    try:
        release = releases.active()
    except releases.NoRelease:
        yield Finding("release", BROKEN, "none is in service: nothing is checked", activate)
        return
    back = "python manage.py activate_release --back" if release.previous else activate
    try:
        releases.prove_files(release)
    except ArtifactRefused as error:
        yield Finding("release", BROKEN, f"{release}: {error}", back)
        return
    yield Finding(
        "release", GOOD, f"{release}, files as they were, threshold {in_percent(release.threshold)}"
    )
    yield _golden(release, back)
    yield from _cascade(release)
    yield from _tuned(release)


def _golden(release: Release, repair: str) -> Finding:
    try:
        from dedup.ml.release import open_release  # noqa: PLC0415 - torch may be what is missing

        scorer = open_release(releases.folder_of(release), threads=settings.DEDUP_THREADS)
    except ImportError as error:
        return Finding("golden pairs", BROKEN, str(error), INSTALL)
    except ArtifactRefused as error:
        return Finding("golden pairs", BROKEN, f"{release}: {error}", repair)
    number = len(scorer.manifest.raw["golden"])
    return Finding("golden pairs", GOOD, f"{number} come out as written")


def _cascade(release: Release) -> Iterator[Finding]:
    if not cascade.is_on():
        return
    name = settings.DEDUP_CASCADE
    try:
        found = cascade.student_of(release)
        verify(found.folder)
    except ArtifactRefused as error:
        detail = f"{name} is refused, the release reads all: {error}"
        yield Finding("cascade", NOTE, detail, "python manage.py distil, or unset DEDUP_CASCADE")
    else:
        detail = f"{name} reads first, and is believed below {found.floor:.4f}"
        yield Finding("cascade", GOOD, detail)


def _waiting() -> Iterator[Finding]:
    entries = OutboxEntry.objects.waiting()
    waiting, behind = entries.live().count(), outbox.seconds_behind(timezone.now())
    later = entries.filter(is_background=True).count()
    if behind > LATE_SECONDS:
        detail = f"{waiting} questions, the oldest for {behind:.0f} s"
        yield Finding("waiting", BROKEN, detail, "python manage.py check_waiting")
    else:
        detail = f", and {later} in the background" if later else ""
        yield Finding("waiting", GOOD, f"{waiting} questions{detail}")


def _mail() -> Iterator[Finding]:
    overdue = notifications.overdue(timezone.now() - timedelta(seconds=LATE_SECONDS))
    doubtful = Notification.objects.filter(
        status__in=[Notification.Status.UNKNOWN, Notification.Status.REFUSED]
    ).count()
    if overdue:
        repair = f"celery -A {MAIL_APP} worker -Q mail -c 1 -n mail@%h"
        yield Finding("mail", BROKEN, f"{overdue} mails are late; is EMAIL_URL right?", repair)
    elif doubtful:
        detail = f"{doubtful} mails were perhaps not sent, or refused: see the administration"
        yield Finding("mail", NOTE, detail)
    else:
        yield Finding("mail", GOOD, "none is late")
    if bool(settings.INBOUND_URL) > bool(settings.INBOUND_DOMAIN):
        detail = "INBOUND_URL is set, but no INBOUND_DOMAIN: no reply is taken"
        yield Finding("replies by mail", BROKEN, detail, "set INBOUND_DOMAIN")


def _quarantined() -> Iterator[Finding]:
    number = OutboxEntry.objects.quarantined().count()
    if number:
        detail = f"{number} questions could not be checked: nobody knows their duplicates"
        yield Finding("quarantine", BROKEN, detail, "python manage.py recheck --quarantined")
    else:
        yield Finding("quarantine", GOOD, "empty")


def _processor() -> Iterator[Finding]:
    try:
        from dedup.ml.packing import bf16_by  # noqa: PLC0415 - torch may be what is missing
    except ImportError as error:
        yield Finding("processor", UNKNOWN, str(error))
        return
    if how := bf16_by():
        yield Finding("processor", GOOD, f"bf16 by {how}")
    else:
        yield Finding("processor", NOTE, "fp32: neither AMX nor AVX-512 bf16; checks take longer")


def _tuned(release: Release) -> Iterator[Finding]:
    found = tuning.known(release.fingerprint)
    if found:
        detail = f"{found.tokens} tokens a batch, {found.threads} threads"
        compared = f"{found.ratio:.2f} of the usual time" if found.ratio < 1 else "as usual"
        yield Finding("feeding", GOOD, f"{detail}: {compared}, measured {found.measured_at[:10]}")
    else:
        yield Finding("feeding", NOTE, "as usual: no worker on this machine has measured it yet")


ROWS: dict[str, Callable[[], Iterator[Finding]]] = {
    "release": _release,
    "waiting": _waiting,
    "quarantine": _quarantined,
    "mail": _mail,
}
