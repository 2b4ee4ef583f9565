"""The Celery app with a scorer that some texts kill and others hang: for drills alone.

`celery -A tests.drills.faulty_app`. What it does to a text is told by a word in that text.
"""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from celery.signals import worker_process_init
from django.conf import settings
from django.utils import timezone

from support.celery import app

DEADLY = "deadly7"  # kills the process that scores it
SLEEPY = "sleepy7"  # never comes back, until something is raised in it
STUBBORN = "stubborn7"  # never comes back, and swallows every error on the way
DEAF = "deaf7"  # never comes back, and hears no signal but SIGKILL, as a loop in C
CHECK = "dedup.tasks.check_waiting"

# "soft,hard,lease" in seconds, where a drill has no time for those of the project.
if LIMITS := [float(word) for word in os.environ.get("DRILL_LIMITS", "").split(",") if word]:
    app.conf.task_annotations = {CHECK: {"soft_time_limit": LIMITS[0], "time_limit": LIMITS[1]}}


@worker_process_init.connect
def break_scorer(**_: object) -> None:
    """In each new child of a worker."""
    from dedup import pipeline, scoring  # noqa: PLC0415 - its models need a ready Django

    whole = scoring.score

    def score(text: Any, others: Sequence[Any], **given: Any) -> Any:
        for one in (text, *(other for other, _ in others)):
            suffer(one.input)
        return whole(text, others, **given)

    scoring.score = score
    if LIMITS:
        settings.DEDUP_LEASE_SECONDS = LIMITS[2]
        pipeline.BATCH_SECONDS = pipeline.HANGS_SECONDS = LIMITS[0] / 4


def suffer(words: str) -> None:
    """Do to this process what a text does to it."""
    if DEADLY in words:
        _end_leases()
        os.kill(os.getpid(), signal.SIGKILL)
    if DEAF in words:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while SLEEPY in words or DEAF in words:
        time.sleep(3600)
    while STUBBORN in words:
        try:
            time.sleep(3600)
        except Exception:
            continue


def _end_leases() -> None:
    """Where a drill has no time for leases: as if those of the process that dies had run out."""
    if "DRILL_ENDS_LEASES" in os.environ:
        from support.models import OutboxEntry  # noqa: PLC0415 - as above

        held = OutboxEntry.objects.filter(token__isnull=False)
        held.update(leased_until=timezone.now())
