from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dedup import releases
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.release import open_release
from dedup.models import Release


class Command(BaseCommand):
    help = "Prove a release on its golden pairs and put it into service."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="a folder among the artifacts")
        parser.add_argument("--if-none", action="store_true", help="only where none is active")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["if_none"] and Release.objects.filter(is_active=True).exists():
            self.stdout.write("A release is active already.")
            return
        try:
            release = releases.add(options["name"])
            open_release(releases.folder_of(release))
        except ArtifactRefused as error:
            raise CommandError(f"Refused: {error}") from error
        releases.activate(release=release)
        self.stdout.write(f"{release} is in service. Run recheck to compare older questions again.")
