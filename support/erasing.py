"""Erase a person: what they wrote and who they were goes, what others wrote keeps its threads.

The account stays as a row with an id and nothing in it, for merges, reviews and the audit trail say
by id who did what. Every relation to a person or a question and every text of the database has a
rule here; dedup adds those of its own rows. A test walks all models.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.db.models import F, Model, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from support import audit, merging, notifications, outbox, permissions
from support.models import Answer, GuestRequest, IdempotencyRecord, Question, User

ERASED = "[erased by its writer]"  # stands where a text was


class NotAllowed(Exception):
    """Only a person themself and those who administer people may erase them."""


class LastAdmin(Exception):
    """Without this person nobody could administer the portal any more."""


@dataclass(frozen=True)
class Leaving:
    """Who is erased, with the ids of the questions that they asked."""

    person: User
    questions: Collection[int]
    now: datetime


class Rule(Protocol):
    """What happens to one relation or one text."""

    def apply(self, field: str, leaving: Leaving) -> None: ...


@dataclass(frozen=True)
class Stays:
    """Nothing happens, for a reason."""

    because: str

    def apply(self, field: str, leaving: Leaving) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Goes:
    """Rows that point at the person, or at one of their questions, are deleted."""

    def apply(self, field: str, leaving: Leaving) -> None:
        rows, name = _rows(field)
        if rows.model._meta.get_field(name).related_model is User:
            rows.filter(**{name: leaving.person}).delete()
        else:
            rows.filter(**{f"{name}__in": leaving.questions}).delete()


@dataclass(frozen=True)
class Emptied:
    """The text is taken out of the rows in which the person wrote it."""

    writer: str
    to: str = ""

    def apply(self, field: str, leaving: Leaving) -> None:
        rows, name = _rows(field)
        rows.filter(**{self.writer: leaving.person}).update(**{name: self.to})


@dataclass(frozen=True)
class Parted:
    """The row stays and no longer points at the person."""

    def apply(self, field: str, leaving: Leaving) -> None:
        rows, name = _rows(field)
        rows.filter(**{name: leaving.person}).update(**{name: None})


class Does(Protocol):
    """What a function does, in the transaction of the erasure."""

    def __call__(self, leaving: Leaving) -> None: ...


@dataclass(frozen=True)
class Calls:
    """A function sees to it."""

    function: Does

    def apply(self, field: str, leaving: Leaving) -> None:
        self.function(leaving)


def _rows(field: str) -> tuple[QuerySet[Model], str]:
    model, _, name = field.rpartition(".")
    return apps.get_model(model)._default_manager.all(), name


def _erase_questions(leaving: Leaving) -> None:
    """One statement, as an edit: whoever holds the older version is refused. Postgres itself makes
    the search vector anew."""
    Question.objects.filter(pk__in=leaving.questions).update(
        title=ERASED, body=ERASED, language="", version=F("version") + 1, edited_at=leaving.now
    )


def _settle_checks(leaving: Leaving) -> None:
    outbox.drop(leaving.questions, now=leaving.now)


def _cancel_mail(leaving: Leaving) -> None:
    notifications.cancel_of(leaving.person)


def _forget_person(leaving: Leaving) -> None:
    person = leaving.person
    person.username = f"erased-{person.pk}"
    person.email = person.first_name = person.last_name = person.display_name = ""
    person.language = person.time_zone = ""
    person.theme, person.uses_keys, person.mail_pace = User.Theme.AUTO, True, User.MailPace.NONE
    person.is_guest = False
    person.is_active = person.is_staff = person.is_superuser = False
    person.password = make_password(None)
    person.last_login, person.erased_at = None, leaving.now
    person.save()


def _end_sessions(leaving: Leaving) -> None:
    """Those that are listed by person, those that began before there was a list, and those in
    which somebody left one of their addresses without signing in."""
    listed = UserSession.objects.filter(user=leaving.person)
    Session.objects.filter(session_key__in=listed.values("session_key")).delete()
    listed.delete()
    person = leaving.person
    verified = EmailAddress.objects.filter(user=person, verified=True)
    addresses = [json.dumps(one.lower()) for one in verified.values_list("email", flat=True)]
    found = []
    for row in Session.objects.iterator():
        held = row.get_decoded()
        said = json.dumps(held).lower()
        if held.get("_auth_user_id") == str(person.pk) or any(one in said for one in addresses):
            found.append(row.pk)
    Session.objects.filter(pk__in=found).delete()


def _forget_answers_to_programs(leaving: Leaving) -> None:
    """Theirs, and those to others that have their name, as an undone merge's has."""
    IdempotencyRecord.objects.filter(user=leaving.person).delete()
    said = IdempotencyRecord.objects.annotate(said=Cast("body", TextField()))
    said.filter(said__contains=f'"{leaving.person.username}"').delete()


def _forget_guest_requests(leaving: Leaving) -> None:
    GuestRequest.objects.of(leaving.person).delete()


def _rename_in_admin(leaving: Leaving) -> None:
    """Django's admin notes a person by name when somebody changes them."""
    entries = apps.get_model("admin.LogEntry")._default_manager.filter(
        content_type__app_label="support", content_type__model="user", object_id=leaving.person.pk
    )
    entries.update(object_repr=f"erased-{leaving.person.pk}", change_message="")


HERE = Stays("says by id who did what; the id leads to nobody any more")
THREAD = Stays("keeps the thread in which others wrote")
OURS = Stays("says nothing of a person")
BRIEF = Stays("kept for a day at most, as a number")
WITH_ROW = Stays("goes with its row")

# By relation to a person or a question, by text, or by model where one rule is for all of its.
# They are applied in this order: what is found by the person's name comes before the name goes.
ERASE_RULES: dict[str, Rule] = {
    "support.GuestRequest.email": Calls(_forget_guest_requests),
    "support.GuestRequest.question": Stays("others follow its answers by mail"),
    "support.GuestRequest": WITH_ROW,
    "support.IdempotencyRecord.user": Calls(_forget_answers_to_programs),
    "support.IdempotencyRecord": WITH_ROW,
    "support.Question.title": Calls(_erase_questions),
    "support.Question.body": Stays("erased with the title"),
    "support.Question.language": Stays("erased with the title"),
    "support.Question.words": Stays("made by Postgres of title and body"),
    "support.Question.is_root": OURS,
    "support.Question.canonical_is_root": OURS,
    "support.Question.source": Stays("an import that is repeated must not bring the text back"),
    "support.Question.asked_by": THREAD,
    "support.Question.canonical": THREAD,
    "support.Answer.body": Emptied("written_by", ERASED),
    "support.Answer.written_by": THREAD,
    "support.Answer.question": THREAD,
    "support.Acceptance.question": Stays("says which answer of somebody helped"),
    # A count of votes falls by one: all that somebody voted for would still be a portrait of them.
    "support.Vote.by": Goes(),
    "support.AnswerVote.by": Goes(),
    "support.Vote.question": Stays("others have this question too"),
    "support.Subscription.subscriber": Goes(),
    "support.Subscription.question": Stays("others follow its answers"),
    "support.Merge.reason": Emptied("merged_by"),
    "support.Merge.release": OURS,
    "support.Merge.duplicate": THREAD,
    "support.Merge.canonical": THREAD,
    "support.Merge.merged_by": HERE,
    "support.Merge.undone_by": HERE,
    "support.Notification.recipient": Calls(_cancel_mail),
    "support.Notification.question": OURS,
    "support.MailStop.person": Goes(),
    "support.MailStop.question": Stays("others want no mail about it"),
    "support.InboundMail.message_hash": Stays("a mail that comes again is not taken again"),
    "support.OutboxEntry.question": Calls(_settle_checks),
    "support.OutboxEntry.failure": OURS,
    "support.OutboxEntry.checked_by": OURS,
    "support.AuditEntry": Stays("ids only, and it is never changed"),
    "support.AuditLink": Stays("hashes of ids and times, never of a text"),
    "support.AuditHead": Stays("the last of those hashes"),
    "support.ApiToken.user": Goes(),
    "support.ApiToken": WITH_ROW,
    "support.MergeGrant.agent": Goes(),
    "support.User_groups.user": Goes(),
    "support.User_user_permissions.user": Goes(),
    "support.Product": OURS,
    "support.Usage": BRIEF,
    "usersessions.UserSession.user": Calls(_end_sessions),
    "usersessions.UserSession": WITH_ROW,
    "sessions.Session": Stays("those of the person go with the list of their browsers"),
    "account.EmailAddress.user": Goes(),
    "account.EmailAddress": WITH_ROW,
    "account.EmailConfirmation": WITH_ROW,
    "mfa.Authenticator.user": Goes(),
    "mfa.Authenticator": WITH_ROW,
    "admin.LogEntry.object_repr": Calls(_rename_in_admin),
    "admin.LogEntry": HERE,
    "auth.Group": OURS,
    "auth.Permission": OURS,
    "contenttypes.ContentType": OURS,
    "support.User": Calls(_forget_person),
}


@merging.retried
def erase(*, person: User, by: User | None, now: datetime | None = None) -> User:
    """Take a person out of the portal, all of it or nothing; `by` is None for an operator.

    Erasing who was erased changes nothing. Raises NotAllowed, LastAdmin, merging.ThreadsMoved.
    """
    now = now or timezone.now()
    list(
        GuestRequest.objects.of(person).order_by("pk").select_for_update()
    )  # first: as guests.confirm
    questions, touched = _wrote(person)
    if touched:
        merging.lock_threads(*touched)  # questions first, then people: everywhere
    person = User.objects.select_for_update().get(pk=person.pk)
    if _wrote(person)[1] != touched:
        raise merging.ThreadsMoved("They are writing just now.")
    if person.erased_at:
        return person
    _require_right(by, person)
    leaving = Leaving(person, sorted(questions), now)
    for field, rule in ERASE_RULES.items():
        rule.apply(field, leaving)
    audit.record("erased", by=by, now=now, person=person.pk)
    for question in Question.objects.filter(pk__in=questions).order_by("pk"):
        audit.record("erased", by=by, now=now, question=question, person=person.pk)
    return person


def _wrote(person: User) -> tuple[set[int], set[int]]:
    """The ids of the questions that they asked, and of all in which they wrote."""
    asked = set(Question.objects.filter(asked_by=person).values_list("pk", flat=True))
    answered = Answer.objects.filter(written_by=person).values_list("question", flat=True)
    return asked, asked | set(answered)


def _require_right(by: User | None, person: User) -> None:
    if by is not None and by.pk != person.pk:
        beyond = person.is_superuser and not by.is_superuser
        if beyond or not permissions.may_administer(by):
            raise NotAllowed("Only who administers people may erase somebody else.")
    if permissions.may_administer(person) and not _other_admins(person):
        raise LastAdmin("Nobody else administers this portal: name another admin first.")


def _other_admins(person: User) -> bool:
    admins = Q(is_superuser=True) | Q(groups__name=permissions.ADMIN)
    return User.objects.filter(admins, is_active=True).exclude(pk=person.pk).exists()


def rule_of(field: str) -> Rule | None:
    """The rule for a relation or a text: its own, or that of its model; None: forgotten."""
    return ERASE_RULES.get(field) or ERASE_RULES.get(field.rpartition(".")[0])
