"""Doors for the worker: they take ids or nothing, and may run twice or beside themselves."""

import logging
import os
from contextlib import suppress

from celery import current_app, shared_task
from celery.signals import worker_process_init
from django.conf import settings
from django.utils import timezone

from dedup import (
    alerts,
    backfilling,
    choosing,
    deflection,
    estimating,
    idle,
    pipeline,
    releases,
    reranking,
    scoring,
    timing,
)
from dedup.checks import HARD_LIMIT_SECONDS
from dedup.job_tasks import follow_in_shadow, run_jobs  # noqa: F401 - for a worker of all queues
from dedup.ml.artifact import ArtifactRefused
from support import outbox

log = logging.getLogger(__name__)


@shared_task(ignore_result=True, soft_time_limit=40, time_limit=HARD_LIMIT_SECONDS)
def check_waiting(**_: object) -> None:
    """Check what waits in the outbox; ring again while something is left."""
    backfilling.tend()
    try:
        settled = pipeline.check_waiting(limit=settings.DEDUP_BATCH)
    except (releases.NoRelease, ArtifactRefused) as error:
        log.warning("Questions wait: %s", error)
        return
    if outbox.has_waiting(timezone.now()):
        if settled:
            outbox.ring(is_patient=True)
    elif not settled:
        idle.tune()


@shared_task(ignore_result=True, soft_time_limit=20, time_limit=30, expires=5)
def suggest(draft_id: str, **_: object) -> None:
    """Find similar questions for a draft that somebody is writing."""
    reranking.answer(draft_id)


@shared_task(ignore_result=True, soft_time_limit=110, time_limit=120)
def choose_pairs(**_: object) -> None:
    """Ask about the pairs that a next release would learn most from."""
    with suppress(releases.NoRelease, ArtifactRefused):
        release, scorer = scoring.active_scorer()
        choosing.choose(release=release, scorer=scorer)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def score_labels(**_: object) -> None:
    """Have the release in service say what it thinks of judged pairs that it never met."""
    with suppress(releases.NoRelease, ArtifactRefused):
        estimating.score_labels(*scoring.active_scorer(), seconds=30)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def forget_deflections(**_: object) -> None:
    """Drop what is kept for a time only: what came of suggestions, stage times, alerts."""
    now = timezone.now()
    deflection.forget_old(now=now)
    timing.forget_old(now=now)
    alerts.forget_old(now=now)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def look_at_bounds(*, stands_in: bool = False, **_: object) -> None:
    """See whether a bound was crossed, and tell; a stand-in only if nobody else has for long."""
    now = timezone.now()
    if not stands_in or alerts.is_overdue(now=now):
        alerts.look(now=now)
        alerts.deliver_due(now=now)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_alerts(**_: object) -> None:
    """Send the messages about alerts that are due, as those that did not leave at once."""
    alerts.deliver_due(now=timezone.now())


@worker_process_init.connect
def load_networks(**_: object) -> None:
    """In each new child of a worker: somebody who waits for suggestions does not wait for this.

    A child that only checks lets those go first that somebody waits for.
    """
    queues = {"checks", "interactive"} & set(current_app.amqp.queues.consume_from)
    if not queues:
        return
    if queues == {"checks"}:
        os.nice(settings.DEDUP_NICENESS)
    try:
        scoring.active_scorer()
    except Exception as error:  # without a release, or a database, a later task tries again
        log.warning("The networks are not loaded yet: %s", error)
