"""Questions near a question, for who reads it: SQL alone, by the vectors that its check left."""

from collections.abc import Sequence

import numpy as np
from django.contrib.auth.models import AnonymousUser
from pgvector.django import CosineDistance

from dedup import shortlist
from dedup.models import Embedding
from support.models import Question, User

NEAR = 0.45  # cosine; below it, most of the demo's nearest have another subject


def related(
    question: Question, reader: User | AnonymousUser, *, limit: int = 5
) -> Sequence[Question]:
    """Up to `limit` live questions near this one that `reader` may see, nearest first.

    None before its first check. What somebody said is not the same may well be near: it is shown.
    """
    own = Embedding.objects.filter(question=question.pk).first()
    if own is None:
        return []
    readable = Question.objects.visible_to(reader).live()
    vector = np.asarray(own.vector, dtype=np.float32)
    near = shortlist.by_vector(readable, vector, own.fingerprint, limit + 1)  # itself is one
    distance = CosineDistance("embedding__vector", vector)
    rows = Question.objects.visible_to(reader).with_answered().select_related("product")
    found = rows.annotate(distance=distance).filter(distance__lte=1 - NEAR).in_bulk(near)
    return [found[pk] for pk in near if pk in found and pk != question.root_id][:limit]
