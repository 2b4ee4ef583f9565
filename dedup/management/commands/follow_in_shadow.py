import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from dedup import jobs, shadowing
from dedup.management.commands.run_job import NICENESS
from dedup.ml.artifact import ArtifactRefused


class Command(BaseCommand):
    help = "Let the release in the shadow judge what the one in service judged. Workers call it."

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        os.nice(NICENESS)
        jobs.bound_memory()
        try:
            done = shadowing.follow(now=timezone.now())
        except ArtifactRefused as error:
            raise CommandError(f"Refused: {error}") from error
        self.stdout.write(f"{done} pairs judged in the shadow.")
