from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dedup import releases
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.release import open_release
from dedup.models import Release


class Command(BaseCommand):
    help = "Prove a release on its golden pairs and put it into service, or roll back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        chosen = parser.add_mutually_exclusive_group()
        chosen.add_argument(
            "name", nargs="?", default=settings.DEDUP_RELEASE, help="a folder among the artifacts"
        )
        chosen.add_argument("--back", action="store_true", help="the one that was replaced")
        parser.add_argument(
            "--if-none", action="store_true", help="only where none is active that can be used"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["if_none"] and _is_any_usable():
            self.stdout.write("A release is active already.")
            return
        try:
            release = releases.roll_back() if options["back"] else _activate(options["name"])
        except (ArtifactRefused, releases.NoRelease, releases.NoWayBack) as error:
            raise CommandError(f"Refused: {error}") from error
        self.stdout.write(f"{release} is in service. Run recheck to compare older questions again.")


def _is_any_usable() -> bool:
    try:
        releases.prove_files(releases.active())
    except (releases.NoRelease, ArtifactRefused):
        return False
    return True


def _activate(name: str) -> Release:
    open_release(releases.folder_named(name))  # proved first: what fails leaves no row behind
    return releases.activate(release=releases.add(name))
