import logging
import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand

from dedup import jobs
from dedup.runners import RUNNERS

NICENESS = 15  # behind checks, which are behind what somebody waits for
NOTHING_WAITED = 3


class Command(BaseCommand):
    help = "Do one job that waits, such as a training. Workers of the training queue call it."

    def handle(self, *args: Any, **options: Any) -> None:
        logging.getLogger("dedup").setLevel(logging.INFO)
        signal.signal(signal.SIGTERM, _end)
        os.nice(NICENESS)
        jobs.bound_memory()
        job = jobs.run(RUNNERS)
        if job is None:
            self.stdout.write("No job waits that can be done here.")
            sys.exit(NOTHING_WAITED)
        self.stdout.write(f"{job} {job.failure}".strip())


def _end(*_: object) -> None:
    """Told to end: `jobs.run` lets this through, and gives the job back."""
    sys.exit(128 + signal.SIGTERM)
