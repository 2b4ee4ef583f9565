from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from support import outbox
from support.models import OutboxEntry, Question

BATCH = 500


class Command(BaseCommand):
    help = "Put all questions up for a check again, as after a new release."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--quarantined", action="store_true", help="only those, once more")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["quarantined"]:
            ids = list(OutboxEntry.objects.quarantined().values_list("question", flat=True))
            number = outbox.retry_quarantined(question_ids=ids)
        else:
            number = _put_all()
        self.stdout.write(f"{number} questions wait for their check.")


def _put_all() -> int:
    # Merged ones too: others are compared with their texts, so their vectors must be renewed.
    ids = list(Question.objects.written().order_by("pk").values_list("pk", flat=True))
    return sum(outbox.put_all(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH))
