"""Doors for the worker: three lines each, safe to repeat and to overlap."""

import logging
from datetime import timedelta

from allauth.usersessions.models import UserSession
from celery import shared_task
from django.contrib.sessions.models import Session
from django.utils import timezone

from support import guests, inbound, notifications, quota
from support.models import IdempotencyRecord

log = logging.getLogger(__name__)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_notifications(**_: object) -> None:
    """Send the mails that are due."""
    notifications.send_due(now=timezone.now())


# No soft limit: raised while a mail is read, it would look as if that mail could not be read.
@shared_task(ignore_result=True, time_limit=300)
def fetch_mail(**_: object) -> None:
    """Take the replies that wait in the mailbox, where there is one."""
    try:
        inbound.fetch(now=timezone.now())
    except inbound.MailboxAway as error:
        log.warning("The mailbox cannot be reached: %s", error)


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def send_confirmations(**_: object) -> None:
    """Send guests the mails by which they confirm their address."""
    guests.send_due(now=timezone.now())


@shared_task(ignore_result=True, soft_time_limit=50, time_limit=60)
def tidy(**_: object) -> None:
    """Forget what is kept for a time only, and browsers whose sessions have ended."""
    now = timezone.now()
    IdempotencyRecord.objects.filter(created_at__lt=now - timedelta(hours=24)).delete()
    guests.tidy(now=now)
    inbound.tidy(now=now)
    quota.tidy(now=now)
    Session.objects.filter(expire_date__lt=now).delete()
    UserSession.objects.exclude(session_key__in=Session.objects.values("session_key")).delete()
