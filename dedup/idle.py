"""What a worker does where nothing waits: it measures how to feed the networks. Worker only."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.utils import timezone

from dedup import scoring, tuning
from dedup.ml.release import ReleaseScorer
from dedup.ml.tuning import Trial

log = logging.getLogger(__name__)

_trial: tuple[str, Trial] | None = None  # of this process, with the release's fingerprint


def tune() -> None:
    """Time one more way to feed the networks, about a second; after the last, use the best.

    Of several workers on a machine one measures; all use what it found. Nothing is measured where
    that was done within a week.
    """
    global _trial  # noqa: PLW0603 - a trial is of one process
    release, scorer = scoring.active_scorer()
    if not isinstance(scorer, ReleaseScorer) or scorer.fingerprint != release.fingerprint:
        return
    found = tuning.known(scorer.fingerprint)
    if found and found.is_fresh:
        scorer.feed(tokens=found.tokens, threads=found.threads)
        return
    with _alone() as is_alone:
        if not is_alone:
            return
        if _trial is None or _trial[0] != scorer.fingerprint:
            _trial = scorer.fingerprint, Trial(settings.DEDUP_THREADS)
        trial = _trial[1]
        if not trial.is_done:
            trial.step(scorer)
            return
        _trial = None
        way, ratio = trial.best()
        tuning.keep(
            scorer.fingerprint, tokens=way.tokens, threads=way.threads, ratio=ratio,
            now=timezone.now(),
        )  # fmt: skip
        scorer.feed(tokens=way.tokens, threads=way.threads)
        log.info("Batches of %d tokens on %d threads: %.2f of the usual time", way.tokens,
                 way.threads, ratio)  # fmt: skip


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other worker on this machine measures just now, and there is where to write."""
    try:
        tuning.folder().mkdir(parents=True, exist_ok=True)
        held = (tuning.folder() / "tuning.lock").open("w")
    except OSError:
        yield False
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
