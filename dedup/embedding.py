"""Question -> vector row. Worker only; committed before the shortlist is drawn.

So of two questions that are checked at the same moment, at least one finds the other.
"""

from collections.abc import Sequence

import numpy as np

from dedup.ml.pairs import Scorer
from dedup.models import Embedding
from dedup.texts import Text


def renew(texts: Sequence[Text], *, scorer: Scorer) -> dict[int, np.ndarray]:
    """Return the unit vectors of these texts by question id; those that are new or stale are stored."""
    stored = {
        row.question_id: row
        for row in Embedding.objects.filter(question__in=[text.question_id for text in texts])
    }
    current = {
        text.question_id: np.asarray(stored[text.question_id].vector.to_numpy(), dtype=np.float32)
        for text in texts
        if _is_current(stored.get(text.question_id), text, scorer)
    }
    stale = [text for text in texts if text.question_id not in current]
    if stale:
        vectors = scorer.embed([text.input for text in stale])
        Embedding.objects.bulk_create(
            [
                Embedding(
                    question_id=text.question_id,
                    vector=vector,
                    text_hash=text.hash,
                    fingerprint=scorer.embedding_fingerprint,
                )
                for text, vector in zip(stale, vectors, strict=True)
            ],
            update_conflicts=True,
            unique_fields=["question"],
            update_fields=["vector", "text_hash", "fingerprint", "embedded_at"],
        )
        current |= {text.question_id: row for text, row in zip(stale, vectors, strict=True)}
    return current


def _is_current(row: Embedding | None, text: Text, scorer: Scorer) -> bool:
    return (
        row is not None
        and row.text_hash == text.hash
        and row.fingerprint == scorer.embedding_fingerprint
    )
