import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dedup import releases
from dedup.ml.artifact import ArtifactRefused, verify
from dedup.ml.text import model_input


class Command(BaseCommand):
    help = "Take a cross-encoder that others trained as a release, calibrated on this portal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("checkpoint", help="a folder, or a name on the hub; one logit")
        parser.add_argument("--name", help="the release's; the checkpoint's own by default")
        parser.add_argument(
            "--labels", type=Path, help="JSON lines with q1, q2, label; verdicts are taken without"
        )
        parser.add_argument(
            "--like", default=settings.DEDUP_RELEASE, help="the release whose bi-encoder is kept"
        )
        parser.add_argument(
            "--languages", nargs="+", default=["en"], help="those that the checkpoint reads"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.ml.adopting import CheckpointRefused  # noqa: PLC0415 - loads torch

        name = options["name"] or Path(options["checkpoint"]).name
        try:
            raw = _take(options, name)
            releases.add(name)
        except (ArtifactRefused, CheckpointRefused) as error:
            raise CommandError(f"Refused: {error}") from error
        self.stdout.write(
            f"{name} is a release now, calibrated on {raw['calibration']['on']}."
            f" Put it into service with: activate_release {name}"
        )


def _take(options: dict[str, Any], name: str) -> dict[str, Any]:
    from dedup import adopting  # noqa: PLC0415 - loads torch
    from dedup.ml.adopting import adopt  # noqa: PLC0415
    from dedup.ml.data import Labelled  # noqa: PLC0415

    checkpoint, languages = options["checkpoint"], options["languages"]
    like = releases.folder_named(options["like"])
    if not options["labels"]:
        return adopting.take(checkpoint, name=name, like=like, languages=languages)
    try:
        labels = [Labelled(*row) for row in read_labels(options["labels"])]
    except (OSError, ValueError) as error:
        raise CommandError(f"The labels cannot be read: {error}") from error
    verify(like)
    return adopt(checkpoint, like, labels, releases.made_folder() / name, languages)


def read_labels(file: Path) -> list[tuple[str, str, float]]:
    """Raises ValueError, with the line's number, where a line is no labelled pair."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            one = model_input(row["q1"], row.get("body1", ""))
            other = model_input(row["q2"], row.get("body2", ""))
            if row["label"] not in (0, 1):
                raise ValueError(f"label {row['label']!r} is neither 0 nor 1")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"line {number}: {type(error).__name__}: {error}") from error
        found.append((one, other, float(row["label"])))
    return found
