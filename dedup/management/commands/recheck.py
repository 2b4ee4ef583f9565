from typing import Any

from django.core.management.base import BaseCommand

from support import outbox
from support.models import Question

BATCH = 500


class Command(BaseCommand):
    help = "Put all questions up for a check again, as after a new release."

    def handle(self, *args: Any, **options: Any) -> None:
        # Merged ones too: others are compared with their texts, so their vectors must be renewed.
        ids = list(Question.objects.order_by("pk").values_list("pk", flat=True))
        for start in range(0, len(ids), BATCH):
            outbox.put_all(ids[start : start + BATCH])
        self.stdout.write(f"{len(ids)} questions wait for their check.")
