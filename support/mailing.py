"""How a mail looks and leaves. What it says of whom is chosen in support.notifications."""

import logging
import re
import smtplib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models import Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.http import base36_to_int, int_to_base36
from django.utils.safestring import SafeString

from support.models import Notification, Question, User

log = logging.getLogger(__name__)
Claimed = TypeVar("Claimed")

SENDING_SECONDS = 30.0  # then the next run goes on: a mail that a time limit cuts off is unknown
REPLY, STOP = "support.mail.reply", "support.mail.stop"  # what a token is for
ALL = 0  # in place of a question: all mail
# 100 bits in letters that a mail server may make small or capital; 64 is the most before an "@".
SIGNATURE_CHARACTERS = 25
FOLLOWS_RULES = {  # of machines that answer: say nothing to this
    "Auto-Submitted": "auto-generated",
    "X-Auto-Response-Suppress": "All",
}


class Refused(Exception):
    """The server took none of this mail and never will."""


class PutOff(Exception):
    """The server took none of this mail, but may do so later."""


def language_of(person: User) -> str:
    """The language in which this person is written to."""
    return person.language or settings.LANGUAGE_CODE


def digest_moment(now: datetime) -> datetime:
    """When the last daily mails were due: news from before then is in them."""
    local = timezone.localtime(now)
    today = local.replace(hour=settings.MAIL_DIGEST_HOUR, minute=0, second=0, microsecond=0)
    return today if today <= local else today - timedelta(days=1)


def token(purpose: str, person_id: int, question_id: int) -> str:
    """Signed word that names a person and a question: safe in an address, whatever its case."""
    named = f"{int_to_base36(person_id)}-{int_to_base36(question_id)}"
    return f"{named}-{_signature(purpose, named)}"


def read_token(purpose: str, given: str) -> tuple[int, int] | None:
    """The ids of person and question that a token names; None where it is not one of ours."""
    named, _, signature = given.lower().rpartition("-")
    if not constant_time_compare(signature, _signature(purpose, named)):
        return None
    person_id, _, question_id = named.partition("-")
    return base36_to_int(person_id), base36_to_int(question_id)


def _signature(purpose: str, named: str) -> str:
    number = int(salted_hmac(purpose, named, algorithm="sha256").hexdigest(), 16)
    return int_to_base36(number % 36**SIGNATURE_CHARACTERS).zfill(SIGNATURE_CHARACTERS)


def reply_address(person_id: int, question_id: int) -> str:
    """Where this person's replies about this question arrive; "" where none are taken."""
    if not settings.INBOUND_DOMAIN:
        return ""
    return f"reply+{token(REPLY, person_id, question_id)}@{settings.INBOUND_DOMAIN}"


def stop_url(person_id: int, question_id: int) -> str:
    """The address that ends mail about a question, or all of it, without a login."""
    path = reverse("unsubscribe", args=[token(STOP, person_id, question_id)])
    return settings.SITE_URL.rstrip("/") + path


def host() -> str:
    """The name that our mails' ids end with."""
    return urlsplit(settings.SITE_URL).hostname or "localhost"


@dataclass(frozen=True)
class Piece:
    """One piece of news in a mail, and how it stands to what its reader knows."""

    notification: Notification
    known: Question  # by which its reader knows the thread: asked it, or followed it first
    references: list[int]  # questions by which programs put the mail into a thread; parent last

    def rendered(self, form: str) -> SafeString:
        template = f"support/mail/{self.notification.kind}{form}"
        site = settings.SITE_URL.rstrip("/")
        context = {"notification": self.notification, "known": self.known, "site": site}
        return SafeString(render_to_string(template, context).strip())

    def shown(self) -> dict[str, str]:
        return {
            "text": self.rendered(".txt"),
            "html": self.rendered(".html"),
            "stop_url": stop_url(self.notification.recipient_id, self.known.pk),
        }


def piece(news: Notification) -> Piece:
    """Find what a piece of news belongs to, for the person that it is for."""
    reader, question = news.recipient, news.question
    members = Question.objects.visible_to(reader).of_threads(question.pk).order_by("pk")
    mine = Q(asked_by=reader) | Q(subscriptions__subscriber=reader)
    known = list(members.filter(mine).distinct())
    first = next((member for member in known if member.asked_by_id == reader.pk), None)
    anchor = first or (known[0] if known else question)
    roots = [pk for pk in members.values_list("pk", flat=True) if pk == question.root_id]
    named = [*roots, question.pk, *(member.pk for member in known)]
    if news.merge:
        named = [news.merge.canonical_id, *named]
    parents = [pk for pk in dict.fromkeys(named) if pk != anchor.pk]
    return Piece(news, anchor, [*parents, anchor.pk])


def compose(
    notifications: Sequence[Notification], server: BaseEmailBackend
) -> EmailMultiAlternatives:
    """One mail to one person with all of this, in text and in HTML, in their language."""
    reader = notifications[0].recipient
    with translation.override(language_of(reader)):
        pieces = [piece(news) for news in notifications]
        is_digest = len(pieces) > 1
        about = pieces[0].known.pk if len({p.known.pk for p in pieces}) == 1 else ALL
        reply_to = reply_address(reader.pk, about) if about else ""
        context = {
            "pieces": [p.shown() for p in pieces],
            "is_digest": is_digest,
            "may_reply": bool(reply_to),
            "site": settings.SITE_URL.rstrip("/"),
            "stop_url": stop_url(reader.pk, about),
            "is_about_one": about != ALL,
        }
        subject = render_to_string("support/mail/digest_subject.txt", {"count": len(pieces)})
        if not is_digest:
            subject = pieces[0].rendered("_subject.txt")
        message = EmailMultiAlternatives(
            " ".join(subject.split()),  # a header is one line, whatever a title holds
            render_to_string("support/mail/mail.txt", context).strip() + "\n",
            to=[reader.email],
            reply_to=[reply_to] if reply_to else None,
            headers=_headers(pieces, about),
            connection=server,
        )
        html = render_to_string("support/mail/mail.html", context).strip()
        message.attach_alternative(html, "text/html")
    return message


def message_id(notifications: Sequence[Notification]) -> str:
    """The id of the mail about this; it is the same however often it is asked for."""
    kind = "digest" if len(notifications) > 1 else "news"
    return f"<{kind}-{min(news.pk for news in notifications)}@{host()}>"


def is_ours(given: str) -> bool:
    """Whether a Message-ID is one that we gave; a person's may end with the same name."""
    return bool(re.fullmatch(rf"<?(?:news|digest)-\d+@{re.escape(host())}>?", given.strip(), re.I))


def _headers(pieces: Sequence[Piece], about: int) -> dict[str, str]:
    news = [p.notification for p in pieces]
    headers = {
        "Message-ID": message_id(news),
        "List-Id": f"<questions.{host()}>",
        "List-Unsubscribe": f"<{stop_url(news[0].recipient_id, about)}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Precedence": "list",
        **FOLLOWS_RULES,
    }
    if about != ALL:
        named = dict.fromkeys(pk for p in pieces for pk in p.references if pk != about)
        roots = [f"<question-{pk}@{host()}>" for pk in [*named, about]]
        headers |= {"References": " ".join(roots), "In-Reply-To": roots[-1]}
    return headers


def deliver(
    claim: Callable[[], Claimed | None],
    send: Callable[[Claimed, BaseEmailBackend], bool],
    *,
    limit: int,
) -> int:
    """Claim and send mails one by one, up to `limit`, for half a minute; return how many left.

    Raises OSError where the server cannot be reached: then nothing was claimed. Where it goes away
    in the midst, the mail that was being sent stays as it was claimed, the others wait.
    """
    sent, begun = 0, time.monotonic()
    with get_connection() as server:
        for _ in range(limit):
            claimed = claim()
            if not claimed:
                break
            try:
                sent += send(claimed, server)
            except OSError as error:
                log.warning("The mail server is gone: %s", type(error).__name__)
                break
            if time.monotonic() - begun > SENDING_SECONDS:
                break
    return sent


def hand_over(message: EmailMessage) -> None:
    """Give a mail to the server.

    Raises Refused or PutOff where the server said that it did not take it; OSError where nobody
    knows whether it did.
    """
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise (PutOff if codes and max(codes) < 500 else Refused) from error
    except smtplib.SMTPSenderRefused as error:  # our own address: a setting is wrong, not the mail
        raise PutOff from error
    except smtplib.SMTPResponseException as error:
        raise (PutOff if error.smtp_code < 500 else Refused) from error
    except (ValueError, UnicodeError) as error:  # an address that no mail can carry
        raise Refused from error
