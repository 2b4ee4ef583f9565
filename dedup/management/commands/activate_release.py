from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dedup import promoting, releases, reports
from dedup.ml.artifact import ArtifactRefused
from dedup.ml.release import open_release
from dedup.models import Release

NOT_ASKED = "Its gates were not asked: it was never measured beside %s (manage.py evaluate)."


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
        parser.add_argument("--force", metavar="REASON", default="", help="why, if gates are shut")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["if_none"] and _usable():
            self.stdout.write("A release is active already.")
            return
        try:
            if options["back"]:
                release = releases.roll_back()
            else:
                release = self._activate(options["name"], reason=options["force"])
        except (ArtifactRefused, releases.NoRelease, releases.NoWayBack) as error:
            raise CommandError(f"Refused: {error}") from error
        except promoting.GatesShut as shut:
            said = "\n".join(f"  {gate.title}: {gate.found}" for gate in shut.gates)
            hint = 'With --force "why" it goes into service all the same.'
            raise CommandError(f"Refused, gates are shut:\n{said}\n{hint}") from shut
        self.stdout.write(f"{release} is in service. Run recheck to compare older questions again.")

    def _activate(self, name: str, *, reason: str) -> Release:
        """Through the gates where there is something to judge by."""
        open_release(releases.folder_named(name))  # proved first: what fails leaves no row behind
        release, before = releases.add(name), _usable()
        if before is None or before.pk == release.pk:
            return releases.activate(release=release)
        if reports.newest(release, against=before):
            return promoting.promote(release=release, by=None, reason=reason)
        self.stdout.write(NOT_ASKED % before)
        return releases.activate(release=release)


def _usable() -> Release | None:
    """The release in service, if its files are what they were."""
    try:
        release = releases.active()
        releases.prove_files(release)
    except (releases.NoRelease, ArtifactRefused):
        return None
    return release
