"""The one door into detection: questions wait here to be checked.

Postgres is the queue, Redis only the doorbell. A question and its entry commit together; workers
claim entries with a lease and settle them in the transaction that writes what they found. Fresh
entries are claimed in batches. An entry whose check failed in company becomes a suspect and is
from then on claimed alone; only a failure while alone counts, and the third puts it into
quarantine, where agents see it. Fresh entries and suspects take turns, so that a few questions that
kill whoever reads them hold up nobody else.
"""

import logging
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from support.celery import app
from support.models import OutboxEntry, Question

log = logging.getLogger(__name__)

CHECK_TASK = "dedup.tasks.check_waiting"
MOST_ATTEMPTS = 3
BREAK_SECONDS = 5.0  # after a message that could not be sent, none is tried for so long
# Measured on a dead Redis: without any retry, Celery waits longer than with one.
RETRY_ONCE = {"max_retries": 1, "interval_start": 0}

_silent_until = 0.0
_suspect_is_next = False  # a process that a suspect killed begins again with fresh entries


class ClaimLost(Exception):
    """The question was edited or claimed again meanwhile: what was found about it is void."""


@dataclass(frozen=True)
class Claim:
    """The right to settle the check of one question."""

    question_id: int
    token: uuid.UUID


def put(question: Question, *, now: datetime | None = None) -> None:
    """Let `question` be checked as it now stands. In the transaction that changes it."""
    OutboxEntry.objects.update_or_create(question=question, defaults=_fresh(now))
    transaction.on_commit(ring, robust=True)


@transaction.atomic
def put_all(questions: Sequence[int], *, now: datetime | None = None) -> int:
    """Let all these questions (ids) be checked again; return how many."""
    entries = OutboxEntry.objects.filter(question__in=questions)
    known = set(entries.order_by("pk").select_for_update().values_list("question_id", flat=True))
    entries.update(**_fresh(now))
    missing = [OutboxEntry(question_id=pk, **_fresh(now)) for pk in questions if pk not in known]
    OutboxEntry.objects.bulk_create(missing, ignore_conflicts=True)
    transaction.on_commit(ring, robust=True)
    return len(known) + len(missing)


def drop(questions: Collection[int], *, now: datetime) -> None:
    """Settle these questions (ids) unchecked: their texts were erased. Claims of them are void."""
    entries = OutboxEntry.objects.filter(question__in=questions)
    list(entries.order_by("pk").select_for_update().values_list("pk", flat=True))
    entries.update(**{**_fresh(now), "settled_at": now})


def _fresh(now: datetime | None) -> dict[str, Any]:
    return {
        "put_at": now or timezone.now(),
        "token": None,
        "leased_until": None,
        "is_suspect": False,
        "is_alone": False,
        "attempts": 0,
        "settled_at": None,
        "quarantined_at": None,
        "failure": "",
    }


def ring() -> bool:
    """Wake a worker; False where the broker cannot be reached (the sweep will see the entry)."""
    return send(CHECK_TASK)


def send(task: str, *args: str, **options: Any) -> bool:
    """Send a task by its name; False where the broker cannot be reached.

    After a failure none is tried for a while, so that a dead broker costs one request its timeout
    and not all of them.
    """
    global _silent_until  # noqa: PLW0603 - one breaker for each process
    if time.monotonic() < _silent_until:
        return False
    try:
        app.send_task(task, args, retry=True, retry_policy=RETRY_ONCE, **options)
    except Exception as error:
        _silent_until = time.monotonic() + BREAK_SECONDS
        log.warning("The broker cannot be reached: %s", type(error).__name__)
        return False
    return True


@transaction.atomic
def claim(*, limit: int, now: datetime) -> list[Claim]:
    """Take up to `limit` fresh entries, or one suspect; [] when nothing waits."""
    global _suspect_is_next  # noqa: PLW0603 - each process takes turns by itself
    _note_failures(now)
    free = OutboxEntry.objects.waiting().filter(leased_until=None)
    ordered = free.order_by("put_at", "pk").select_for_update(skip_locked=True)
    fresh = ordered.filter(is_suspect=False)[:limit]
    # One that failed alone goes behind those that only stood beside a failure.
    suspect = ordered.filter(is_suspect=True).order_by("attempts", "put_at", "pk")[:1]
    first, second = (suspect, fresh) if _suspect_is_next else (fresh, suspect)
    entries = list(first) or list(second)
    _suspect_is_next = bool(entries) and not entries[0].is_suspect
    for entry in entries:
        entry.token = uuid.uuid4()
        entry.leased_until = now + timedelta(seconds=settings.DEDUP_LEASE_SECONDS)
        entry.is_alone = len(entries) == 1
    OutboxEntry.objects.bulk_update(entries, ["token", "leased_until", "is_alone"])
    return [Claim(entry.question_id, entry.token) for entry in entries if entry.token]


def _note_failures(now: datetime) -> None:
    """Claims that ran out belong to workers that died: their questions are suspects now."""
    expired = OutboxEntry.objects.waiting().filter(leased_until__lt=now)
    for entry in expired.order_by("pk").select_for_update(skip_locked=True):
        _count_failure(entry, now=now, failure="worker died")


def _count_failure(entry: OutboxEntry, *, now: datetime, failure: str) -> None:
    entry.attempts += entry.is_alone
    entry.is_suspect, entry.is_alone = True, False
    entry.token = entry.leased_until = None
    entry.failure = failure[:200]
    if entry.attempts >= MOST_ATTEMPTS:
        entry.quarantined_at = now
        log.error("Question %s is in quarantine: %s", entry.question_id, entry.failure)
    entry.save()


@contextmanager
def settling(claim: Claim, *, now: datetime | None = None) -> Iterator[None]:
    """Write what was found about a question, and settle its claim, in one transaction.

    Raises ClaimLost, and what was written is rolled back, where the claim is not valid any more.
    """
    with transaction.atomic():
        yield
        settled = OutboxEntry.objects.filter(
            question=claim.question_id, token=claim.token, settled_at=None
        ).update(settled_at=now or timezone.now(), token=None, leased_until=None, failure="")
        if not settled:
            raise ClaimLost(claim.question_id)


@transaction.atomic
def fail(claims: Sequence[Claim], *, error: BaseException, now: datetime) -> None:
    """Give claims back after an error that the check raised; each will be tried alone."""
    by_token = {claim.token for claim in claims}
    entries = OutboxEntry.objects.filter(token__in=by_token).order_by("pk").select_for_update()
    for entry in entries:
        _count_failure(entry, now=now, failure=type(error).__name__)


def release(claims: Sequence[Claim]) -> None:
    """Give claims back untouched, as when a worker is told to stop; counts against nobody."""
    OutboxEntry.objects.filter(token__in={claim.token for claim in claims}).update(
        token=None, leased_until=None, is_alone=False
    )


def seconds_behind(now: datetime) -> float:
    """Age of the oldest entry that waits; 0 when none does."""
    oldest = OutboxEntry.objects.waiting().order_by("put_at").values_list("put_at", flat=True)
    first = oldest.first()
    return max(0.0, (now - first).total_seconds()) if first else 0.0


def has_waiting(now: datetime) -> bool:
    """Whether an entry waits that nobody holds."""
    free = Q(leased_until=None) | Q(leased_until__lt=now)
    return OutboxEntry.objects.waiting().filter(free).exists()


def retry_quarantined(*, question_ids: Sequence[int]) -> int:
    """Try questions in quarantine once more; return how many."""
    return (
        OutboxEntry.objects.quarantined()
        .filter(question__in=question_ids)
        .update(quarantined_at=None, attempts=0, is_suspect=True)
    )
