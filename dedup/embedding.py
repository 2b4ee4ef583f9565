"""Question -> vector row. Worker only; committed before the shortlist is drawn.

So of two questions that are checked at the same moment, at least one finds the other. An edit that
came meanwhile wins: its own check stores the newer vector, and no older one ever covers it.
"""

from collections.abc import Sequence

import numpy as np
from django.db import transaction

from dedup.ml.pairs import Scorer
from dedup.models import Embedding
from dedup.texts import Text, text_of
from support.models import Question


def renew(texts: Sequence[Text], *, scorer: Scorer) -> dict[int, np.ndarray]:
    """Return the unit vectors of these texts by question id; new and stale ones are stored."""
    stored = {
        row.question_id: row
        for row in Embedding.objects.filter(question__in=[text.question_id for text in texts])
    }
    current = {
        text.question_id: np.asarray(stored[text.question_id].vector, dtype=np.float32)
        for text in texts
        if _is_current(stored.get(text.question_id), text, scorer)
    }
    stale = [text for text in texts if text.question_id not in current]
    if stale:
        vectors = scorer.embed([text.input for text in stale])
        renewed = {text.question_id: row for text, row in zip(stale, vectors, strict=True)}
        _store(stale, renewed, scorer.embedding_fingerprint)
        current |= renewed
    return current


@transaction.atomic
def _store(texts: Sequence[Text], vectors: dict[int, np.ndarray], fingerprint: str) -> None:
    hashes = {text.question_id: text.hash for text in texts}
    locked = Question.objects.filter(pk__in=hashes).order_by("pk").select_for_update(no_key=True)
    Embedding.objects.bulk_create(
        [
            Embedding(
                question_id=question.pk,
                vector=vectors[question.pk],
                text_hash=hashes[question.pk],
                fingerprint=fingerprint,
            )
            for question in locked
            if text_of(question).hash == hashes[question.pk]
        ],
        update_conflicts=True,
        unique_fields=["question"],
        update_fields=["vector", "text_hash", "fingerprint", "embedded_at"],
    )


def _is_current(row: Embedding | None, text: Text, scorer: Scorer) -> bool:
    return (
        row is not None
        and row.text_hash == text.hash
        and row.fingerprint == scorer.embedding_fingerprint
    )
