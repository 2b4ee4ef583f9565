"""Checks in the process of a command, without a broker."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from dedup import pipeline
from dedup.checks import HARD_LIMIT_SECONDS

PAUSE_SECONDS = 0.2  # while others hold what waits


def check_batch() -> int:
    """Check one batch; return how many were settled.

    As in a worker, a check that hangs is killed before its lease is over. Raises as
    pipeline.check_waiting.
    """
    signal.alarm(HARD_LIMIT_SECONDS)
    try:
        settled = pipeline.check_waiting(limit=settings.DEDUP_BATCH)
    finally:
        signal.alarm(0)
    if not settled:
        time.sleep(PAUSE_SECONDS)
    return settled


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Told to end, the command unwinds, so that the check in progress gives its claims back."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
