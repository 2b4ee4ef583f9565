"""Similar questions for a draft or a search. The web's side: asks the worker within a budget, and
falls back to what the worker has found so far, or to words alone. Never imports the networks."""

import enum
import logging
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q
from django.utils import timezone

from dedup import shortlist, timing
from dedup.ml.text import model_input
from dedup.models import Draft
from support import outbox
from support.models import Question, User
from support.models.question import QuestionQuerySet

log = logging.getLogger(__name__)

TASK = "dedup.tasks.suggest"
FIRST_POLL_SECONDS = 0.03  # no worker is quicker
POLL_SECONDS = 0.02
DRAFT_SECONDS = 60
EXPIRE_SECONDS = 5  # a worker that comes later than this asks for nobody
WORDS_SECONDS = 0.1  # of the budget, what is kept for the search by words alone
MOST_MISSED = 2  # drafts in a row that no worker took: then there seems to be none,
PAUSE_SECONDS = 5.0  # and it is not waited for so long
# Of the release's floor, for a text that is still being written. Measured on the demo's duplicates:
# typed to the half, 0.47 of them are among the five shown (at the floor itself 0.38, without any
# 0.62), whole 0.76 (0.75, 0.78); a question that nobody asked before is shown one that is not it.
UNFINISHED = 0.4

_missed = 0  # each process has a breaker of its own
_silent_until = 0.0


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
    """Return up to `limit` questions like this text that `reader` may see.

    Takes DEDUP_SUGGEST_SECONDS at most, and a little. First come those that the cross-encoder read;
    `only_likely` leaves out what it finds unlikely to be the same, and what it did not read. Saves
    nothing beyond the moment.
    """
    begun = time.monotonic()
    deadline = begun + settings.DEDUP_SUGGEST_SECONDS - WORDS_SECONDS
    text = model_input(title, body)
    draft = Draft(
        pk=uuid.uuid4(), text=text, reader_id=reader.pk, product_id=product_id, limit=limit,
        only_likely=only_likely,
    )  # fmt: skip
    ids, ranked_by = _ask_worker(draft, deadline)
    if ids is None:
        words = shortlist.draw(readable_by(reader, product_id), text=text, limit=limit)
        ids = [candidate.question_id for candidate in words]
    found = Suggestions(_as_canonical(ids, reader)[:limit], ranked_by)
    timing.note_now(f"suggest_{ranked_by}", time.monotonic() - begun)
    return found


def _ask_worker(draft: Draft, deadline: float) -> tuple[list[int] | None, Ranking]:
    """What a worker found by then; None where none took the draft, or none is expected to."""
    if time.monotonic() < _silent_until:
        return None, Ranking.WORDS
    draft.save(force_insert=True)
    try:
        if not outbox.send(TASK, str(draft.pk), expires=EXPIRE_SECONDS):
            return None, Ranking.WORDS
        near, found = _await(draft, deadline)
    finally:
        old = timezone.now() - timedelta(seconds=DRAFT_SECONDS)
        Draft.objects.filter(Q(pk=draft.pk) | Q(put_at__lt=old)).delete()
    _note(was_taken=near is not None)
    if found is not None:
        return found, Ranking.SCORES
    if near is not None:
        return near[: draft.limit], Ranking.MEANING
    return None, Ranking.WORDS


def _await(draft: Draft, deadline: float) -> tuple[list[int] | None, list[int] | None]:
    """What is near and what was found of that, as far as a worker came."""
    near, found, pause = None, None, FIRST_POLL_SECONDS
    while found is None and time.monotonic() < deadline:
        time.sleep(pause)
        pause = POLL_SECONDS
        rows = Draft.objects.filter(pk=draft.pk).values_list("near", "found")
        near, found = rows.first() or (None, None)
    return near, found


def _note(*, was_taken: bool) -> None:
    global _missed, _silent_until  # noqa: PLW0603 - the breaker
    _missed = 0 if was_taken else _missed + 1
    if _missed >= MOST_MISSED:
        _silent_until = time.monotonic() + PAUSE_SECONDS
        log.warning("No worker took %d drafts: words alone for %.0f s", _missed, PAUSE_SECONDS)


def _as_canonical(ids: list[int], reader: User | AnonymousUser) -> list[Suggestion]:
    """The live questions that stand for these, each once, in the same order."""
    readable = Question.objects.visible_to(reader).with_answered().select_related("product")
    found = readable.written().in_bulk(ids)
    first = {found[pk].root_id: found[pk] for pk in reversed(ids) if pk in found}
    roots = dict.fromkeys(found[pk].root_id for pk in ids if pk in found)
    missing = [pk for pk in roots if pk not in found]
    standing = found | (readable.in_bulk(missing) if missing else {})
    return [
        Suggestion(standing[pk], None if first[pk].pk == pk else first[pk])
        for pk in roots
        if pk in standing
    ]
