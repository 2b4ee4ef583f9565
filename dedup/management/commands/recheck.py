from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from dedup.management import following
from dedup.models import Job
from support import outbox
from support.models import OutboxEntry


class Command(BaseCommand):
    help = "Compare questions again that another release compared, in the background."

    def add_arguments(self, parser: ArgumentParser) -> None:
        following.add_arguments(parser)
        parser.add_argument(
            "--quarantined", action="store_true", help="only those whose check failed, once more"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["quarantined"]:
            ids = list(OutboxEntry.objects.quarantined().values_list("question", flat=True))
            number = outbox.retry_quarantined(question_ids=ids)
            self.stdout.write(f"{number} questions wait for their check.")
            return
        following.run(Job.Kind.RECHECK, options, self.stdout.write)
