from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import timezone

from dedup import pipeline
from support import outbox


class Command(BaseCommand):
    help = "Check the questions that wait, here and without a broker, until none is left."

    def handle(self, *args: Any, **options: Any) -> None:
        settled = 0
        while outbox.has_waiting(timezone.now()):
            settled += pipeline.check_waiting(limit=settings.DEDUP_BATCH)
        self.stdout.write(f"{settled} questions checked.")
