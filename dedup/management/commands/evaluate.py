import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table


class Command(BaseCommand):
    help = "Measure a release on the sets in a folder, beside the cosine alone and words alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("artifact", type=Path, help="a release's folder")
        parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.ml.artifact import ArtifactRefused  # noqa: PLC0415
        from dedup.ml.measuring import Measuring, Reported  # noqa: PLC0415 - loads torch
        from dedup.ml.release import open_release  # noqa: PLC0415 - loads torch

        try:
            scorer = open_release(options["artifact"])
        except ArtifactRefused as error:
            raise CommandError(str(error)) from error
        measuring = Measuring(
            options["data"], scorer.bi, scorer.cross, scorer.calibration, scorer.even,
            scorer.manifest.thresholds["flag"],
        )  # fmt: skip
        found = measuring.all(Reported.of(scorer.bi, scorer.cross))
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        table = Table("set", "rows", "metric", "release", "cosine alone", "words alone")
        named = {k: found[k] for k in ("shortlists", "topics", "links")}
        for name, row in {**named, **found["sets"], **found["intents"]}.items():
            figures = (f"{row[kind]:.4f}" for kind in ("release", "cosine", "tfidf"))
            table.add_row(name, str(row["rows"]), row["metric"], *figures)
        Console(file=self.stdout, width=100).print(table)  # type: ignore[arg-type]
