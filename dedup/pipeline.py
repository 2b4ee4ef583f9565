"""From waiting questions to findings: the only place that knows the order of the stages."""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from django.utils import timezone

from dedup import decision, embedding, flagging, scoring, shortlist, timing
from dedup.decision import ScoredCandidate
from dedup.flagging import Findings
from dedup.ml.pairs import AlignedWords, Scorer
from dedup.models import Release
from dedup.texts import Text, text_of
from dedup.timing import Stage
from support import merging, outbox
from support.models import OutboxEntry, Question
from support.outbox import Claim

log = logging.getLogger(__name__)

BATCH_SECONDS = (
    10.0  # then the rest goes back: a slow machine overruns no limit, and can be stopped
)
HANGS_SECONDS = 10.0  # at one question: who is ended then was not told to stop, but took too long
# Of a database that is gone, full or going down (SQLSTATE): no question's fault.
OUTAGES = ("08", "53", "57P")


@timing.batch()
def check_waiting(*, limit: int) -> int:
    """Check up to `limit` questions of the outbox; return how many were settled.

    The networks are loaded before anything is claimed, so that loading never uses up a lease.
    Raises releases.NoRelease, and DatabaseError while the database is out.
    """
    release, scorer = scoring.active_scorer()
    scorer = scoring.with_student(release, scorer)
    begun = time.perf_counter()
    claims = outbox.claim(limit=limit, now=timezone.now())
    if claims:
        passed = (time.perf_counter() - begun) / len(claims)
        timing.note(Stage.CLAIM, passed, times=len(claims))
    left = list(claims)
    deadline = time.monotonic() + BATCH_SECONDS
    try:
        for claim, findings in check(claims, release=release, scorer=scorer):
            _settle(claim, findings)
            left.remove(claim)
            if time.monotonic() > deadline or _gives_way(claim):
                break
    except Exception as error:
        if _is_outage(error):
            _give_back(left)
            raise
        log.exception("A check failed with %d questions left", len(left))
        timing.note(Stage.FAILED, 0)
        outbox.fail(left, error=error, now=timezone.now())
        return len(claims) - len(left)
    except BaseException as error:
        # The hard limit ends a process in the same way as somebody who stops the worker. What it
        # was at swallowed the soft one, and would do so for ever if nobody counted.
        if time.monotonic() > deadline + HANGS_SECONDS:
            outbox.fail(left, error=error, now=timezone.now())
        else:  # told to stop: nobody's fault
            outbox.release(left)
        raise
    outbox.release(left)
    _note_waits([one.question_id for one in claims if one not in left and not one.is_background])
    return len(claims) - len(left)


def _note_waits(question_ids: Collection[int]) -> None:
    """Count how long these questions waited, from the moment that they were put up for a check."""
    entries = OutboxEntry.objects.filter(question__in=question_ids)
    for entry in entries if question_ids else []:
        if entry.settled_at:  # else it was edited meanwhile, and waits anew
            timing.note(Stage.WAITED, (entry.settled_at - entry.put_at).total_seconds())


def _gives_way(claim: Claim) -> bool:
    """Whether somebody waits while this batch is of what nobody waits for."""
    return claim.is_background and outbox.has_live_waiting(timezone.now())


def _is_outage(error: Exception) -> bool:
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.__cause__, "sqlstate", None)
    return state is None or state.startswith(OUTAGES)


def _give_back(claims: Sequence[Claim]) -> None:
    """As far as the database lets us; else the lease runs out."""
    close_old_connections()
    with suppress(DatabaseError):
        outbox.release(claims)


def check(
    claims: Sequence[Claim], *, release: Release, scorer: Scorer
) -> Iterator[tuple[Claim, Findings]]:
    """Yield what is found about each claimed question, one after the other."""
    questions = Question.objects.in_bulk([claim.question_id for claim in claims])
    texts = {pk: text_of(question) for pk, question in questions.items()}
    with timing.stage(Stage.EMBED, times=len(texts)):
        vectors = embedding.renew(list(texts.values()), scorer=scorer)
    for claim in claims:
        text = texts[claim.question_id]
        yield claim, find(text, vectors[text.question_id], release=release, scorer=scorer)


def find(text: Text, vector: np.ndarray, *, release: Release, scorer: Scorer) -> Findings:
    """Compare one question with all others: agents see all of them, so nothing is left out."""
    # As values: with a subquery in it the planner reads all rows instead of walking an index.
    own_thread = list(Question.objects.of_threads(text.question_id).values_list("pk", flat=True))
    with timing.stage(Stage.SHORTLIST):
        candidates = shortlist.draw(
            Question.objects.exclude(pk__in=own_thread),
            text=text.input,
            vector=vector,
            fingerprint=scorer.embedding_fingerprint,
            limit=settings.DEDUP_SHORTLIST,
        )
    roots = {candidate.question_id: candidate.root_id for candidate in candidates}
    others = {q.pk: text_of(q) for q in Question.objects.filter(pk__in=roots).sound()}
    # One whose vector is missing or of an older text waits for its own check, and meets this there.
    given = [
        (others[candidate.question_id], candidate.cosine)
        for candidate in candidates
        if candidate.question_id in others
        and candidate.cosine is not None
        and candidate.text_hash == others[candidate.question_id].hash
    ]
    with timing.stage(Stage.SCORE):
        judged = scoring.score(text, given, release=release, scorer=scorer)
    scored = [
        ScoredCandidate(
            other.question_id,
            roots[other.question_id],
            other.hash,
            said.logit,
            said.cosine,
            said.probability,
            said.settled_by,
        )
        for (other, _), said in zip(given, judged, strict=True)
    ]
    to_flag = decision.decide(
        scored, threshold=release.threshold, limit=settings.DEDUP_FLAGS_PER_QUESTION
    )
    sampled = decision.sample(
        scored,
        threshold=release.threshold,
        per_question=settings.DEDUP_SAMPLED_PER_QUESTION,
        draw=lambda one: decision.permanent_number(text, others[one.question_id]),
    )
    asked = [*to_flag, *(one.candidate for one in sampled)]
    with timing.stage(Stage.ALIGN):
        aligned = align(text, [others[one.question_id] for one in asked], scorer=scorer)
    return Findings(text, others, scored, to_flag, release, aligned, sampled)


def align(text: Text, others: Sequence[Text], *, scorer: Scorer) -> dict[int, list[AlignedWords]]:
    """Words that mean each other in `text` and each of `others`, by the other question's id.

    They only help to read: where they cannot be found the check goes on without them.
    """
    try:
        found = scorer.align([scoring.pair_of(text, other) for other in others])
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        log.exception("Question %s is checked without its aligned words", text.question_id)
        timing.note(Stage.UNALIGNED, 0)
        return {}
    return {other.question_id: words for other, words in zip(others, found, strict=True)}


def _settle(claim: Claim, findings: Findings, now: datetime | None = None) -> None:
    @merging.retried
    def settle() -> None:
        moment = now or timezone.now()
        with outbox.settling(claim, checked_by=findings.release.fingerprint, now=moment):
            flagging.write(findings, now=moment)

    try:
        with timing.stage(Stage.WRITE):
            settle()
    except outbox.ClaimLost:
        log.info("Question %s changed while it was checked", claim.question_id)
