"""A release in the shadow: judges the pairs that the active one judged, and nothing comes of it.

Worker only: the networks load here, in a process of their own that lets all others go first. It
follows behind, so many pairs an hour at most, so that no check waits for it. What it says is kept
as scores under its own name; if it is put into service one day, they count as said.
"""

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef

from dedup import flagging, releases
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.pairs import Scorer
from dedup.ml.release import open_release
from dedup.models import Release, Score
from dedup.scoring import pair_of
from dedup.texts import text_of

log = logging.getLogger(__name__)

AT_ONCE = 200  # pairs between two writes


def follow(*, now: datetime) -> int:
    """Have the shadow judge the newest pairs that the active release judged since the shadow began,
    as many as this hour still allows; returns how many it judged.

    Ends early where the shadow does. Raises dedup.ml.artifact.ArtifactRefused.
    """
    release = releases.in_shadow()
    if release is None or not is_behind(release, now=now):
        return 0
    scorer = _open(release)
    done, left = 0, allowed(release, now=now)
    while done < left and releases.in_shadow() == release:
        rows = _behind(release, min(AT_ONCE, left - done))
        if not rows:
            break
        _store(rows, release=release, scorer=scorer, now=now)
        done += len(rows)
    return done


def is_behind(release: Release, *, now: datetime) -> bool:
    """Whether there is something to judge, and this hour allows it."""
    return allowed(release, now=now) > 0 and bool(_behind(release, 1))


def allowed(release: Release, *, now: datetime) -> int:
    """How many pairs it may judge until an hour is over."""
    since = now - timedelta(hours=1)
    judged = Score.objects.filter(release=release, scored_at__gt=since).count()
    return max(0, settings.DEDUP_SHADOW_PER_HOUR - judged)


def _open(release: Release) -> Scorer:
    scorer = open_release(releases.folder_of(release), threads=settings.DEDUP_THREADS)
    if scorer.fingerprint != release.fingerprint:
        raise ArtifactRefused(releases.OTHER_FILES)
    return scorer


def _behind(release: Release, count: int) -> list[Score]:
    """The newest scores of the active release, of texts as they stand, that the shadow lacks."""
    own = Score.objects.filter(
        release=release, older=OuterRef("older"), newer=OuterRef("newer"),
        older_hash=OuterRef("older_hash"), newer_hash=OuterRef("newer_hash"),
    )  # fmt: skip
    rows = (
        Score.objects.filter(release__is_active=True, scored_at__gte=release.shadow_since)
        .exclude(Exists(own))
        .order_by("-scored_at", "-pk")
        .select_related("older", "newer", "release")
    )
    found: list[Score] = []
    begun = 0
    while len(found) < count and (some := list(rows[begun : begun + 2 * count])):
        found += [row for row in some if _is_as_judged(row)]
        begun += len(some)
    return found[:count]


def _is_as_judged(row: Score) -> bool:
    return (text_of(row.older).hash, text_of(row.newer).hash) == (row.older_hash, row.newer_hash)


def _store(rows: Sequence[Score], *, release: Release, scorer: Scorer, now: datetime) -> None:
    pairs = [pair_of(text_of(row.older), text_of(row.newer)) for row in rows]
    cosines = _cosines(rows, release=release, scorer=scorer)
    said = scorer.judge(pairs, cosines)
    if not all(math.isfinite(one.probability) for one in said):
        raise FloatingPointError("the release in the shadow gave a score that is not finite")
    made = [
        Score(
            older_id=row.older_id, newer_id=row.newer_id, older_hash=row.older_hash,
            newer_hash=row.newer_hash, release=release, logit=one.logit, cosine=one.cosine,
            probability=one.probability, settled_by=one.settled_by, scored_at=now,
        )
        for row, one in zip(rows, said, strict=True)
    ]  # fmt: skip
    flagging.keep_scores(made)


def _cosines(rows: Sequence[Score], *, release: Release, scorer: Scorer) -> list[float]:
    """As they were measured, where both releases have one bi-encoder; else by the shadow's own."""
    if all(row.release.embedding_fingerprint == release.embedding_fingerprint for row in rows):
        return [row.cosine for row in rows]
    texts = {row.older_id: text_of(row.older).input for row in rows}
    texts |= {row.newer_id: text_of(row.newer).input for row in rows}
    vectors = dict(zip(texts, scorer.embed(list(texts.values())), strict=True))
    return [float(vectors[row.older_id] @ vectors[row.newer_id]) for row in rows]
