"""From waiting questions to findings: the only place that knows the order of the stages."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from django.conf import settings
from django.utils import timezone

from dedup import decision, embedding, flagging, scoring, shortlist
from dedup.decision import ScoredCandidate
from dedup.flagging import Findings
from dedup.ml.pairs import Scorer
from dedup.models import Release
from dedup.texts import Text, text_of
from support import merging, outbox
from support.models import Question
from support.outbox import Claim

log = logging.getLogger(__name__)


def check_waiting(*, limit: int) -> int:
    """Check up to `limit` questions of the outbox; return how many were settled.

    The networks are loaded before anything is claimed, so that loading never uses up a lease.
    """
    release, scorer = scoring.active_scorer()
    claims = outbox.claim(limit=limit, now=timezone.now())
    settled: set[Claim] = set()
    try:
        for claim, findings in check(claims, release=release, scorer=scorer):
            _settle(claim, findings)
            settled.add(claim)
    except Exception as error:
        log.exception("A check failed with %d questions left", len(claims) - len(settled))
        left = [claim for claim in claims if claim not in settled]
        outbox.fail(left, error=error, now=timezone.now())
    except BaseException:  # told to stop: nobody's fault
        outbox.release([claim for claim in claims if claim not in settled])
        raise
    return len(settled)


def check(
    claims: Sequence[Claim], *, release: Release, scorer: Scorer
) -> Iterator[tuple[Claim, Findings]]:
    """Yield what is found about each claimed question, one after the other."""
    questions = Question.objects.in_bulk([claim.question_id for claim in claims])
    texts = {pk: text_of(question) for pk, question in questions.items()}
    vectors = embedding.renew(list(texts.values()), scorer=scorer)
    for claim in claims:
        text = texts[claim.question_id]
        yield claim, find(text, vectors[text.question_id], release=release, scorer=scorer)


def find(text: Text, vector: np.ndarray, *, release: Release, scorer: Scorer) -> Findings:
    """Compare one question with all others: agents see all of them, so nothing is left out."""
    own_thread = Question.objects.of_threads(text.question_id).values("pk")
    candidates = shortlist.draw(
        Question.objects.exclude(pk__in=own_thread),
        text=text.input,
        vector=vector,
        limit=settings.DEDUP_SHORTLIST,
    )
    near = {c.question_id: c for c in candidates if c.cosine is not None}
    others = {q.pk: text_of(q) for q in Question.objects.filter(pk__in=near)}
    given = [(others[pk], near[pk].cosine or 0.0) for pk in near if pk in others]
    judged = scoring.score(text, given, release=release, scorer=scorer)
    scored = [
        ScoredCandidate(
            other.question_id,
            near[other.question_id].root_id,
            other.hash,
            said.logit,
            said.cosine,
            said.probability,
        )
        for (other, _), said in zip(given, judged, strict=True)
    ]
    to_flag = decision.decide(
        scored, threshold=release.threshold, limit=settings.DEDUP_FLAGS_PER_QUESTION
    )
    return Findings(text, others, scored, to_flag, release)


def _settle(claim: Claim, findings: Findings, now: datetime | None = None) -> None:
    @merging.retried
    def settle() -> None:
        moment = now or timezone.now()
        with outbox.settling(claim, now=moment):
            flagging.write(findings, now=moment)

    try:
        settle()
    except outbox.ClaimLost:
        log.info("Question %s changed while it was checked", claim.question_id)
