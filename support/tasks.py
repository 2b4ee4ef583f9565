"""Doors for the worker: three lines each, safe to repeat and to overlap."""

from datetime import timedelta

from allauth.usersessions.models import UserSession
from celery import shared_task
from django.contrib.sessions.models import Session
from django.utils import timezone

from support import notifications
from support.models import IdempotencyRecord


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_notifications(**_: object) -> None:
    """Send the mails that are due."""
    notifications.send_due(now=timezone.now())


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def tidy(**_: object) -> None:
    """Forget what is kept for a day only, and browsers whose sessions have ended."""
    now = timezone.now()
    IdempotencyRecord.objects.filter(created_at__lt=now - timedelta(hours=24)).delete()
    Session.objects.filter(expire_date__lt=now).delete()
    UserSession.objects.exclude(session_key__in=Session.objects.values("session_key")).delete()
