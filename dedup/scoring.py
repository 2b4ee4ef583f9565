"""Pairs -> scores -> probabilities, by the active release. Worker only: the networks load here."""

import logging
import math
import time
from collections.abc import Sequence

from django.conf import settings

from dedup import releases
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.pairs import Judged, Pair, Scorer, SettledBy
from dedup.ml.release import open_release
from dedup.models import Release, Score
from dedup.texts import Text

log = logging.getLogger(__name__)

REFUSED_SECONDS = 60.0  # a refused release is not opened again for so long, while another runs

_loaded: tuple[Release, Scorer] | None = None
_refused: dict[str, float] = {}  # fingerprint -> when


def active_scorer() -> tuple[Release, Scorer]:
    """Return the active release and its scorer, loaded once for each process.

    A release that is refused never replaces the one that runs. Raises releases.NoRelease, or
    ArtifactRefused where no other is loaded.
    """
    global _loaded  # noqa: PLW0603 - one copy of the networks for each process
    release = releases.active()
    if _loaded and _loaded[0].fingerprint == release.fingerprint:
        _loaded = (release, _loaded[1])  # thresholds may have moved
        return _loaded
    refused_at = _refused.get(release.fingerprint, -math.inf)
    if _loaded and time.monotonic() < refused_at + REFUSED_SECONDS:
        return _loaded
    try:
        _loaded = (release, _open(release))
    except ArtifactRefused as error:
        if _loaded is None:
            raise
        _refused[release.fingerprint] = time.monotonic()
        log.error("Release %s is refused, %s goes on: %s", release.name, _loaded[0].name, error)
    return _loaded


def _open(release: Release) -> Scorer:
    scorer = open_release(releases.folder_of(release), threads=settings.DEDUP_THREADS)
    if scorer.fingerprint != release.fingerprint:
        raise ArtifactRefused(releases.OTHER_FILES)
    return scorer


def score(
    text: Text, others: Sequence[tuple[Text, float]], *, release: Release, scorer: Scorer
) -> list[Judged]:
    """Return what the release says of `text` paired with each of `others` (text, cosine).

    What it said before of the same two texts is taken from the scores kept. Raises
    FloatingPointError where it says what is no number: that is a failure, not "no duplicate".
    """
    kept = _kept(text, [other for other, _ in others], release)
    missing = [(other, cosine) for other, cosine in others if other.question_id not in kept]
    judged = scorer.judge(
        [pair_of(text, other) for other, _ in missing], [cosine for _, cosine in missing]
    )
    numbers = [number for said in judged for number in (said.logit, said.probability)]
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise FloatingPointError("the release gave a score that is not finite")
    kept.update({other.question_id: said for (other, _), said in zip(missing, judged, strict=True)})
    return [kept[other.question_id] for other, _ in others]


def pair_of(one: Text, other: Text) -> Pair:
    """The older text first."""
    older, newer = sorted([one, other], key=lambda text: text.order)
    return Pair(older.input, newer.input)


def _kept(text: Text, others: Sequence[Text], release: Release) -> dict[int, Judged]:
    hashes = {other.question_id: other.hash for other in others}
    rows = Score.objects.filter(release=release)
    as_older = rows.filter(older=text.question_id, older_hash=text.hash, newer__in=hashes)
    as_newer = rows.filter(newer=text.question_id, newer_hash=text.hash, older__in=hashes)
    found = {row.newer_id: (row.newer_hash, row) for row in as_older}
    found |= {row.older_id: (row.older_hash, row) for row in as_newer}
    return {
        pk: Judged(row.logit, row.cosine, row.probability, SettledBy(row.settled_by))
        for pk, (hash_, row) in found.items()
        if hashes[pk] == hash_
    }
