"""The worker's side of suggestions: a draft is embedded, shortlisted for its reader, reranked."""

import time
from collections.abc import Iterator, Sequence

from django.conf import settings

from dedup import scoring, shortlist
from dedup.ml.pairs import Scorer
from dedup.models import Draft
from dedup.shortlist import Candidate
from dedup.suggesting import UNFINISHED, readable_by
from dedup.texts import Text, text_of
from support.models import Question

RERANKED = 16  # candidates that the cross-encoder reads for a draft
AT_ONCE = 4  # of them; between two batches it is seen whether there is time for another
# Cosine below which a search's candidate that shares no rare word with it is none. On the demo's
# portal what is nearest to mere letters and to other subjects lies at 0.11 to 0.19.
MEANT = 0.25
SHARE = 0.35  # of the reader's patience, after which no batch is begun


def answer(draft_id: str) -> None:
    """Write into the draft's row the ids of what resembles it, likeliest first: `near` as soon as
    the shortlist is there, `found` once the cross-encoder has read the first of them.

    Only what its reader may see is ever ranked. A draft that is gone is left alone.
    """
    begun = time.monotonic()
    draft = Draft.objects.select_related("reader").filter(pk=draft_id, found__isnull=True).first()
    if draft is None:
        return
    release, scorer = scoring.active_scorer()
    vector = scorer.embed([draft.text])[0]
    candidates = shortlist.draw(
        readable_by(draft.reader, draft.product_id),
        text=draft.text,
        vector=vector,
        fingerprint=scorer.embedding_fingerprint,
        limit=max(RERANKED, draft.limit),
    )
    if not draft.only_likely:
        candidates = [one for one in candidates if one.shares_words or (one.cosine or 0) >= MEANT]
    near = [candidate.question_id for candidate in candidates]
    if not Draft.objects.filter(pk=draft_id).update(near=near):
        return
    until = begun + SHARE * settings.DEDUP_SUGGEST_SECONDS
    own = Text(0, (draft.put_at, 0), draft.text, "")
    read = dict(_read(own, candidates[:RERANKED], scorer, until))
    floor = UNFINISHED * release.suggestion_floor if draft.only_likely else 0.0
    likely = [pk for pk in read if read[pk] >= floor]
    likely.sort(key=lambda pk: (-read[pk], pk))
    rest = [] if draft.only_likely else [pk for pk in near if pk not in read]
    Draft.objects.filter(pk=draft_id).update(found=[*likely, *rest][: draft.limit])


def _read(
    own: Text, candidates: Sequence[Candidate], scorer: Scorer, until: float
) -> Iterator[tuple[int, float]]:
    """Probabilities by question id, of the nearest first, as far as the time allows."""
    near = {c.question_id: c.cosine for c in candidates if c.cosine is not None}
    found = Question.objects.filter(pk__in=near).sound()
    texts = {question.pk: text_of(question) for question in found}
    others = [texts[pk] for pk in near if pk in texts]
    for begun in range(0, len(others), AT_ONCE):
        if begun and time.monotonic() > until:
            return
        batch = others[begun : begun + AT_ONCE]
        judged = scorer.judge(
            [scoring.pair_of(own, other) for other in batch],
            [near[other.question_id] for other in batch],
        )
        for other, said in zip(batch, judged, strict=True):
            yield other.question_id, said.probability
