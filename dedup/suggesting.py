"""Similar questions for a draft or a search. The web's side: asks the worker within a budget, and
falls back to words alone. Never imports the networks."""

import enum
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from dedup import shortlist
from dedup.ml.text import model_input
from dedup.models import Draft
from support import outbox
from support.models import Question, User
from support.models.question import QuestionQuerySet

TASK = "dedup.tasks.suggest"
POLL_SECONDS = 0.015
DRAFT_SECONDS = 60
EXPIRE_SECONDS = 5  # a worker that comes later than this asks for nobody


class Ranking(enum.StrEnum):
    """What decided the order: the cross-encoder's scores, vectors and words, or words alone."""

    SCORES = "scores"
    MEANING = "meaning"
    WORDS = "words"


@dataclass(frozen=True)
class Suggestion:
    """A live question that resembles a text.

    `found_as` is the merged duplicate, readable too, whose own words were found; None where it was
    the question itself.
    """

    question: Question
    found_as: Question | None = None


@dataclass(frozen=True)
class Suggestions:
    """What resembles a text, likeliest first, and what that order was made by."""

    found: list[Suggestion] = field(default_factory=list)
    ranked_by: Ranking = Ranking.WORDS

    @property
    def questions(self) -> list[Question]:
        return [one.question for one in self.found]

    @property
    def by_meaning(self) -> bool:
        """Whether the networks were asked, or words alone."""
        return self.ranked_by is not Ranking.WORDS


def readable_by(reader: User | AnonymousUser | None, product_id: int | None) -> QuestionQuerySet:
    """What may be suggested to a reader: filtered before anything is ranked."""
    found = Question.objects.visible_to(reader or AnonymousUser())
    return found.filter(product=product_id) if product_id else found


def similar(
    *,
    title: str,
    body: str = "",
    reader: User | AnonymousUser,
    product_id: int | None = None,
    limit: int = 5,
    only_likely: bool = True,
) -> Suggestions:
    """Return questions like this text that `reader` may see. Saves nothing beyond the moment."""
    text = model_input(title, body)
    ids = _ask_worker(text, reader, product_id, limit)
    ranked_by = Ranking.WORDS if ids is None else Ranking.SCORES
    if ids is None:
        readable = readable_by(reader, product_id)
        words = shortlist.draw(readable, text=text, limit=limit)
        ids = [candidate.question_id for candidate in words]
    return Suggestions(_as_canonical(ids, reader)[:limit], ranked_by)


def _ask_worker(
    text: str, reader: User | AnonymousUser, product_id: int | None, limit: int
) -> list[int] | None:
    """Ids found by the worker, or None where it did not answer within the budget."""
    draft = Draft.objects.create(
        pk=uuid.uuid4(), text=text, reader_id=reader.pk, product_id=product_id, limit=limit
    )
    try:
        if not outbox.send(TASK, str(draft.pk), expires=EXPIRE_SECONDS):
            return None
        return _await(draft, time.monotonic() + settings.DEDUP_SUGGEST_SECONDS)
    finally:
        old = timezone.now() - timedelta(seconds=DRAFT_SECONDS)
        Draft.objects.filter(pk=draft.pk).delete()
        Draft.objects.filter(put_at__lt=old).delete()


def _await(draft: Draft, deadline: float) -> list[int] | None:
    while time.monotonic() < deadline:
        found = Draft.objects.filter(pk=draft.pk).values_list("found", flat=True).first()
        if found is not None:
            return [pk for pk, _probability in found]
        time.sleep(POLL_SECONDS)
    return None


def _as_canonical(ids: list[int], reader: User | AnonymousUser) -> list[Suggestion]:
    """The live questions that stand for these, each once, in the same order."""
    readable = Question.objects.visible_to(reader)
    rows = readable.filter(pk__in=ids).select_related("canonical").in_bulk()
    found: dict[int, Question | None] = {}
    for row in (rows[pk] for pk in ids if pk in rows):
        found.setdefault(row.root_id, row if row.canonical_id else None)
    roots = readable.with_answered().select_related("product").in_bulk(list(found))
    return [Suggestion(roots[pk], found[pk]) for pk in found if pk in roots]
