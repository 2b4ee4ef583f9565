"""The one door into detection: questions wait here to be checked.

Postgres is the queue, Redis only the doorbell. A question and its entry commit together; workers
claim entries with a lease and settle them in the transaction that writes what they found. Fresh
entries are claimed in batches. An entry whose check failed in company becomes a suspect and is
from then on claimed alone; only a failure while alone counts, and the third puts it into
quarantine, where agents see it. Fresh entries and suspects take turns, so that a few questions that
kill whoever reads them hold up nobody else.

What nobody waits for (old questions, after an import or a new release) is put into the background:
claimed where no other entry can be, in batches of its own, which end early when one comes.
"""

import logging
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone
from kombu import Producer

from support.celery import app
from support.models import OutboxEntry, Question
from support.models.outbox import OutboxQuerySet

log = logging.getLogger(__name__)

CHECK_TASK = "dedup.tasks.check_waiting"
CHECK_QUEUE = "checks"
MOST_ATTEMPTS = 3
LATE_SECONDS = 60.0  # what waits for longer has nobody who checks it, if nobody is at work
LONG_SECONDS = 600.0  # and this is late whoever is
SOMEBODY = "?"  # checked a question before it was written down which release did
MOST_BELLS = 100  # more than there are workers: while so many lie there, another would wake nobody
BREAK_SECONDS = 5.0  # after a message that could not be sent, none is tried for so long
FIXED = 0.0  # as a moment until which none is tried
# Measured on a dead Redis: without any retry, Celery waits longer than with one.
RETRY_ONCE = {"max_retries": 1, "interval_start": 0}

_silent_until = FIXED
_breaker = threading.Lock()
_suspect_is_next = False  # a process that a suspect killed begins again with fresh entries


class ClaimLost(Exception):
    """The question was edited or claimed again meanwhile: what was found about it is void."""


@dataclass(frozen=True)
class Claim:
    """The right to settle the check of one question."""

    question_id: int
    token: uuid.UUID
    is_background: bool = False


def put(question: Question, *, now: datetime | None = None) -> None:
    """Let `question` be checked as it now stands. In the transaction that changes it."""
    fresh = _fresh(now)
    OutboxEntry.objects.bulk_create(
        [OutboxEntry(question=question, **fresh)],
        update_conflicts=True, unique_fields=["question"], update_fields=list(fresh),
    )  # fmt: skip
    transaction.on_commit(ring, robust=True)


@transaction.atomic
def put_all(
    questions: Sequence[int], *, is_background: bool = False, now: datetime | None = None
) -> int:
    """Let all these questions (ids) be checked again; return how many.

    In the background: those that wait for somebody, or are in quarantine, stay as they are and do
    not count; what is held keeps its claim, and what was checked stays known as that.
    """
    entries = OutboxEntry.objects.filter(question__in=questions)
    known = set(entries.order_by("pk").select_for_update().values_list("question_id", flat=True))
    if is_background:
        number = _put_behind(entries, now or timezone.now())
    else:
        number = entries.update(**_fresh(now))
    fresh = _fresh(now) | {"is_background": is_background}
    missing = [OutboxEntry(question_id=pk, **fresh) for pk in questions if pk not in known]
    OutboxEntry.objects.bulk_create(missing, ignore_conflicts=True)
    transaction.on_commit(ring, robust=True)
    return number + len(missing)


def _put_behind(entries: OutboxQuerySet, now: datetime) -> int:
    """Put settled entries into the background; those that wait there go with the others."""
    number = entries.waiting().filter(is_background=True).update(put_at=now)
    checked = When(checked_by="", then=Value(SOMEBODY))  # before anybody wrote down who
    renewed = _fresh(now) | {
        "is_background": True,
        "checked_by": Case(checked, default=F("checked_by")),
    }
    return number + entries.filter(settled_at__isnull=False).update(**renewed)


@transaction.atomic
def take_back(*, put_at: datetime, back_to: datetime, now: datetime) -> int:
    """Take entries out of the background that were put there together; return how many.

    What was checked before counts as checked again, put at `back_to`; what never was has no entry
    any more.
    """
    entries = behind(put_at)
    list(entries.order_by("pk").select_for_update().values_list("pk", flat=True))
    checked = entries.exclude(checked_by="").update(
        put_at=back_to, settled_at=now, token=None, leased_until=None, is_alone=False
    )
    return checked + entries.delete()[0]


def behind(put_at: datetime) -> OutboxQuerySet:
    """What still waits of the entries that were put into the background together."""
    return OutboxEntry.objects.waiting().filter(is_background=True, put_at=put_at)


def drop(questions: Collection[int], *, now: datetime) -> None:
    """Settle these questions (ids) unchecked: their texts were erased. Claims of them are void."""
    entries = OutboxEntry.objects.filter(question__in=questions)
    list(entries.order_by("pk").select_for_update().values_list("pk", flat=True))
    entries.update(**{**_fresh(now), "settled_at": now})


def _fresh(now: datetime | None) -> dict[str, Any]:
    return {
        "put_at": now or timezone.now(),
        "is_background": False,
        "token": None,
        "leased_until": None,
        "is_suspect": False,
        "is_alone": False,
        "attempts": 0,
        "settled_at": None,
        "quarantined_at": None,
        "failure": "",
        "checked_by": "",
    }


def ring(*, is_patient: bool = False) -> bool:
    """Wake a worker; False where the broker cannot be reached (the sweep will see the entry).

    Where workers are behind, or none is there, no more than about MOST_BELLS bells pile up: whoever
    hears one of them claims what waits, and rings again while something is left.
    """
    return send(CHECK_TASK, is_patient=is_patient)


def send(task: str, *args: str, is_patient: bool = False, **options: Any) -> bool:
    """Send a task by its name; False where the broker cannot be reached.

    Only the first requests that find a broker dead wait for its timeout. From then on a thread
    tries now and then for all of them, with what they wanted sent. Who `is_patient` waits itself.
    """
    with _breaker:
        is_broken, is_silent = _silent_until != FIXED, time.monotonic() < _silent_until
        if is_broken and not is_silent:
            _break()  # whoever comes next leaves the broker alone meanwhile
    if is_silent:
        return False
    if is_patient or not is_broken:
        return _send(task, args, options)
    threading.Thread(target=_send, args=[task, args, options], daemon=True).start()
    return False


def _send(task: str, args: Sequence[str], options: dict[str, Any]) -> bool:
    global _silent_until  # noqa: PLW0603 - one breaker for each process
    try:
        with app.producer_or_acquire() as producer:
            if task != CHECK_TASK or _bells(producer) < MOST_BELLS:
                options = {**options, "retry": True, "retry_policy": RETRY_ONCE}
                app.send_task(task, args, producer=producer, **options)
    except Exception as error:
        _break()
        log.warning("The broker cannot be reached: %s", type(error).__name__)
        return False
    _silent_until = FIXED
    return True


def _bells(producer: Producer) -> int:
    """How many nobody has heard yet."""
    channel: Any = producer.channel
    return int(channel.queue_declare(CHECK_QUEUE, durable=True).message_count)


def _break() -> None:
    global _silent_until  # noqa: PLW0603
    _silent_until = time.monotonic() + BREAK_SECONDS


@transaction.atomic
def claim(*, limit: int, now: datetime) -> list[Claim]:
    """Take up to `limit` fresh entries, or one suspect; [] when nothing waits.

    Of those in the background only where no other can be taken.
    """
    _note_failures(now)
    free = OutboxEntry.objects.waiting().filter(leased_until=None)
    entries = _in_turn(free.live(), limit) or _in_turn(free.filter(is_background=True), limit)
    for entry in entries:
        entry.token = uuid.uuid4()
        entry.leased_until = now + timedelta(seconds=settings.DEDUP_LEASE_SECONDS)
        entry.is_alone = len(entries) == 1
    OutboxEntry.objects.bulk_update(entries, ["token", "leased_until", "is_alone"])
    return [
        Claim(entry.question_id, entry.token, entry.is_background)
        for entry in entries
        if entry.token
    ]


def _in_turn(free: OutboxQuerySet, limit: int) -> list[OutboxEntry]:
    """Fresh entries and suspects in turns; locked."""
    global _suspect_is_next  # noqa: PLW0603 - each process takes turns by itself
    ordered = free.order_by("put_at", "pk").select_for_update(skip_locked=True)
    fresh = ordered.filter(is_suspect=False)[:limit]
    # One that failed alone goes behind those that only stood beside a failure.
    suspect = ordered.filter(is_suspect=True).order_by("attempts", "put_at", "pk")[:1]
    first, second = (suspect, fresh) if _suspect_is_next else (fresh, suspect)
    entries = list(first) or list(second)
    if entries:
        _suspect_is_next = not entries[0].is_suspect
    return entries


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
def settling(
    claim: Claim, *, checked_by: str = SOMEBODY, now: datetime | None = None
) -> Iterator[None]:
    """Write what was found about a question, and settle its claim, in one transaction.

    `checked_by` is the fingerprint of the release that found it.
    Raises ClaimLost, and what was written is rolled back, where the claim is not valid any more.
    """
    with transaction.atomic():
        yield
        settled = OutboxEntry.objects.filter(
            question=claim.question_id, token=claim.token, settled_at=None
        ).update(
            settled_at=now or timezone.now(), token=None, leased_until=None, failure="",
            checked_by=checked_by,
        )  # fmt: skip
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
    """Age of the oldest entry that somebody waits for; 0 when nobody does."""
    oldest = (
        OutboxEntry.objects.waiting().live().order_by("put_at").values_list("put_at", flat=True)
    )
    first = oldest.first()
    return max(0.0, (now - first).total_seconds()) if first else 0.0


def is_late(now: datetime) -> bool:
    """Whether somebody waits for longer than they should: and nobody is at work, or for long.

    After an import, or as a demo begins, many wait while a worker checks one after the other: that
    is no lateness to tell everybody of.
    """
    behind = seconds_behind(now)
    if behind <= LATE_SECONDS:
        return False
    is_at_work = OutboxEntry.objects.waiting().filter(leased_until__gt=now)
    return behind > LONG_SECONDS or not is_at_work.exists()


def has_waiting(now: datetime) -> bool:
    """Whether an entry waits that nobody holds."""
    return has_live_waiting(now) or _is_any(
        _free(now).filter(is_background=True).order_by("is_suspect", "put_at", "pk")
    )


def has_live_waiting(now: datetime) -> bool:
    """Whether an entry that somebody waits for is held by nobody."""
    return _is_any(_free(now).live().order_by("put_at"))


def _free(now: datetime) -> OutboxQuerySet:
    is_free = Q(leased_until=None) | Q(leased_until__lt=now)
    return OutboxEntry.objects.waiting().filter(is_free)


def _is_any(ordered: OutboxQuerySet) -> bool:
    """In the order of an index: else the planner, to which those that wait seem to be many among
    the settled ones, reads all rows until it meets one (125 ms of 300,000, instead of 0.1)."""
    return bool(ordered.values_list("pk")[:1])


def retry_quarantined(*, question_ids: Sequence[int]) -> int:
    """Try questions in quarantine once more; return how many."""
    return (
        OutboxEntry.objects.quarantined()
        .filter(question__in=question_ids)
        .update(quarantined_at=None, attempts=0, is_suspect=True)
    )
