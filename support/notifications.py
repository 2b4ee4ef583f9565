"""Who is told what. Rows are put in the transaction of what happened; mail leaves after it.

A row is claimed and committed before its mail is handed over, so that a crash in between shows as
"perhaps sent" and nobody ever gets the same mail twice.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from allauth.account.models import EmailAddress
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from support import mailing, outbox
from support.models import (
    Acceptance,
    Answer,
    MailStop,
    Merge,
    Notification,
    Question,
    Subscription,
    User,
)

log = logging.getLogger(__name__)

UNDO_SECONDS = 30  # mail about what can be undone waits so long
UNKNOWN_AFTER = timedelta(minutes=10)  # a row "being sent" for longer belongs to a crash
MOST_ATTEMPTS = 8  # with pauses that double from five minutes: most of a day
FIRST_PAUSE = timedelta(minutes=5)
SEND_TASK = "support.tasks.send_notifications"
BELL_SECONDS = 30  # a bell that nobody heard by then is worth nothing: beat rings again

Status = Notification.Status
WANTS_MAIL = Q(is_active=True) & ~Q(mail_pace=User.MailPace.NONE)
DAILY = Q(recipient__mail_pace=User.MailPace.DAILY)


def ring() -> bool:
    """Let what is due leave at once; where no broker answers, beat rings later."""
    return outbox.send(SEND_TASK, queue="mail", expires=BELL_SECONDS)


def _reachable() -> QuerySet[User]:
    """Who wants mail and has confirmed their address: nobody else is ever written to."""
    confirmed = EmailAddress.objects.filter(
        user=OuterRef("pk"), email__iexact=OuterRef("email"), verified=True
    )
    return User.objects.filter(Exists(confirmed), WANTS_MAIL)


def told_of_merge(duplicate: Question, canonical: Question, *, by: User) -> list[User]:
    """Who hears of a merge: both askers and the duplicate's followers, but not who did it."""
    closing = Question.objects.of_threads(duplicate.pk)
    follows = Subscription.objects.filter(subscriber=OuterRef("pk"), question__in=closing)
    stopped = MailStop.objects.filter(
        Q(question__in=closing) | Q(question=canonical), person=OuterRef("pk")
    )
    return list(
        _reachable()
        .filter(
            Q(pk__in=closing.values("asked_by"))
            | Q(pk=canonical.asked_by_id)
            | Q(subscriptions__question__in=closing)
        )
        .exclude(pk=by.pk)
        .filter(Exists(follows) | ~Exists(stopped))
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
    edge.notifications.filter(status=Status.WAITING).update(status=Status.CANCELLED)


def renew_merged(edge: Merge, *, now: datetime) -> None:
    """Let the mails of a merge that is in force again leave after all, if they had not left."""
    edge.notifications.filter(status=Status.CANCELLED).update(
        status=Status.WAITING, due_at=now + timedelta(seconds=UNDO_SECONDS)
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
    transaction.on_commit(ring, robust=True)


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
        transaction.on_commit(ring, robust=True)


@transaction.atomic
def stop(*, question: Question, by: User, now: datetime) -> None:
    """Send this person nothing more about the thread, until they follow or answer it again."""
    thread = list(Question.objects.of_threads(question.pk))
    Subscription.objects.filter(question__in=thread, subscriber=by).delete()
    MailStop.objects.bulk_create(
        [MailStop(person=by, question=member, stopped_at=now) for member in thread],
        ignore_conflicts=True,
    )


def stop_all(*, by: User) -> None:
    """Send this person no mail at all, until they choose otherwise."""
    User.objects.filter(pk=by.pk).update(mail_pace=User.MailPace.NONE)


def cancel_of(person: User) -> None:
    """Forget the mails to a person that have not left, and those to others about their answers."""
    waiting = Notification.objects.filter(status=Notification.Status.WAITING)
    waiting.filter(Q(recipient=person) | Q(answer__written_by=person)).update(
        status=Notification.Status.CANCELLED
    )


def send_due(*, now: datetime, limit: int = 100) -> int:
    """Send the mails that are due; return how many left. Safe to run beside itself.

    Raises OSError where the mail server cannot be reached: then nothing was claimed, and all
    wait for the next run. What was being sent when it went away stays "being sent".
    """
    _give_up_crashed(now)
    if not _due(now).exists():
        return 0

    def claim() -> list[Notification]:
        return _claim(now) or _claim_digest(now)

    return mailing.deliver(claim, partial(_send, now=now), limit=limit)


def overdue(now: datetime) -> int:
    """How many mails were due by then and have not left."""
    return _due(now).count()


def _due(now: datetime) -> QuerySet[Notification]:
    """What may leave: at once, or for those who want one mail a day, once that hour has come."""
    its_time = ~DAILY | Q(due_at__lte=mailing.digest_moment(now)) | Q(attempts__gt=0)
    return Notification.objects.filter(its_time, status=Status.WAITING, due_at__lte=now)


@transaction.atomic
def _claim(now: datetime) -> list[Notification]:
    """Take the next mail of those that leave one by one."""
    due = _due(now).exclude(DAILY).order_by("due_at", "pk")
    return _mark_sending(due.select_for_update(skip_locked=True, of=["self"])[:1], now)


@transaction.atomic
def _claim_digest(now: datetime) -> list[Notification]:
    """Take all that is due for one person; who sends to them meanwhile skips them."""
    due = _due(now).filter(DAILY)
    people = User.objects.filter(Exists(due.filter(recipient=OuterRef("pk"))))
    person = people.order_by("pk").select_for_update(skip_locked=True, no_key=True).first()
    if person is None:
        return []
    theirs = due.filter(recipient=person).order_by("due_at", "pk")
    return _mark_sending(theirs.select_for_update(of=["self"]), now)


def _mark_sending(rows: Iterable[Notification], now: datetime) -> list[Notification]:
    claimed = list(rows)
    _mark(claimed, Status.SENDING, at=now)
    return claimed


def _mark(rows: Sequence[Notification], status: str, *, at: datetime) -> None:
    Notification.objects.filter(pk__in=[row.pk for row in rows]).update(status=status, sent_at=at)


def _send(claimed: Sequence[Notification], server: BaseEmailBackend, *, now: datetime) -> bool:
    told = [news for news in claimed if _is_still_news(news)]
    _mark([news for news in claimed if news not in told], Status.CANCELLED, at=now)
    if not told:
        return False
    try:
        mailing.hand_over(mailing.compose(told, server))
    except mailing.PutOff as error:
        log.warning("Mail %s is put off: %s", told[0].pk, type(error.__cause__).__name__)
        _put_off(told, now=now)
        return False
    except mailing.Refused as error:
        log.warning("Mail %s is refused: %s", told[0].pk, type(error.__cause__).__name__)
        _mark(told, Status.REFUSED, at=now)
        return False
    _mark(told, Status.SENT, at=timezone.now())
    return True


def _is_still_news(news: Notification) -> bool:
    """Whether it may be told, as everything stands now; much may have changed since it was put."""
    if news.merge and not news.merge.is_in_force:
        return False
    if not _reachable().filter(pk=news.recipient_id).exists():
        return False
    named = {news.question_id, news.merge.canonical_id if news.merge else news.question_id}
    readable = Question.objects.visible_to(news.recipient).filter(pk__in=named)
    return readable.count() == len(named) and not _is_stopped(news)


def _is_stopped(news: Notification) -> bool:
    concerned = [news.question_id]
    if news.merge and news.merge.canonical.asked_by_id == news.recipient_id:
        concerned.append(news.merge.canonical_id)
    if not MailStop.objects.filter(person=news.recipient, question__in=concerned).exists():
        return False
    # After a merge its thread has other questions too, which may be followed for their own sake.
    near = Question.objects.filter(pk__in=concerned)
    near = near if news.merge else Question.objects.of_threads(*concerned)
    return not Subscription.objects.filter(subscriber=news.recipient, question__in=near).exists()


def _put_off(rows: Sequence[Notification], *, now: datetime) -> None:
    for row in rows:
        is_last = row.attempts + 1 >= MOST_ATTEMPTS
        Notification.objects.filter(pk=row.pk).update(
            status=Status.REFUSED if is_last else Status.WAITING,
            attempts=F("attempts") + 1,
            due_at=now + FIRST_PAUSE * 2**row.attempts,
        )


def _give_up_crashed(now: datetime) -> None:
    Notification.objects.filter(status=Status.SENDING, sent_at__lt=now - UNKNOWN_AFTER).update(
        status=Status.UNKNOWN
    )
