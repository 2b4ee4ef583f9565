"""Who is told what. Rows are put in the transaction of what happened; mail leaves after it.

A row is claimed and committed before its mail is handed over, so that a crash in between shows as
"perhaps sent" and nobody ever gets the same mail twice.
"""

import logging
import smtplib
from collections.abc import Iterable
from datetime import datetime, timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone

from support.models import Acceptance, Answer, Merge, Notification, Question, Subscription, User

log = logging.getLogger(__name__)

UNDO_SECONDS = 30  # mail about what can be undone waits so long
UNKNOWN_AFTER = timedelta(minutes=10)  # a row "being sent" for longer belongs to a crash


def _reachable() -> QuerySet[User]:
    """Who wants mail and has confirmed their address: nobody else is ever written to."""
    confirmed = EmailAddress.objects.filter(
        user=OuterRef("pk"), email__iexact=OuterRef("email"), verified=True
    )
    return User.objects.filter(Exists(confirmed), is_active=True, wants_mail=True)


def told_of_merge(duplicate: Question, canonical: Question, *, by: User) -> list[User]:
    """Who hears of a merge: both askers and the duplicate's followers, but not who did it."""
    closing = Question.objects.of_threads(duplicate.pk)
    return list(
        _reachable()
        .filter(
            Q(pk__in=closing.values("asked_by"))
            | Q(pk=canonical.asked_by_id)
            | Q(subscriptions__question__in=closing)
        )
        .exclude(pk=by.pk)
        .distinct()
        .order_by("pk")
    )


def put_merged(edge: Merge, recipients: Iterable[User], *, now: datetime) -> None:
    """Note who is to be told of a merge, once it can no longer be undone unnoticed."""
    Notification.objects.bulk_create(
        Notification(
            kind=Notification.Kind.MERGED,
            recipient=person,
            question=edge.duplicate,
            merge=edge,
            due_at=now + timedelta(seconds=UNDO_SECONDS),
        )
        for person in recipients
    )


def cancel_merged(edge: Merge) -> None:
    """Forget the mails of a merge that have not left yet."""
    edge.notifications.filter(status=Notification.Status.WAITING).update(
        status=Notification.Status.CANCELLED
    )


def renew_merged(edge: Merge, *, now: datetime) -> None:
    """Let the mails of a merge that is in force again leave after all, if they had not left."""
    edge.notifications.filter(status=Notification.Status.CANCELLED).update(
        status=Notification.Status.WAITING, due_at=now + timedelta(seconds=UNDO_SECONDS)
    )


def put_answered(answer: Answer, *, now: datetime) -> None:
    """Note the followers of the thread, each once. Whether they may read it is asked on sending."""
    thread = Question.objects.of_threads(answer.question_id)
    subscribers = Subscription.objects.filter(question__in=thread).values("subscriber")
    followers = _reachable().filter(pk__in=subscribers).exclude(pk=answer.written_by_id)
    Notification.objects.bulk_create(
        Notification(
            kind=Notification.Kind.ANSWER,
            recipient=person,
            question=answer.question,
            answer=answer,
            due_at=now,
        )
        for person in followers
    )


def put_accepted(acceptance: Acceptance, *, now: datetime) -> None:
    """Note the writer of an accepted answer."""
    writer = acceptance.answer.written_by
    is_told = writer.pk != acceptance.question.asked_by_id
    if is_told and _reachable().filter(pk=writer.pk).exists():
        Notification.objects.get_or_create(
            kind=Notification.Kind.ACCEPTED,
            recipient=writer,
            answer=acceptance.answer,
            defaults={"question": acceptance.question, "due_at": now},
        )


def send_due(*, now: datetime, limit: int = 100) -> int:
    """Send the mails that are due; return how many left. Safe to run beside itself.

    Raises OSError where the mail server cannot be reached: then nothing was claimed, and all
    wait for the next run.
    """
    _give_up_crashed(now)
    if not _due(now).exists():
        return 0
    sent = 0
    with get_connection() as server:
        for _ in range(limit):
            notification = _claim(now)
            if notification is None:
                break
            try:
                sent += _send(notification, server)
            except OSError as error:  # smtplib's are OSErrors too; the row stays "being sent"
                log.warning("Mail %s: %s", notification.pk, type(error).__name__)
                if not isinstance(
                    error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused
                ):
                    break  # the server is gone: the others wait for the next run
    return sent


def _due(now: datetime) -> QuerySet[Notification]:
    return Notification.objects.filter(status=Notification.Status.WAITING, due_at__lte=now)


@transaction.atomic
def _claim(now: datetime) -> Notification | None:
    notification = _due(now).order_by("due_at").select_for_update(skip_locked=True).first()
    if notification:
        notification.status, notification.sent_at = Notification.Status.SENDING, now
        notification.save(update_fields=["status", "sent_at"])
    return notification


def _send(notification: Notification, server: BaseEmailBackend) -> bool:
    recipient = notification.recipient
    readable = Question.objects.visible_to(recipient).filter(pk=notification.question_id).exists()
    undone = notification.merge is not None and not notification.merge.is_in_force
    wants = _reachable().filter(pk=recipient.pk).exists()  # may have changed since the row was put
    if undone or not readable or not wants:
        notification.status = Notification.Status.CANCELLED
    else:
        subject, _, body = _render(notification).partition("\n")
        to = [recipient.email]
        subject = " ".join(subject.split())  # a header is one line, whatever a title holds
        EmailMessage(subject, body.strip() + "\n", to=to, connection=server).send()
        notification.status = Notification.Status.SENT
        notification.sent_at = timezone.now()
    notification.save(update_fields=["status", "sent_at"])
    return notification.status == Notification.Status.SENT


def _render(notification: Notification) -> str:
    """The mail: its first line is the subject."""
    return render_to_string(
        f"support/mail/{notification.kind}.txt",
        {"notification": notification, "site": settings.SITE_URL.rstrip("/")},
    )


def _give_up_crashed(now: datetime) -> None:
    Notification.objects.filter(
        status=Notification.Status.SENDING, sent_at__lt=now - UNKNOWN_AFTER
    ).update(status=Notification.Status.UNKNOWN)
