from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from dedup.management import following
from dedup.models import Job


class Command(BaseCommand):
    help = "Find duplicates among the questions that are there already, in the background."

    def add_arguments(self, parser: ArgumentParser) -> None:
        following.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        following.run(Job.Kind.BACKFILL, options, self.stdout.write)
