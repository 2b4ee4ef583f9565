"""Bounds that are looked at every ten minutes, and who is told when one is crossed.

An alert opens once and closes when the value has come well back: between the two ends nothing is
said, so that a value which swings about its bound sends no second message. Messages are rows that
are tried again until they have left.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils import translation
from django.utils.formats import number_format

from dedup import drift, timing, watching, webhooks
from dedup.models import Alert, Delivery, Release
from dedup.timing import Stage
from support import audit, mailing
from support.models import User
from support.permissions import ADMIN

log = logging.getLogger(__name__)

EVERY = timedelta(minutes=10)
OVERDUE = timedelta(minutes=25)  # without a look for so long, another worker stands in
BACK = 0.8  # of a bound: an alert is over where the value is no higher
FEWEST = 20  # of what is counted within an hour; of fewer no alert is made
LATELY, BEFORE = timedelta(days=7), timedelta(days=56)  # whose acceptance is compared
LEASE = timedelta(minutes=2)  # while a message is being sent
SENDING_SECONDS = 20.0  # then the next run goes on: its worker has questions to check
PAUSES = [timedelta(minutes=n) for n in (1, 5, 30, 120, 300, 600, 600)]
KEPT = timedelta(days=365)
Rule, Channel, State = Alert.Rule, Delivery.Channel, Delivery.State


@dataclass(frozen=True)
class Reading:
    """A value beside its bound. Neither crossed nor over: what stands, stands."""

    value: float
    bound: float
    is_crossed: bool
    is_over: bool
    subject: str = ""


def rising(value: float, bound: float, subject: str = "") -> Reading:
    """A value that is bad where it is above its bound."""
    return Reading(value, bound, value > bound, value <= BACK * bound, subject)


# --- The rules --------------------------------------------------------------------------------


def unchecked(now: datetime) -> list[Reading]:
    """Somebody's question waits too long."""
    waits = watching.waiting(now=now)
    return [rising(waits.oldest_seconds, settings.ALERT_UNCHECKED_SECONDS)]


def quarantined(now: datetime) -> list[Reading]:
    """The machine has given a question up."""
    return [rising(watching.waiting(now=now).quarantined, 0)]


def no_worker(now: datetime) -> list[Reading]:
    """No worker that checks was seen; a check that was done by other means is a sign too."""
    seconds = watching.seconds_without_worker("checks", now=now)
    last = timing.last_seen().get(Stage.WRITE)
    since_write = (now - last).total_seconds() if last else None
    known = [one for one in (seconds, since_write) if one is not None]
    return [rising(min(known), settings.ALERT_WORKER_SECONDS)] if known else []


def slow_check(now: datetime) -> list[Reading]:
    """Of the questions of the last hour, 95 in 100 were checked too late."""
    found = timing.histograms(since=now - timedelta(hours=1), until=now).get(Stage.WAITED)
    if found is None or found.count < FEWEST or found.p95 is None:
        return []
    return [rising(found.p95, settings.ALERT_CHECK_SECONDS)]


def words_alone(now: datetime) -> list[Reading]:
    """Half of the suggestions of the last hour came without a worker."""
    found = watching.degraded(since=now - timedelta(hours=1), until=now)
    if found.suggestions < FEWEST:
        return []
    return [rising(found.by_words / found.suggestions, 0.5)]


def drifted(now: datetime) -> list[Reading]:
    """The active release's scores look otherwise, all together or in a segment."""
    release = Release.objects.filter(is_active=True).first()
    found = drift.drifts(release, now=now) if release else []
    return [
        Reading(
            one.psi, settings.ALERT_PSI,
            one.psi >= max(settings.ALERT_PSI, one.by_chance), one.psi <= BACK * settings.ALERT_PSI,
            f"{one.measure} {one.segment}".strip(),
        )
        for one in found
        if one.is_enough
    ]  # fmt: skip


def acceptance(now: datetime) -> list[Reading]:
    """People confirm fewer flags than before: the intervals of both shares lie apart."""
    lately = watching.acceptance(since=now - LATELY, until=now)
    before = watching.acceptance(since=now - BEFORE, until=now - LATELY)
    if min(lately.asked, before.asked) < FEWEST:
        return []
    bound = before.low_percent
    is_crossed = lately.high_percent < bound
    return [Reading(lately.percent, bound, is_crossed, lately.percent >= bound)]


RULES: Mapping[str, Callable[[datetime], Sequence[Reading]]] = {
    Rule.UNCHECKED: unchecked,
    Rule.QUARANTINED: quarantined,
    Rule.NO_WORKER: no_worker,
    Rule.SLOW_CHECK: slow_check,
    Rule.WORDS_ALONE: words_alone,
    Rule.DRIFT: drifted,
    Rule.ACCEPTANCE: acceptance,
}


def is_overdue(*, now: datetime) -> bool:
    """Whether nobody has looked at the bounds for a while."""
    last = timing.last_seen().get(Stage.WATCH)
    return last is None or last < now - OVERDUE


def look(*, now: datetime) -> list[Alert]:
    """Look at all bounds; return the alerts that were opened or closed. Safe to overlap."""
    drift.keep_baselines(now=now)
    changed = [one for rule, read in RULES.items() for one in _judge(rule, read(now), now)]
    timing.note_now(Stage.WATCH, 0, now=now)
    return changed


def _judge(rule: str, readings: Sequence[Reading], now: datetime) -> list[Alert]:
    """Open, renew or close the alerts of a rule. Where nothing can be read any more, it is over."""
    standing = {alert.subject: alert for alert in Alert.objects.open().filter(rule=rule)}
    changed = [_open(rule, one, now) for one in readings
               if one.is_crossed and one.subject not in standing]  # fmt: skip
    by_subject = {one.subject: one for one in readings}
    for subject, alert in standing.items():
        reading = by_subject.get(subject)
        if reading is None or reading.is_over:
            changed.append(_close(alert, now))
        else:
            _note_worst(alert, reading)
    return [alert for alert in changed if alert]


def _open(rule: str, reading: Reading, now: datetime) -> Alert | None:
    try:
        with transaction.atomic():
            alert = Alert.objects.create(
                rule=rule, subject=reading.subject, value=reading.value, worst=reading.value,
                bound=reading.bound, opened_at=now,
            )  # fmt: skip
            _put(alert, is_over=False, now=now)
    except IntegrityError:  # another look opened it at this moment
        return None
    return alert


@transaction.atomic
def _close(alert: Alert, now: datetime) -> Alert | None:
    if not Alert.objects.open().filter(pk=alert.pk).update(closed_at=now):
        return None
    alert.closed_at = now
    _put(alert, is_over=True, now=now)
    return alert


def _note_worst(alert: Alert, reading: Reading) -> None:
    direction = 1 if alert.value > alert.bound else -1
    if direction * (reading.value - alert.worst) > 0:
        Alert.objects.filter(pk=alert.pk).update(worst=reading.value)


# --- Who is told ------------------------------------------------------------------------------


def addresses() -> list[str]:
    """Who hears of alerts by mail: the addresses set, or admins with a confirmed address."""
    if settings.ALERT_MAIL:
        return list(settings.ALERT_MAIL)
    admins = User.objects.filter(
        is_active=True, groups__name=ADMIN, emailaddress__verified=True, emailaddress__primary=True
    ).exclude(mail_pace=User.MailPace.NONE)
    return list(admins.order_by("pk").values_list("emailaddress__email", flat=True).distinct())


def _put(alert: Alert, *, is_over: bool, now: datetime) -> None:
    channels = [Channel.MAIL] if addresses() else []
    channels += [Channel.WEBHOOK] if settings.ALERT_WEBHOOK else []
    Delivery.objects.bulk_create(
        Delivery(alert=alert, is_over=is_over, channel=channel, put_at=now, due_at=now)
        for channel in channels
    )


def deliver_due(*, now: datetime, limit: int = 20) -> int:
    """Send the messages that are due; return how many left. Safe to run beside itself.

    Where nobody knows whether one left, it is sent again: rather twice than never. A receiver that
    does not take one is not asked for the others in this run.
    """
    _give_up(now)
    sent, channels, begun = 0, set(Channel), time.monotonic()
    for _ in range(limit):
        is_over = time.monotonic() - begun > SENDING_SECONDS
        delivery = None if is_over else _claim(channels, now)
        if delivery is None:
            break
        if _deliver(delivery, now):
            sent += 1
        else:
            channels.discard(Channel(delivery.channel))
    return sent


def _give_up(now: datetime) -> None:
    """End those whose last try was cut off, as by the death of its worker."""
    due = Delivery.objects.filter(state=State.WAITING, due_at__lte=now)
    number = due.filter(attempts__gt=len(PAUSES)).update(state=State.FAILED, said="cut off")
    if number:
        log.error("%d messages about alerts are given up: their tries were cut off", number)


@transaction.atomic
def _claim(channels: Collection[str], now: datetime) -> Delivery | None:
    due = Delivery.objects.filter(state=State.WAITING, due_at__lte=now, channel__in=channels)
    due = due.order_by("due_at", "pk")
    delivery = due.select_for_update(skip_locked=True, of=["self"]).select_related("alert").first()
    if delivery:
        delivery.attempts += 1
        delivery.tried_at, delivery.due_at = now, now + LEASE
        delivery.save(update_fields=["attempts", "tried_at", "due_at"])
    return delivery


def _deliver(delivery: Delivery, now: datetime) -> bool:
    try:
        said = _post(delivery, now) if delivery.channel == Channel.WEBHOOK else _mail(delivery)
    except (webhooks.AddressRefused, mailing.Refused) as error:
        _end(delivery, State.FAILED, str(error) or "refused")
        return False
    except (webhooks.NotTaken, mailing.PutOff, OSError) as error:
        _put_off(delivery, str(error) or type(error).__name__, now)
        return False
    _end(delivery, State.SENT, said)
    return True


def _end(delivery: Delivery, state: str, said: str) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(state=state, said=said[:100])


def _put_off(delivery: Delivery, said: str, now: datetime) -> None:
    if delivery.attempts > len(PAUSES):
        log.error(
            "Alert %s is given up after %d tries: %s", delivery.alert_id, delivery.attempts, said
        )
        _end(delivery, State.FAILED, said)
        return
    log.warning("Alert %s is not told yet: %s", delivery.alert_id, said)
    due = now + PAUSES[delivery.attempts - 1]
    Delivery.objects.filter(pk=delivery.pk).update(due_at=due, said=said[:100])


def message(delivery: Delivery) -> dict[str, Any]:
    """What a program is told: ids, names of rules, numbers and times."""
    alert = delivery.alert
    at = alert.closed_at if delivery.is_over else alert.opened_at
    return {
        "type": "alert.closed" if delivery.is_over else "alert.opened",
        "timestamp": _time(at),
        "data": {
            "alert": alert.pk, "rule": alert.rule, "subject": alert.subject,
            "value": alert.value, "worst": alert.worst, "bound": alert.bound,
            "opened_at": _time(alert.opened_at), "closed_at": _time(alert.closed_at),
        },
    }  # fmt: skip


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else None


def _post(delivery: Delivery, now: datetime) -> str:
    if not settings.ALERT_WEBHOOK:
        raise webhooks.AddressRefused("no address is set any more")
    if not webhooks.is_secret(settings.ALERT_WEBHOOK_SECRET):
        raise webhooks.AddressRefused("no secret that signs")
    status = webhooks.send(
        settings.ALERT_WEBHOOK,
        message(delivery),
        key=f"alert-{delivery.pk}",
        secret=settings.ALERT_WEBHOOK_SECRET,
        now=now,
        allows_private=settings.ALERT_WEBHOOK_PRIVATE,
    )
    return f"HTTP {status}"


def _mail(delivery: Delivery) -> str:
    to = addresses()
    if not to:
        raise mailing.Refused("nobody to write to")
    mailing.hand_over(composed(delivery, to))
    return str(len(to))


def composed(delivery: Delivery, to: Sequence[str]) -> EmailMessage:
    """The mail about an alert: what was measured, never what somebody wrote."""
    alert = delivery.alert
    with translation.override(settings.LANGUAGE_CODE):
        context = {
            "alert": alert,
            "is_over": delivery.is_over,
            "subject": subject_label(alert),
            "value": in_words(alert, alert.worst if delivery.is_over else alert.value),
            "bound": in_words(alert, alert.bound),
            "link": settings.SITE_URL.rstrip("/") + _monitoring(),
        }
        text = render_to_string("dedup/mail/alert.txt", context)
    subject, _newline, body = text.strip().partition("\n")
    sign = {"Message-ID": f"<alert-{delivery.pk}@{mailing.host()}>", **mailing.FOLLOWS_RULES}
    return EmailMessage(subject.strip(), body.strip() + "\n", to=list(to), headers=sign)


def _monitoring() -> str:
    try:
        return reverse("monitoring")
    except NoReverseMatch:  # a worker without pages
        return "/"


@transaction.atomic
def redeliver(*, delivery: Delivery, by: User, now: datetime) -> None:
    """Send a message once more, with the same id."""
    Delivery.objects.filter(pk=delivery.pk).update(state=State.WAITING, attempts=0, due_at=now)
    audit.record("alert_redelivered", by=by, now=now, alert=delivery.alert_id)


def forget_old(*, now: datetime) -> int:
    """Drop alerts that were over more than a year ago, with what was sent about them."""
    return Alert.objects.filter(closed_at__lt=now - KEPT).delete()[0]


# --- In words ---------------------------------------------------------------------------------

SECONDS = {Rule.UNCHECKED, Rule.NO_WORKER, Rule.SLOW_CHECK}


def in_words(alert: Alert, value: float) -> str:
    """A value of this alert as people read it."""
    if alert.rule in SECONDS:
        return translation.ngettext("%(n)s second", "%(n)s seconds", round(value)) % {
            "n": round(value)
        }
    if alert.rule == Rule.QUARANTINED:
        return str(round(value))
    if alert.rule == Rule.DRIFT:
        return number_format(value, 2)
    share = value if alert.rule == Rule.ACCEPTANCE else 100 * value
    return translation.gettext("%(number)s %%") % {"number": round(share)}


def subject_label(alert: Alert) -> str:
    """What an alert is about, beside its rule; "" where the rule says it all."""
    return subject_labels([alert])[alert.pk]


def subject_labels(alerts: Iterable[Alert]) -> dict[int, str]:
    """The same of many, by their ids."""
    parted = {alert.pk: alert.subject.partition(" ") for alert in alerts}
    names = drift.labels_of(segment for _measure, _space, segment in parted.values())
    measures = dict(drift.Baseline.Measure.choices)
    return {
        pk: f"{measures[measure]}: {names[segment]}" if measure in measures else ""
        for pk, (measure, _space, segment) in parted.items()
    }
