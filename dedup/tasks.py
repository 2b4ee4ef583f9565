"""Doors for the worker: they take ids or nothing, and may run twice or beside themselves."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from dedup import pipeline, reranking
from support import outbox


@shared_task(ignore_result=True, soft_time_limit=40, time_limit=45)
def check_waiting(**_: object) -> None:
    """Check what waits in the outbox; ring again while something is left."""
    if pipeline.check_waiting(limit=settings.DEDUP_BATCH) and outbox.has_waiting(timezone.now()):
        outbox.ring()


@shared_task(ignore_result=True, soft_time_limit=5, time_limit=10, expires=5)
def suggest(draft_id: str, **_: object) -> None:
    """Find similar questions for a draft that somebody is writing."""
    reranking.answer(draft_id)
