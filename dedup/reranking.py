"""The worker's side of suggestions: a draft is embedded, shortlisted for its reader, reranked."""

from dedup import scoring, shortlist
from dedup.models import Draft
from dedup.suggesting import readable_by
from dedup.texts import Text, text_of
from support.models import Question

RERANKED = 16  # candidates that the cross-encoder reads for a draft


def answer(draft_id: str) -> None:
    """Write into the draft's row what resembles it: [[question id, probability], ...].

    Only what its reader may see is ever ranked. A draft that is gone is left alone.
    """
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
    near = {c.question_id: c.cosine for c in candidates[:RERANKED] if c.cosine is not None}
    others = [text_of(question) for question in Question.objects.filter(pk__in=near)]
    own = Text(0, (draft.put_at, 0), draft.text, "")
    judged = scorer.judge(
        [scoring.pair_of(own, other) for other in others],
        [near[other.question_id] for other in others],
    )
    found = sorted(
        ([other.question_id, said.probability] for other, said in zip(others, judged, strict=True)),
        key=lambda row: (-row[1], row[0]),
    )
    Draft.objects.filter(pk=draft_id).update(
        found=[row for row in found if row[1] >= release.suggestion_floor][: draft.limit]
    )
