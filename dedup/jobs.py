"""Long work: started by a page, a command or the API, done by a worker, seen and stopped by anybody
who may.

A run holds its job by a token and gives signs of life. Where they stop to come, the job is taken up
again; what it had done lies in checkpoints of its own. After three runs that died it has failed.
"""

import errno
import logging
import resource
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from dedup.models import Job
from support import audit, outbox
from support.models import User

log = logging.getLogger(__name__)

RUN_TASK = "dedup.tasks.run_jobs"
SILENT = timedelta(minutes=3)  # without a sign of life for so long, a run is dead
MOST_ATTEMPTS = 3
EVERY_SECONDS = 2.0  # between two signs of life: each is a write
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "could not allocate")
NO_MEMORY = gettext_noop(
    "It needs more memory than it may have: %(megabytes)d MB (DEDUP_TRAINING_MEMORY_MB)."
)
NO_SPACE = gettext_noop("The disk is full.")
DIED = gettext_noop(
    "Its worker died three times, as when the machine's memory runs out; its log may say of what."
)


class JobRuns(Exception):
    """One of this kind waits or runs already."""


class JobStopped(Exception):
    """Somebody asked that it ends. Raised by `Run.progress`, for the runner to let through."""


class JobLost(Exception):
    """Another run has taken the job up: this one writes nothing any more."""


class JobFailed(Exception):
    """What was asked for cannot be done; the text says why to a person.

    `said` is a sentence of ours, marked for translation, with places for `details`.
    """

    def __init__(self, said: str, **details: object) -> None:
        super().__init__(said % details)
        self.said, self.details = said, details


@dataclass
class Run:
    """One run of a job, by the worker that holds it."""

    job: Job
    token: uuid.UUID
    _said_at: float = field(default=-1e9, repr=False)

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.job.params)

    def progress(
        self, done: int, total: int, step: str = "", *, seconds_left: float | None = None
    ) -> None:
        """Say how far it is. Cheap to call often: written every other second.

        Raises JobStopped where somebody asked that it ends, JobLost where another run holds it.
        """
        if time.monotonic() - self._said_at < EVERY_SECONDS and step == self.job.step:
            return
        self._said_at = time.monotonic()
        self.job.step, self.job.done, self.job.total = step, done, total
        self._write(
            step=step[:60], done=done, total=total, seconds_left=seconds_left,
            seen_at=timezone.now(),
        )  # fmt: skip
        if Job.objects.filter(pk=self.job.pk, is_to_stop=True).exists():
            raise JobStopped(self.job.pk)

    def _write(self, **changes: object) -> None:
        held = Job.objects.filter(pk=self.job.pk, token=self.token, state=Job.State.RUNNING)
        if not held.update(**changes):
            raise JobLost(self.job.pk)

    def end(
        self, state: str, *, result: Mapping[str, Any] | None = None, failure: str = ""
    ) -> None:
        """Close the job. Raises JobLost where another run holds it."""
        self._write(
            state=state, result=dict(result or {}), failure=failure[:300], ended_at=timezone.now(),
            seconds_left=None, token=None,
        )  # fmt: skip

    def give_back(self) -> None:
        """Let another run take the job up at once; this one does not count as one that died."""
        held = Job.objects.filter(pk=self.job.pk, token=self.token, state=Job.State.RUNNING)
        held.update(state=Job.State.WAITING, token=None, attempts=F("attempts") - 1)


Runner = Callable[[Run], Mapping[str, Any]]  # returns the job's result


def start(
    *,
    kind: str,
    params: Mapping[str, Any] | None = None,
    by: User | None,
    now: datetime | None = None,
) -> Job:
    """Put a job in line and wake a worker. Raises JobRuns where one of this kind is unfinished."""
    now = now or timezone.now()
    try:
        with transaction.atomic():
            job = Job.objects.create(kind=kind, params=dict(params or {}), by=by, put_at=now)
            audit.record("job_started", by=by, now=now, job=job.pk, kind=kind)
            by_checks = kind in Job.BY_CHECKS
            transaction.on_commit(outbox.ring if by_checks else ring, robust=True)
    except IntegrityError as error:
        raise JobRuns(kind) from error
    return job


def ring() -> bool:
    """Wake a worker of the training queue; False where the broker cannot be reached."""
    return outbox.send(RUN_TASK)


@transaction.atomic
def stop(*, job: Job, by: User | None, now: datetime | None = None) -> Job:
    """Ask that a job ends: at once where it waits, else at its next sign of life."""
    now = now or timezone.now()
    job = Job.objects.select_for_update().get(pk=job.pk)
    if job.is_finished:
        return job
    job.is_to_stop = True
    if job.state == Job.State.WAITING:
        job.state, job.ended_at = Job.State.STOPPED, now
    job.save(update_fields=["is_to_stop", "state", "ended_at"])
    audit.record("job_stopped", by=by, now=now, job=job.pk, kind=job.kind)
    return job


@transaction.atomic
def claim(*, kinds: list[str], now: datetime) -> Run | None:
    """Take the job that has waited longest, or one whose run died; None where there is none."""
    dead = Q(state=Job.State.RUNNING, seen_at__lt=now - SILENT)
    free = Job.objects.filter(Q(state=Job.State.WAITING) | dead, kind__in=kinds)
    job = free.order_by("put_at", "pk").select_for_update(skip_locked=True).first()
    if job is None:
        return None
    if job.is_to_stop or job.attempts >= MOST_ATTEMPTS:
        is_stopped = job.is_to_stop
        job.state = Job.State.STOPPED if is_stopped else Job.State.FAILED
        if not is_stopped:
            job.failure, job.result = DIED, _as_told(JobFailed(DIED))
        job.ended_at, job.token = now, None
        job.save()
        return None
    job.state, job.token = Job.State.RUNNING, uuid.uuid4()
    job.started_at, job.seen_at = job.started_at or now, now
    job.attempts = F("attempts") + 1
    job.save()
    job.refresh_from_db()
    assert job.token
    return Run(job, job.token)


def run(runners: Mapping[str, Runner], *, now: datetime | None = None) -> Job | None:
    """Do one job that waits; return it as it ended, None where none waits."""
    held = claim(kinds=list(runners), now=now or timezone.now())
    return do(held, runners) if held else None


def do(held: Run, runners: Mapping[str, Runner]) -> Job:
    """Do a job that was claimed; return it as it ended.

    An error of its runner is the job's failure, never the worker's. A worker that is told to end
    gives the job back, to be taken up again.
    """
    try:
        held.end(Job.State.DONE, result=runners[held.job.kind](held))
    except JobStopped:
        held.end(Job.State.STOPPED)
    except JobLost:
        log.warning("Job %s was taken up by another worker", held.job.pk)
    except JobFailed as error:
        log.warning("Job %s: %s", held.job.pk, error)
        held.end(Job.State.FAILED, result=_as_told(error), failure=str(error))
    except Exception as error:
        known = _known(error)
        failure = str(known) if known else cause_of(error)
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("Job %s failed: %s\n%s", held.job.pk, failure, where)
        held.end(Job.State.FAILED, result=_as_told(known) if known else {}, failure=failure)
    except (SystemExit, KeyboardInterrupt):
        if not connection.in_atomic_block:
            connection.close()  # one whose statement was cut off takes no other
        held.give_back()
        raise
    held.job.refresh_from_db()
    return held.job


def cause_of(error: BaseException) -> str:
    """The kind of an error, its code where it has one, and the line that raised it.

    Never its message: the database, and many a library, quote the rows and texts that they met.
    """
    codes = [getattr(one, "sqlstate", None) or getattr(one, "errno", None)
             for one in (error, error.__cause__)]  # fmt: skip
    code = next((one for one in codes if isinstance(one, str | int)), None)
    frames = traceback.extract_tb(error.__traceback__)
    inside = [one for one in frames if Path(one.filename).is_relative_to(settings.BASE_DIR)]
    at = inside[-1] if inside else None
    place = f" in {Path(at.filename).stem}.{at.name}, line {at.lineno}" if at else ""
    return f"{type(error).__name__}{f' ({code})' if code else ''}{place}"


def _as_told(error: JobFailed) -> dict[str, Any]:
    """What a page needs to say it in the language of its reader."""
    return {"said": error.said, "details": error.details}


def _known(error: Exception) -> JobFailed | None:
    """The plain word for an error of the machine; None where there is none."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return JobFailed(NO_MEMORY, megabytes=settings.DEDUP_TRAINING_MEMORY_MB)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobFailed(NO_SPACE)
    return None


def bound_memory() -> None:
    """Let this process have so much memory as the settings say; more raises MemoryError in it."""
    if settings.DEDUP_TRAINING_MEMORY_MB:
        most = settings.DEDUP_TRAINING_MEMORY_MB * 1024 * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def has_waiting(now: datetime) -> bool:
    """Whether a job waits for a worker, or for another one after its own died."""
    dead = Q(state=Job.State.RUNNING, seen_at__lt=now - SILENT)
    free = Job.objects.filter(Q(state=Job.State.WAITING) | dead)
    return free.exclude(kind__in=Job.BY_CHECKS).exists()
