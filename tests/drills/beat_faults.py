"""Beat rings twice, or not at all."""

import re
from collections import Counter
from random import Random

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection
from django.utils import timezone

from dedup.models import Alert, Delivery, Flag
from support import answering, guests, merging, outbox
from support.models import GuestRequest, Notification, OutboxEntry, Product, Question, User
from support.permissions import ADMIN, AGENT
from tests.drills import outcome
from tests.drills.load import Load
from tests.drills.outcome import Outcome
from tests.drills.portal import Portal

CHECKS, MAIL = ("checks-1", "checks-2"), ("mail-1", "mail-2")
SELDOM = ["look_at_bounds", "choose_pairs", "send_alerts"]
UNBEATEN_SECONDS = 60.0  # what may be late without beat, and is checked nevertheless
Status, State = Notification.Status, Delivery.State


def beats(portal: Portal, rng: Random, *, short: bool) -> Outcome:
    """Two workers of each kind and two beats, and then none: what beat rings for is counted."""
    found = Outcome()
    portal.environ |= {"ALERT_MAIL": "operator@example.com"}
    url = portal.start_web()
    for name in (*CHECKS, *MAIL):
        portal.start_worker(name)
    for name in ("beat-1", "beat-2"):
        portal.start_beat(name)
    load = Load([url], rng, pause=2.0, threads=2)
    _quarantine_one()
    with load:
        portal.wait(lambda: outcome.checked(portal) > 12, "first checks")
        _tell(load, rng, merges=True)
        for _ in range(2 if short else 6):
            for task in SELDOM:  # beat rings these every ten minutes or once a day: here both do
                for _beat in range(2):
                    outbox.send(f"dedup.tasks.{task}")
            portal.pause(8)
    portal.wait(lambda: not portal.bells(), "all bells are heard")
    portal.wait(lambda: not outcome.waiting(portal), "all are checked")
    doubled = _settled(portal, "two beats")

    for name in ("beat-1", "beat-2"):
        portal.kill(name)
    with load.again():
        portal.pause(5 if short else 60)
        _tell(load, rng, merges=False)
    late = portal.wait(lambda: not outcome.waiting(portal), "all are checked without beat")
    doubled += _settled(portal, "no beat")
    told = Counter(Notification.objects.values_list("status", flat=True))
    found.note(
        mails=told[Status.SENT], alerts=Delivery.objects.filter(state=State.SENT).count(),
        chosen=Flag.objects.open().filter(lane=Flag.Lane.CHOSEN).count(),
        confirmations=GuestRequest.objects.exclude(mailed_at=None).count(),
        recovery_seconds=late, doubled_mails=doubled,
    )  # fmt: skip
    _judge(found)
    found.count(portal, load, quarantined=1)
    return found


def _judge(found: Outcome) -> None:
    figures, most = found.figures, settings.DEDUP_CHOSEN_PER_DAY
    found.promise(holds=not figures["doubled_mails"], words="no mail leaves twice")
    for name in ("mails", "alerts", "chosen", "confirmations"):
        found.promise(holds=figures[name] > 0, words=f"there were {name}")
    found.promise(holds=figures["chosen"] <= most, words=f"at most {most} chosen pairs wait")
    late = figures["recovery_seconds"] <= UNBEATEN_SECONDS
    found.promise(holds=late, words=f"checked within {UNBEATEN_SECONDS:.0f} s without beat")
    opened = Counter(Alert.objects.open().values_list("rule", "subject"))
    found.promise(holds=set(opened.values()) == {1}, words="each alert is opened once")


def _quarantine_one() -> None:
    """A reason for an alert."""
    asker = User.objects.create(username="unlucky")
    given = {"title": "What kills all who read it", "asked_by": asker}
    question = Question.objects.create(product=Product.objects.get(slug="lamp"), **given)
    OutboxEntry.objects.create(question=question, quarantined_at=timezone.now(), attempts=3)


def _tell(load: Load, rng: Random, *, merges: bool) -> None:
    """Let people who asked be told of answers, guests confirm, and perhaps merges be told of."""
    now = timezone.now()
    helper, _ = User.objects.get_or_create(username="helper")
    helper.groups.add(Group.objects.get(name=AGENT), Group.objects.get(name=ADMIN))
    asked = list(Question.objects.filter(pk__in=load.accepted(), canonical=None)[:40])
    for person in {question.asked_by for question in asked}:
        address = f"{person.username}@example.com"
        User.objects.filter(pk=person.pk).update(email=address)
        EmailAddress.objects.get_or_create(
            user=person, email=address, defaults={"verified": True, "primary": True}
        )
    for question in rng.sample(asked, 6):
        answering.post_answer(question=question, body="Turn it to the left.", by=helper)
        guests.put_follow(
            email=f"guest{GuestRequest.objects.count()}@example.com", question=question,
            client=f"10.0.0.{question.pk % 200}", now=now,
        )  # fmt: skip
    if merges:
        first, second, *_rest = asked
        merging.merge(duplicate=second, canonical=first, by=User.objects.get(pk=helper.pk))
        Notification.objects.filter(due_at__gt=now).update(due_at=now)  # as if its time had come


def _settled(portal: Portal, when: str) -> int:
    """Wait until all news has left; return how many mails left more than once."""
    portal.wait(lambda: not _unsent(), f"all mails leave with {when}", seconds=60)
    connection.close()
    words = "\n".join(portal.log(name).read_text(errors="replace") for name in (*CHECKS, *MAIL))
    left = Counter(re.findall(r"Message-ID: <((?:news|alert)-\d+)@", words))
    left += Counter(re.findall(r"To: (guest\d+@)", words))
    sent = Notification.objects.filter(status=Status.SENT).count()
    sent += Delivery.objects.filter(state=State.SENT).count()
    sent += GuestRequest.objects.exclude(mailed_at=None).count()
    assert len(left) == sent, (len(left), sent)
    return sum(left.values()) - len(left)


def _unsent() -> bool:
    return (
        Notification.objects.filter(status__in=[Status.WAITING, Status.SENDING]).exists()
        or GuestRequest.objects.filter(mailed_at=None).exists()
        or Delivery.objects.filter(state=State.WAITING).exists()
    )
