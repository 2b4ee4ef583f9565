from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from dedup import backfilling, releases
from dedup.management.here import check_batch, ending_in_order
from dedup.ml.artifact import ArtifactRefused
from support import outbox


class Command(BaseCommand):
    help = "Check the questions that wait, here and without a broker, until none is left."

    def handle(self, *args: Any, **options: Any) -> None:
        settled = 0
        backfilling.tend()
        try:
            with ending_in_order():
                while outbox.has_waiting(timezone.now()):
                    settled += check_batch()
                    backfilling.tend()
        except (releases.NoRelease, ArtifactRefused) as error:
            raise CommandError(f"Questions wait: {error}") from error
        self.stdout.write(f"{settled} questions checked.")
