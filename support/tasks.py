"""Doors for the worker: three lines each, safe to repeat and to overlap."""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from support import guests, notifications
from support.models import IdempotencyRecord


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_notifications(**_: object) -> None:
    """Send the mails that are due."""
    notifications.send_due(now=timezone.now())


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_confirmations(**_: object) -> None:
    """Send guests the mails by which they confirm their address."""
    guests.send_due(now=timezone.now())


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def tidy(**_: object) -> None:
    """Forget what is kept for a day, or for a guest's few days, only."""
    now = timezone.now()
    IdempotencyRecord.objects.filter(created_at__lt=now - timedelta(hours=24)).delete()
    guests.tidy(now=now)
