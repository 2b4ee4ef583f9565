"""Questions come in and are edited here, from pages, programs and imports alike."""

from datetime import datetime

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from support import audit, language, merging, outbox
from support.models import Product, Question, Subscription, User

Conflict = merging.MergeRefused
NOT_TYPED = ["product", "asked_by", "canonical", "is_root", "canonical_is_root", "words"]


class AudienceFixed(Conflict):
    """A merged question's audience cannot change: its thread has readers."""

    code = "merged"


@transaction.atomic
def submit_question(
    *,
    product: Product,
    title: str,
    body: str,
    audience: str,
    by: User,
    now: datetime | None = None,
) -> Question:
    """Store a question, follow it, and put it up for its check: all of it or nothing.

    Raises ValidationError where the texts are not fit to be stored.
    """
    now = now or timezone.now()
    question = Question(
        product=product, title=title.strip(), body=body.strip(), audience=audience, asked_by=by,
        asked_at=now, language=language.detected(title, body),
    )  # fmt: skip
    question.clean_fields(exclude=NOT_TYPED)
    question.save()
    Subscription.objects.create(question=question, subscriber=by, subscribed_at=now)
    audit.record("asked", by=by, now=now, question=question)
    outbox.put(question, now=now)
    return question


@transaction.atomic
def edit_question(
    *,
    question: Question,
    title: str,
    body: str,
    audience: str,
    by: User,
    seen: int,
    now: datetime | None = None,
) -> Question:
    """Change a question's text or audience; renews its check.

    `seen` is the version that the person had before them. Raises merging.Stale where that is not
    the newest, AudienceFixed where the question is merged, ValidationError.
    """
    now = now or timezone.now()
    question = Question.objects.select_for_update().get(pk=question.pk)
    if question.version != seen:
        raise merging.Stale(_("This question was edited meanwhile."), changed=[question.pk])
    is_merged = question.canonical_id or question.duplicates.exists()
    if audience != question.audience and is_merged:
        raise AudienceFixed(_("This question is merged: who may read it cannot change."))
    question.title, question.body, question.audience = title.strip(), body.strip(), audience
    question.language = language.detected(title, body)
    question.version += 1
    question.edited_at = now
    question.clean_fields(exclude=NOT_TYPED)
    question.save(update_fields=["title", "body", "audience", "language", "version", "edited_at"])
    audit.record("edited", by=by, now=now, question=question, version=question.version)
    outbox.put(question, now=now)
    return question
