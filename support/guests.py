"""People without an account ask and follow. What they send waits until their address is confirmed.

Until then nobody reads it, nothing is checked, and no account is made. Whether an address is known
here is said to nobody but who reads its mail.
"""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, Group
from django.core import signing
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation

from support import answering, asking, audit, mailing, outbox, quota
from support.models import GuestRequest, Product, Question, User
from support.permissions import CUSTOMER

log = logging.getLogger(__name__)

PAUSE = timedelta(minutes=5)  # before a mail that did not leave, as far as is known, is sent again
LIFE = timedelta(days=3)  # of a request, and of the link in its mail
PER_ADDRESS = quota.Quota("guest_address", most=5, seconds=3600)
PER_CLIENT = quota.Quota("guest_client", most=20, seconds=3600)
SALT = "support.guests.confirm"
SEND_TASK = "support.tasks.send_confirmations"


class TooMany(Exception):
    """So many requests came from this client, or for this address, that the next has to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class LinkGone(Exception):
    """The link is too old, or what it is about is no longer there to be read."""


class AccountClosed(Exception):
    """The address belongs to somebody who may not come in any more."""


@dataclass(frozen=True)
class Confirmed:
    """What a confirmed request led to; `person` only the first time, when it was done."""

    question: Question
    person: User | None = None


def put_question(
    *,
    email: str,
    product: Product,
    title: str,
    body: str,
    audience: str,
    client: str,
    now: datetime,
) -> GuestRequest:
    """Keep a question until `email` is confirmed. `client` is the address that it came from.

    Raises ValidationError, TooMany.
    """
    waiting = GuestRequest(
        kind=GuestRequest.Kind.QUESTION, product=product, title=title.strip(), body=body.strip(),
        audience=audience,
    )  # fmt: skip
    return _put(waiting, email, client, now)


def put_follow(*, email: str, question: Question, client: str, now: datetime) -> GuestRequest:
    """Keep the wish to follow a question until `email` is confirmed.

    Raises ValidationError, TooMany.
    """
    waiting = GuestRequest(kind=GuestRequest.Kind.FOLLOW, question=question)
    return _put(waiting, email, client, now)


def _put(waiting: GuestRequest, email: str, client: str, now: datetime) -> GuestRequest:
    waiting.email = email.strip().lower()
    waiting.put_at = waiting.mail_due_at = now
    waiting.mail_language = translation.get_language() or settings.LANGUAGE_CODE
    waiting.full_clean()
    _spend(PER_CLIENT, client, now)
    _spend(PER_ADDRESS, waiting.email, now)
    with transaction.atomic():
        waiting.save()
        transaction.on_commit(ring, robust=True)
    return waiting


def _spend(allowed: quota.Quota, spender: str, now: datetime) -> None:
    if seconds := quota.spend(allowed, spender=spender, now=now):
        raise TooMany(seconds)


def ring() -> bool:
    """Have the confirming mails sent now; where the broker is away, the next round sends them."""
    return outbox.send(SEND_TASK)


def token(waiting: GuestRequest) -> str:
    """What proves that somebody reads the mail of this request."""
    return signing.dumps(waiting.pk, salt=SALT)


def read(token: str) -> GuestRequest:
    """The request that a token from a mail is about.

    Raises signing.BadSignature where it is none of ours, LinkGone where it is too old.
    """
    try:
        pk = signing.loads(token, salt=SALT, max_age=LIFE)
        return GuestRequest.objects.select_related("product", "question").get(pk=pk)
    except (signing.SignatureExpired, GuestRequest.DoesNotExist) as error:
        raise LinkGone from error


@transaction.atomic
def confirm(*, request: GuestRequest, by: User | AnonymousUser, now: datetime) -> Confirmed:
    """Do what was asked for, in the name of the person whose address it is; a second time, only
    say where that is. `by` is who is signed in where the link was opened.

    Raises LinkGone, AccountClosed.
    """
    waiting = GuestRequest.objects.select_for_update().filter(pk=request.pk).first()
    if waiting is None:
        raise LinkGone
    if waiting.confirmed_at and waiting.question:
        return Confirmed(waiting.question)
    person = _person(waiting.email, by, now)
    if not person.is_active:
        raise AccountClosed
    question = _fulfil(waiting, person, now)
    waiting.question, waiting.product, waiting.title, waiting.body = question, None, "", ""
    waiting.confirmed_at = now
    waiting.save()
    return Confirmed(question, person)


def _fulfil(waiting: GuestRequest, person: User, now: datetime) -> Question:
    if waiting.kind == GuestRequest.Kind.QUESTION:
        assert waiting.product
        return asking.submit_question(
            product=waiting.product, title=waiting.title, body=waiting.body,
            audience=waiting.audience, by=person, now=now,
        )  # fmt: skip
    question = Question.objects.visible_to(person).filter(guest_requests=waiting).first()
    if question is None:  # it became private meanwhile
        raise LinkGone
    answering.set_following(question=question, by=person, wanted=True)
    return question


def _person(email: str, by: User | AnonymousUser, now: datetime) -> User:
    try:
        with transaction.atomic():
            return _owner(email, by, now) or _new_guest(email, now)
    except IntegrityError:  # another request of the same address was confirmed at this moment
        owner = _owner(email, by, now)
        if owner is None:
            raise
        return owner


def _owner(email: str, by: User | AnonymousUser, now: datetime) -> User | None:
    """The account of this address, its address confirmed from now on.

    Somebody may have signed up with an address that they never showed to be theirs, and know the
    password of that account: they lose the address, and read nothing that its owner writes.
    """
    confirmed = EmailAddress.objects.filter(email=email, verified=True).select_related("user")
    if found := confirmed.first():
        owner: User = found.user
        return owner
    claimant = User.objects.filter(email__iexact=email).first()
    if claimant is None:
        return None
    claim = EmailAddress.objects.filter(user=claimant, email__iexact=email).first()
    if claim and not claimant.is_guest and claimant.pk != by.pk:
        claim.delete()
        User.objects.filter(pk=claimant.pk).update(email="")
        audit.record("address_withdrawn", by=None, now=now, person=claimant.pk)
        return None
    _confirm_address(claimant, email)
    return claimant


def _new_guest(email: str, now: datetime) -> User:
    guest = User(username=f"guest-{secrets.token_hex(8)}", email=email, is_guest=True)
    guest.set_unusable_password()
    guest.date_joined = now
    guest.save()
    guest.groups.add(Group.objects.get_or_create(name=CUSTOMER)[0])
    _confirm_address(guest, email)
    return guest


def _confirm_address(person: User, email: str) -> None:
    has_other = EmailAddress.objects.filter(user=person, primary=True).exclude(email=email).exists()
    EmailAddress.objects.update_or_create(
        user=person, email=email, defaults={"verified": True, "primary": not has_other}
    )


def send_due(*, now: datetime, limit: int = 100) -> int:
    """Send the confirming mails that are due; return how many left. Safe to run beside itself.

    A second one does no harm, a lost one loses a question: where nobody knows whether it left, it
    is sent again. Raises OSError where the mail server cannot be reached.
    """
    if not _due(now).exists():
        return 0
    return mailing.deliver(partial(_claim, now), partial(_send, now=now), limit=limit)


def _due(now: datetime) -> QuerySet[GuestRequest]:
    return GuestRequest.objects.unmailed().filter(put_at__gt=now - LIFE, mail_due_at__lte=now)


@transaction.atomic
def _claim(now: datetime) -> GuestRequest | None:
    """Take the next one, for a while: it is due again unless it is sent by then."""
    waiting = _due(now).order_by("mail_due_at").select_for_update(skip_locked=True).first()
    if waiting:
        waiting.mail_due_at = now + PAUSE
        waiting.save(update_fields=["mail_due_at"])
    return waiting


def _send(waiting: GuestRequest, server: BaseEmailBackend, *, now: datetime) -> bool:
    try:
        mailing.hand_over(_composed(waiting, server))
    except mailing.PutOff:
        log.warning("Confirming mail %s is put off", waiting.pk)
        return False
    except mailing.Refused:
        log.warning("Confirming mail %s is refused", waiting.pk)
        _mark_mailed(waiting, now)
        return False
    _mark_mailed(waiting, now)
    return True


def _mark_mailed(waiting: GuestRequest, now: datetime) -> None:
    GuestRequest.objects.filter(pk=waiting.pk).update(mailed_at=now)


def _composed(waiting: GuestRequest, server: BaseEmailBackend) -> EmailMessage:
    """None of what was written stands in it: nobody can have us mail their words to others."""
    with translation.override(waiting.mail_language):
        text = render_to_string(
            "support/mail/confirm.txt",
            {
                "is_question": waiting.kind == GuestRequest.Kind.QUESTION,
                "link": settings.SITE_URL.rstrip("/") + reverse("confirm", args=[token(waiting)]),
                "days": LIFE.days,
            },
        )
    subject, _, body = text.partition("\n")
    return EmailMessage(
        " ".join(subject.split()), body.strip() + "\n", to=[waiting.email],
        headers=mailing.FOLLOWS_RULES, connection=server,
    )  # fmt: skip


def tidy(*, now: datetime) -> None:
    """Forget what nobody confirmed in time, and what was confirmed long ago."""
    GuestRequest.objects.filter(put_at__lt=now - LIFE).delete()
