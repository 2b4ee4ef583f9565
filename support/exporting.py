"""Everything that the portal holds about one person, as JSON that is written while it is read.

Their own texts, and ids of all else: no text of anybody else is in it. Every relation to a person
has a rule here; dedup adds those of its own rows. A test walks all models.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from support.models import AuditEntry, GuestRequest, InboundMail, User

PROFILE = (
    "id", "username", "display_name", "first_name", "last_name", "email", "date_joined",
    "last_login", "mail_pace", "is_guest", "language", "time_zone", "theme", "uses_keys",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The rows of a relation under a name, each with these fields.

    `of` finds the rows of a person where no relation leads to them.
    """

    name: str
    fields: tuple[str, ...]
    of: Callable[[User], QuerySet[Any]] | None = None


@dataclass(frozen=True)
class Without:
    """A relation that is not in the export, for a reason."""

    because: str


EXPORT_RULES: dict[str, Rows | Without] = {
    "support.Question.asked_by": Rows(
        "questions",
        ("id", "product__name", "title", "body", "audience", "asked_at", "edited_at", "version",
         "language", "source", "canonical_id"),
    ),
    "support.Answer.written_by": Rows("answers", ("id", "question_id", "body", "written_at")),
    "support.Vote.by": Rows("votes for questions", ("question_id", "voted_at")),
    "support.AnswerVote.by": Rows("votes for answers", ("answer_id", "voted_at")),
    "support.Subscription.subscriber": Rows("followed questions", ("question_id", "subscribed_at")),
    "support.MailStop.person": Rows(
        "questions about which you want no mail", ("question_id", "stopped_at")
    ),
    "support.Notification.recipient": Rows(
        "mails", ("kind", "question_id", "answer_id", "status", "due_at", "sent_at")
    ),
    "support.Merge.merged_by": Rows(
        "merges", ("id", "duplicate_id", "canonical_id", "merged_at", "reason", "undone_at")
    ),
    "support.Merge.undone_by": Rows(
        "merges taken back", ("id", "duplicate_id", "canonical_id", "undone_at")
    ),
    "support.AuditEntry.by": Rows(
        "what the audit trail says you did", ("at", "action", "question_id", "details")
    ),
    "support.AuditEntry.details": Rows(
        "what the audit trail says was done to your account", ("at", "action"),
        of=lambda person: AuditEntry.objects.filter(details__person=person.pk),
    ),
    "support.GuestRequest.email": Rows(
        "what you sent without signing in, of the last days",
        ("kind", "product__name", "title", "body", "audience", "question_id", "put_at",
         "mailed_at", "confirmed_at"),
        of=GuestRequest.objects.of,
    ),
    "support.InboundMail.answer": Rows(
        "answers that came by mail", ("received_at", "answer_id"),
        of=lambda person: InboundMail.objects.filter(answer__written_by=person),
    ),
    "support.ApiToken.user": Rows(
        "tokens for programs", ("name", "scope", "created_at", "expires_at")
    ),
    "support.MergeGrant.agent": Rows("products in which you may merge", ("product__name",)),
    "support.User_groups.user": Rows("roles", ("group__name",)),
    "support.User_user_permissions.user": Rows("rights beyond the roles", ("permission__name",)),
    "support.IdempotencyRecord.user": Rows(
        "answers kept for a day for your programs", ("key", "status", "created_at")
    ),
    "account.EmailAddress.user": Rows("mail addresses", ("email", "verified", "primary")),
    "mfa.Authenticator.user": Rows("second factors", ("type", "created_at", "last_used_at")),
    "usersessions.UserSession.user": Rows(
        "signed-in browsers", ("ip", "user_agent", "created_at", "last_seen_at")
    ),
    "admin.LogEntry.user": Rows(
        "what you changed in the administration", ("action_time", "action_flag", "object_id")
    ),
}  # fmt: skip


def export(person: User) -> Iterator[str]:
    """Yield a JSON object piece by piece, so that no size is too large."""
    about = _(
        "This is all that this portal holds about you. Texts are your own; what belongs to others "
        "is named by its id only. Times are in UTC."
    )
    yield f'{{\n"about": {_json(about)},\n"profile": {_json(_profile(person))}'
    for relation, rule in EXPORT_RULES.items():
        if isinstance(rule, Rows):
            yield f",\n{_json(rule.name)}: ["
            yield from _rows(relation, rule, person)
            yield "]"
    yield "\n}\n"


def _profile(person: User) -> dict[str, object]:
    return {field: getattr(person, field) for field in PROFILE}


def _rows(relation: str, rule: Rows, person: User) -> Iterator[str]:
    model, _, field = relation.rpartition(".")
    found = (
        rule.of(person)
        if rule.of
        else apps.get_model(model)._default_manager.filter(**{field: person})
    )
    for number, row in enumerate(found.order_by("pk").values(*rule.fields).iterator()):
        yield f"{',' if number else ''}\n  {_json(row)}"


def _json(value: object) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)
