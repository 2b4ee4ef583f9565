import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Measure a release on the sets in a folder, beside the cosine alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("artifact", type=Path, help="a release's folder")
        parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.ml.artifact import ArtifactRefused  # noqa: PLC0415
        from dedup.ml.measuring import Reported, measure_all  # noqa: PLC0415 - loads torch
        from dedup.ml.release import open_release  # noqa: PLC0415 - loads torch

        try:
            scorer = open_release(options["artifact"])
        except ArtifactRefused as error:
            raise CommandError(str(error)) from error
        found = measure_all(
            options["data"], scorer.bi, scorer.cross, scorer.calibration,
            scorer.manifest.thresholds["flag"], Reported.of(scorer.bi, scorer.cross),
        )  # fmt: skip
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        lists = found["shortlists"]
        self.stdout.write(f"shortlists: AP {lists['ap']:.4f}, cosine {lists['ap_cosine']:.4f}")
        for name, row in found["sets"].items():
            figures = f"{row['metric']} {row['release']:.4f}, cosine {row['cosine']:.4f}"
            self.stdout.write(f"{name}: {figures}")
