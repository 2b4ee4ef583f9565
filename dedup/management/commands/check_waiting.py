import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from dedup import pipeline, releases
from dedup.checks import HARD_LIMIT_SECONDS
from dedup.ml.artifact import ArtifactRefused
from support import outbox

PAUSE_SECONDS = 0.2  # while others hold what waits


class Command(BaseCommand):
    help = "Check the questions that wait, here and without a broker, until none is left."

    def handle(self, *args: Any, **options: Any) -> None:
        settled = 0
        try:
            with _ending_in_order():
                while outbox.has_waiting(timezone.now()):
                    settled += self._check_batch()
        except (releases.NoRelease, ArtifactRefused) as error:
            raise CommandError(f"Questions wait: {error}") from error
        self.stdout.write(f"{settled} questions checked.")

    def _check_batch(self) -> int:
        """As in a worker, a check that hangs is killed before its lease is over."""
        signal.alarm(HARD_LIMIT_SECONDS)
        try:
            settled = pipeline.check_waiting(limit=settings.DEDUP_BATCH)
        finally:
            signal.alarm(0)
        if not settled:
            time.sleep(PAUSE_SECONDS)
        return settled


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Told to end, the command unwinds, so that the check in progress gives its claims back."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
