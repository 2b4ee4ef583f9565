"""Checks of all questions in the background: a backfill finds duplicates among those that are there
already, a recheck compares them again by another release.

Both are jobs that no worker holds. Their questions lie in the outbox, behind all that somebody
waits for, under the moment at which the job was put: so what is left of it is counted, whoever does
it, and whoever dies on the way leaves nothing to be mended. All that check questions `tend` the
job: put its next questions, count, close. One job has its turn at a time.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from dedup import jobs, releases, shortlist
from dedup.feedback import Groups
from dedup.ml.pairs import Pair, Scorer
from dedup.models import Flag, Job, Release
from dedup.models.flag import FlagQuerySet
from dedup.texts import text_of
from support import outbox
from support.models import OutboxEntry, Question, User
from support.models.question import QuestionQuerySet

PUTTING = gettext_noop("putting the questions in line")
COMPARING = gettext_noop("comparing the questions")
SLICE = 500  # questions that are put in one transaction
PUT_SECONDS = 1.0  # then it goes on at the next turn
SAMPLE, ASKED = 400, 10  # texts that an estimate embeds; how many of them it compares
LARGEST = 10  # clusters that a report names


def begin(
    *,
    kind: str,
    everything: bool = False,
    limit: int | None = None,
    by: User | None,
    now: datetime | None = None,
) -> Job:
    """Put a backfill or a recheck in line. Raises jobs.JobRuns where one is unfinished.

    A backfill takes questions that nobody ever checked, a recheck also those that another release
    did, both with `everything` all; at most `limit`. Where the last one of all was stopped, it goes
    on with what that had not put, as long as no other release is in service.
    """
    params: dict[str, Any] = {"all": everything, "limit": limit}
    if everything and (begun := _begun_before(kind)):
        params["since"] = begun.isoformat()
    return jobs.start(kind=kind, params=params, by=by, now=now)


def _begun_before(kind: str) -> datetime | None:
    last = Job.objects.filter(kind=kind).order_by("-pk").first()
    if last is None or last.state != Job.State.STOPPED or not last.params.get("all"):
        return None
    begun, release = _since(last), releases.active()
    return begun if release.activated_at is None or release.activated_at < begun else None


def _since(job: Job) -> datetime:
    """What was put from then on has been compared in this job, or one that it goes on with."""
    written = job.params.get("since")
    return datetime.fromisoformat(written) if written else job.put_at


def due(job: Job) -> QuestionQuerySet:
    """Questions that this job has still to put. Merged ones too: others are compared with them.

    Raises releases.NoRelease where it depends on which one is in service, and none is.
    """
    waits = Q(outbox_entry__settled_at=None, outbox_entry__is_background=True)
    known = waits & Q(outbox_entry__quarantined_at=None)
    checked = Q(outbox_entry__settled_at__isnull=False)
    if job.params.get("all"):
        known |= checked
    elif job.kind == Job.Kind.RECHECK:
        known |= checked & ~Q(outbox_entry__checked_by=releases.active().fingerprint)
    is_old = Q(outbox_entry__put_at__lt=_since(job))
    return Question.objects.written().filter(Q(outbox_entry=None) | known & is_old)


def tend(*, now: datetime | None = None) -> Job | None:
    """Bring the job whose turn it is forward; return it, None where there is none to be had.

    Safe to call by anybody and at any time; cheap where no job is unfinished.
    """
    deadline = time.monotonic() + PUT_SECONDS
    try:
        while (job := _step(now or timezone.now())) and time.monotonic() < deadline:
            if job.is_finished or job.result.get("is_put"):
                break
    except releases.NoRelease:
        return None  # it waits, as all checks do
    return job


@transaction.atomic
def _step(now: datetime) -> Job | None:
    unfinished = Job.objects.unfinished().filter(kind__in=Job.BY_CHECKS).order_by("put_at", "pk")
    first = unfinished.values_list("pk", flat=True).first()
    job = unfinished.filter(pk=first).select_for_update(skip_locked=True).first() if first else None
    if job is None:
        return None
    if job.is_to_stop:
        just_before = _since(job) - datetime.resolution  # to be put by the next that goes on
        outbox.take_back(put_at=job.put_at, back_to=just_before, now=now)
        return _end(job, Job.State.STOPPED, now)
    if job.state == Job.State.WAITING:
        job.state, job.started_at = Job.State.RUNNING, now
    if not job.result.get("is_put"):
        _put_slice(job)
        _note(job, job.total - job.done, now)
        return job
    left = outbox.behind(job.put_at).count()
    if not left:
        if _is_whole(job):
            return _end(job, Job.State.DONE, now)
        job.result = {}  # perhaps one was just checked by the release before: looked through again
    _note(job, left, now)
    return job


def _put_slice(job: Job) -> None:
    limit = job.params.get("limit")
    size = SLICE if limit is None else min(SLICE, limit - job.total)
    behind = due(job).filter(pk__gt=job.result.get("put_up_to", 0)).order_by("pk")
    ids = list(behind.values_list("pk", flat=True)[: max(size, 0)])
    number = outbox.put_all(ids, is_background=True, now=job.put_at) if ids else 0
    job.total += number
    job.result = {
        "put_up_to": ids[-1] if ids else 0,
        "found": job.result.get("found", 0) + number,
        "is_put": len(ids) < SLICE,
    }


def _is_whole(job: Job) -> bool:
    limit = job.params.get("limit")
    return not job.result["found"] or (limit is not None and job.total >= limit)


def _note(job: Job, left: int, now: datetime) -> None:
    job.done = max(0, job.total - left)
    job.step = COMPARING if job.result.get("is_put") else PUTTING
    seconds = (now - (job.started_at or now)).total_seconds()
    job.seconds_left = left * seconds / job.done if job.done and job.result.get("is_put") else None
    job.save()


def _end(job: Job, state: str, now: datetime) -> Job:
    job.state, job.ended_at, job.seconds_left, job.step = state, now, None, ""
    if state == Job.State.DONE:
        job.done = job.total
    job.result = report(job, now=now)
    job.save()
    return job


def report(job: Job, *, now: datetime | None = None) -> dict[str, Any]:
    """What came of a job: figures, and the ids of the questions of the largest clusters.

    All are of the checks of this job alone: what people asked meanwhile, and what was flagged
    before, is not in them.
    """
    begun, ended = job.started_at or job.put_at, job.ended_at or now or timezone.now()
    entries = OutboxEntry.objects.filter(put_at=job.put_at, is_background=True)
    flags = found_by(job)
    joined = clusters(flags)
    return {
        "questions": entries.filter(settled_at__isnull=False).count(),
        "unchecked": entries.quarantined().count(),
        "flagged": flags.count(),
        "likely": likely(flags).count(),
        "open": flags.open().count(),
        "clusters": len(joined),
        "pairs": sum(len(members) == 2 for members in joined),
        "largest": joined[:LARGEST],
        "seconds": round((ended - begun).total_seconds(), 1),
    }


def found_by(job: Job) -> FlagQuerySet:
    """Pairs that checks of this job flagged: a check settles its entry at the moment at which it
    flags, and the entry keeps the moment at which the job put it, until its question is edited."""
    checks = OutboxEntry.objects.filter(
        Q(question=OuterRef("older")) | Q(question=OuterRef("newer")),
        put_at=job.put_at, is_background=True, settled_at=OuterRef("flagged_at"),
    )  # fmt: skip
    begun = job.started_at or job.put_at
    return Flag.objects.flagged().filter(Exists(checks), flagged_at__gte=begun)


def likely(flags: FlagQuerySet) -> FlagQuerySet:
    """Those that their release is sure of."""
    return flags.filter(probability__gte=F("release__sure_threshold"))


def clusters(flags: FlagQuerySet) -> list[list[int]]:
    """Ids of the questions that the likely ones of these flags hold together, largest first."""
    return components(list(likely(flags).values_list("older_id", "newer_id")))


def components(edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """What edges join, largest first, ids in order."""
    groups = Groups()
    for low, high in edges:
        groups.join(low, high, most=None)
    joined: dict[int, list[int]] = {}
    for one in sorted({end for edge in edges for end in edge}):
        joined.setdefault(groups.name_of(one), []).append(one)
    return sorted(joined.values(), key=lambda group: (-len(group), group))


@dataclass(frozen=True)
class Estimate:
    """What a job will cost, at most: pairs that were scored before cost nothing."""

    questions: int
    pairs: int
    seconds: float  # of one worker process

    @property
    def minutes(self) -> float:
        return self.seconds / 60


def estimate(job: Job, *, release: Release, scorer: Scorer) -> Estimate:
    """Measure on some of this portal's questions how long a job will take (it need not be stored).

    A sample of its texts is embedded, a few of them are compared as with all questions: what is
    the fiftieth nearest of ten thousand is about the second nearest of four hundred.
    """
    wanted, everything = due(job), Question.objects.count()
    number, limit = wanted.count(), job.params.get("limit")
    number = number if limit is None else min(number, limit)
    sample = [text_of(question) for question in wanted.order_by("?")[:SAMPLE]]
    if len(sample) < 2:
        return Estimate(number, 0, 0.0)
    begun = time.perf_counter()
    vectors = scorer.embed([text.input for text in sample])
    embedding = (time.perf_counter() - begun) / len(sample)
    width = min(settings.DEDUP_SHORTLIST, everything - 1)
    ranks = [math.ceil(rank * len(sample) / everything) for rank in range(1, width + 1)]
    begun, asked = time.perf_counter(), min(ASKED, len(sample))
    for text, vector in zip(sample[:asked], vectors, strict=False):
        likeness = vectors @ vector
        nearest = np.argsort(-likeness)[1:]  # the first is itself
        others = [int(nearest[min(rank, len(nearest)) - 1]) for rank in ranks]
        pairs = [Pair(text.input, sample[other].input) for other in others]
        scorer.judge(pairs, [float(likeness[other]) for other in others])
        shortlist.draw(
            Question.objects.exclude(pk=text.question_id),
            text=text.input,
            vector=vector,
            fingerprint=release.embedding_fingerprint,
            limit=settings.DEDUP_SHORTLIST,
        )
    comparing = (time.perf_counter() - begun) / asked
    return Estimate(number, number * width, number * (embedding + comparing))
