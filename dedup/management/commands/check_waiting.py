import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import OperationalError
from django.utils import timezone

from dedup import pipeline
from support import outbox


class Command(BaseCommand):
    help = "Check the questions that wait, here and without a broker, until none is left."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--watch", action="store_true", help="go on until told to stop")

    def handle(self, *args: Any, **options: Any) -> None:
        settled = 0
        while True:
            try:
                while outbox.has_waiting(timezone.now()):
                    settled += pipeline.check_waiting(limit=settings.DEDUP_BATCH)
            except OperationalError:
                if not options["watch"]:
                    raise
            if not options["watch"]:
                break
            time.sleep(settings.DEDUP_SWEEP_SECONDS)
        self.stdout.write(f"{settled} questions checked.")
