"""Replies that come back by mail -> answers. Nothing is ever sent back, and no text is logged.

Who may answer what is signed into the address that was replied to; the sender's address must be
that person's as well. A mail is taken once, by its Message-ID and whose it is.
"""

import email
import hashlib
import imaplib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage, Message
from email.policy import default as default_policy
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import nh3
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DatabaseError, InterfaceError, OperationalError

from support import answering, mailing, markup, merging, quota, quoting
from support.models import Answer, InboundMail, Question, User
from support.models.validators import LARGEST_BODY

log = logging.getLogger(__name__)

Outcome = InboundMail.Outcome
REPEATED = "repeated"  # taken before: its row is there already

LARGEST_MAIL = 20 * 1024 * 1024  # bytes, with all that is attached
LARGEST_HEAD = 64 * 1024
LARGEST_HTML = 300_000  # characters
MOST_TAGS = 10_000  # of HTML: its reader takes long over what is nested deeper
MOST_NESTED = 50  # parts that hold parts
MOST_PARTS = 1_000
KEPT_FOR = timedelta(days=30)
MOST_AT_ONCE = 50  # mails that one look into the mailbox takes
MAILS_OF_A_PERSON = quota.Quota("inbound_mail", most=30, seconds=3600)

ADDRESSED = {"delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "to", "cc"}
_NESTED = re.compile(rb"multipart/|message/rfc822", re.IGNORECASE)
_PART = re.compile(rb"^--", re.MULTILINE)
_HEAD_ENDS = re.compile(rb"\r?\n\r?\n")
_REPLY = re.compile(
    r"reply\+([0-9a-z]{1,13}-[0-9a-z]{1,13}-[0-9a-z]{25})@([0-9a-z.-]{1,253})", re.I
)
# Whoever reads one of these could stop the writer's mail, or write as if they were the writer.
_SECRET = re.compile(r"\S*(?:reply\+[0-9a-z-]{20,}|/mail/unsubscribe/)\S*", re.I)
_MACHINES = re.compile(
    r"(?:^|[<\s])(?:mailer-daemon|postmaster|no-?reply|bounces?)(?:[+=-]\S*)?@", re.I
)


@dataclass(frozen=True)
class Received:
    """What became of a mail."""

    outcome: str
    answer: Answer | None = None


@dataclass(frozen=True)
class Letter:
    """What is read of a mail before anybody is asked who sent it."""

    message_id: str
    sender: str
    replies_to: list[tuple[int, int]]  # ids of person and question, from addresses that we signed
    is_automatic: bool
    message: Message


class MailboxAway(Exception):
    """The mailbox cannot be reached, or does not let us in."""


def receive(raw: bytes, *, now: datetime) -> Received:
    """Take one mail, whatever it holds; say what became of it.

    Raises what the database raises where that is away: the mail can be brought again.
    """
    try:
        letter = _read(raw)
        body = "" if letter is None or letter.is_automatic else _own_words(letter.message)
    except Exception as error:  # whatever a mail made the readers trip over
        log.warning("A mail could not be read: %s", type(error).__name__)
        letter, body = None, ""
    if letter is None:
        return _note(Outcome.UNREADABLE, raw.decode("latin-1"), now=now)
    return _take(letter, body, now=now)


def _read(raw: bytes) -> Letter | None:
    """The letter, or None where it is larger or more entangled than mail is."""
    head = _HEAD_ENDS.search(raw)
    is_huge = len(raw) > LARGEST_MAIL or (head.start() if head else len(raw)) > LARGEST_HEAD
    if is_huge or len(_NESTED.findall(raw)) > MOST_NESTED:
        return None
    if sum(1 for _ in zip(_PART.finditer(raw), range(MOST_PARTS + 1), strict=False)) > MOST_PARTS:
        return None
    message = email.message_from_bytes(raw, policy=default_policy)
    fields = [(name.lower(), _plain(str(value))) for name, value in message.raw_items()]
    named = [value.strip() for name, value in fields if name == "message-id"]
    return Letter(
        message_id=named[0] if named and named[0] else hashlib.sha256(raw).hexdigest(),
        sender=_sender(message),
        replies_to=list(_replies_to(fields)),
        is_automatic=_is_automatic(fields, named, message.get_content_type()),
        message=message,
    )


def _plain(text: str) -> str:
    """Without what Postgres and UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def _sender(message: EmailMessage) -> str:
    """The one address that a mail says it is from; "" where it names none, or several."""
    fields = message.get_all("From", [])
    addresses = [address.addr_spec for field in fields for address in field.addresses]
    return _plain(addresses[0]).casefold() if len(addresses) == len(fields) == 1 else ""


def _replies_to(fields: list[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Whom and what the addresses that we made ourselves name."""
    for name, value in fields:
        if name not in ADDRESSED:
            continue
        for token, domain in _REPLY.findall(value):
            ids = mailing.read_token(mailing.REPLY, token)
            if ids and settings.INBOUND_DOMAIN and domain.lower() == settings.INBOUND_DOMAIN:
                yield ids


def _is_automatic(fields: list[tuple[str, str]], ids: list[str], kind: str) -> bool:
    """Whether a machine wrote it: an absence, a bounce, a list, or ourselves."""
    said = {name: value.strip().lower() for name, value in fields}
    return (
        said.get("auto-submitted", "no").partition(";")[0].strip() != "no"
        or said.get("precedence", "") in {"bulk", "junk", "list", "auto_reply"}
        or said.get("return-path", "") == "<>"
        or bool({"x-autoreply", "x-autorespond", "list-id", "x-failed-recipients"} & said.keys())
        or kind == "multipart/report"
        or any(mailing.is_ours(one) for one in ids)
        or bool(_MACHINES.search(said.get("from", "")))
    )


def _take(letter: Letter, body: str, *, now: datetime) -> Received:
    if letter.is_automatic:
        return _note(Outcome.AUTOMATIC, letter.message_id, now=now)
    for person_id, question_id in letter.replies_to:
        person = User.objects.filter(pk=person_id, is_active=True).first()
        if person and person.email and person.email.casefold() == letter.sender:
            return _post(letter.message_id, body, person, question_id, now=now)
    return _note(Outcome.REFUSED, letter.message_id, now=now)


def _hash(message_id: str, person_id: int = 0) -> str:
    """Of whom it is, too: nobody can take the id of another's mail before it comes."""
    return hashlib.sha256(f"{person_id} {message_id}".encode()).hexdigest()


def _note(outcome: str, message_id: str, *, now: datetime) -> Received:
    _, is_new = InboundMail.objects.get_or_create(
        message_hash=_hash(message_id), defaults={"outcome": outcome, "received_at": now}
    )
    log.info("A mail came in: %s", outcome if is_new else REPEATED)
    return Received(outcome if is_new else REPEATED)


@merging.retried
def _post(message_id: str, body: str, by: User, question_id: int, *, now: datetime) -> Received:
    """Post the answer and note its mail in one transaction; whoever comes second waits for it."""
    row, is_new = InboundMail.objects.get_or_create(
        message_hash=_hash(message_id, by.pk),
        defaults={"outcome": Outcome.EMPTY, "received_at": now},
    )
    if not is_new:
        return Received(REPEATED)
    question = Question.objects.visible_to(by).filter(pk=question_id).first()
    if question is None:
        row.outcome = Outcome.REFUSED
    elif quota.spend(MAILS_OF_A_PERSON, spender=str(by.pk), now=now):
        row.outcome = Outcome.TOO_MANY
    else:
        try:
            row.answer = answering.post_answer(question=question, body=body, by=by, now=now)
            row.outcome = Outcome.POSTED
        except ValidationError:
            row.outcome = Outcome.EMPTY
    row.save(update_fields=["outcome", "answer"])
    log.info("A mail came in: %s", row.outcome)
    return Received(row.outcome, row.answer)


def _own_words(message: Message) -> str:
    """What the writer says in a mail, as Markdown; cut where it is longer than an answer may be."""
    said = "\n\n".join(text for _, text in _bodies(message))
    return _SECRET.sub("…", _plain(quoting.own_words(said)))[:LARGEST_BODY]


def _bodies(part: Message) -> list[tuple[str, str]]:
    """Kind and text of each body that is to be read, and not kept as a file."""
    if part.get_content_disposition() == "attachment":
        return []
    kind = part.get_content_type()
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        children: Any = part.get_payload()
        inner = [_bodies(child) for child in children]
        inner = [bodies for bodies in inner if any(text.strip() for _, text in bodies)]
        if kind == "multipart/alternative":
            plain = [bodies for bodies in inner if all(k == "text/plain" for k, _ in bodies)]
            return next(iter(plain + inner), [])
        return [body for bodies in inner for body in bodies]
    if kind == "text/plain":
        return [(kind, _unflowed(part, _text(part)))]
    return [(kind, _markdown(_text(part)))] if kind == "text/html" else []


def _text(part: Message) -> str:
    """The text of a part, in the charset that it names or else in one that fits."""
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    for charset in (part.get_content_charset() or "utf-8", "utf-8"):
        try:
            return content.decode(charset)
        except (LookupError, ValueError):
            continue
    return content.decode("windows-1252", "replace")


def _unflowed(part: Message, text: str) -> str:
    """Lines that a program broke (format=flowed, RFC 3676) as the paragraphs that they were."""
    if str(part.get_param("format", "")).lower() != "flowed":
        return text
    is_spaced = str(part.get_param("delsp", "")).lower() != "yes"
    lines: list[str] = []
    open_depth = None  # of quoting, where the line before goes on
    for line in text.replace("\r\n", "\n").split("\n"):
        depth = len(line) - len(line.lstrip(">"))
        bare = line[depth:].removeprefix(" ")
        if open_depth == depth and bare.rstrip(" ") != "--":
            lines[-1] += bare
        else:
            lines.append(">" * depth + (" " if depth else "") + bare)
        goes_on = bare.endswith(" ") and bare != "-- "
        open_depth = depth if goes_on else None
        if goes_on and not is_spaced:
            lines[-1] = lines[-1][:-1]
    return "\n".join(lines)


def _markdown(html: str) -> str:
    if len(html) > LARGEST_HTML or html.count("<") > MOST_TAGS:
        return ""
    cleaned = nh3.clean(
        html,
        tags=set(markup.TAGS),
        clean_content_tags={"script", "style", "title"},
        attributes={"a": {"href"}},
        link_rel=None,
    )
    return markup.to_markdown(cleaned)


def tidy(*, now: datetime) -> None:
    """Forget mails that became nothing once nobody will bring them again."""
    old = InboundMail.objects.filter(received_at__lt=now - KEPT_FOR)
    old.exclude(outcome=Outcome.POSTED).delete()


def fetch(*, now: datetime) -> int:
    """Take the unread mails of the mailbox; return how many. Each is marked once it is committed.

    Raises MailboxAway.
    """
    if not settings.INBOUND_URL:
        return 0
    place = urlsplit(settings.INBOUND_URL)
    try:
        with _mailbox(place) as box:
            return sum(_fetch_one(box, uid, now=now) for uid in _unread(box)[:MOST_AT_ONCE])
    except (OSError, imaplib.IMAP4.error) as error:
        raise MailboxAway(type(error).__name__) from None


def _mailbox(place: SplitResult) -> imaplib.IMAP4:
    host, timeout = place.hostname or "", 30
    if place.scheme == "imaps":
        box: imaplib.IMAP4 = imaplib.IMAP4_SSL(host, place.port or 993, timeout=timeout)
    else:
        box = imaplib.IMAP4(host, place.port or 143, timeout=timeout)
        if "STARTTLS" in box.capabilities:
            box.starttls()
    box.login(unquote(place.username or ""), unquote(place.password or ""))
    folder = unquote(place.path.strip("/")) or "INBOX"
    status, _ = box.select('"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"')
    if status != "OK":
        raise imaplib.IMAP4.error("no such folder")
    return box


def _unread(box: imaplib.IMAP4) -> list[str]:
    _, found = box.uid("SEARCH", "UNSEEN")
    return [uid.decode() for uid in (found[0] or b"").split()]


def _fetch_one(box: imaplib.IMAP4, uid: str, *, now: datetime) -> int:
    """Take one mail; it stays unread, for the next time, where the database is away."""
    _, found = box.uid("FETCH", uid, f"(BODY.PEEK[]<0.{LARGEST_MAIL + 1}>)")
    raw = next((item[1] for item in found if isinstance(item, tuple)), None)
    if raw is None:
        return 0  # somebody else took it away
    try:
        receive(raw, now=now)
    except (OperationalError, InterfaceError):
        raise
    except DatabaseError as error:  # as where its writer is erased at this moment
        log.error("A mail could not be stored: %s", type(error).__name__)
    box.uid("STORE", uid, "+FLAGS", r"(\Seen)")
    return 1
