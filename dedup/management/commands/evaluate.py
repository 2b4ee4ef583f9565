"""manage.py evaluate ARTIFACT --data FOLDER [--json]"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Thin over dedup.ml.measuring."""

    help = "Measures a release on the data in a folder, beside the cosine alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("artifact", type=Path)
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.ml.artifact import ArtifactRefused  # noqa: PLC0415
        from dedup.ml.building import fitting_split  # noqa: PLC0415 - loads torch
        from dedup.ml.measuring import Measured, measure_all  # noqa: PLC0415 - loads torch
        from dedup.ml.release import open_release  # noqa: PLC0415 - loads torch

        try:
            scorer = open_release(options["artifact"])
        except ArtifactRefused as error:
            raise CommandError(str(error)) from error
        rows = scorer.manifest.raw["calibration"]["rows"]
        held = Measured.of(fitting_split(options["data"], rows)[1], scorer.bi, scorer.cross)
        found = measure_all(options["data"], scorer.bi, scorer.cross, scorer.calibration, held,
                            scorer.manifest.thresholds["flag"])  # fmt: skip
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        for name, figures in found.items():
            self.stdout.write(f"{name}: {figures}")
