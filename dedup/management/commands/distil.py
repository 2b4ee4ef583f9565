import logging
import signal
import sys
import time
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from dedup import jobs, starting
from dedup.models import Job

SAID_EVERY = 10.0  # seconds


class Command(BaseCommand):
    help = "Make a smaller release that says nearly what the one in service says."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", default="", help="the student's; made of the release's")
        parser.add_argument("--layers", type=int, default=3)
        parser.add_argument("--minutes", type=float, help="that the training may take")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument(
            "--data", type=Path,
            help="folder of sets whose texts it learns from; without, this portal's own pairs",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        from dedup.distilling import distil  # noqa: PLC0415 - loads torch

        logging.getLogger("dedup").setLevel(logging.INFO)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        held = self._held(options)
        runner = partial(distil, data=options["data"], say=self._said())
        job = jobs.do(held, {Job.Kind.DISTIL: runner})
        if job.state != Job.State.DONE:
            raise CommandError(f"It {job.state}. {job.failure}".strip())
        made = job.result
        self.stdout.write(
            f"{made['release']} is a release now: {made['layers']} layers, from {made['pairs']}"
            f" pairs. Before {made['teacher']} it would settle {made['settled']:.0%} of the held"
            f" pairs, and lose {made['lost']:.2%} of what that flags. Let it read first with:"
            f" DEDUP_CASCADE={made['release']}"
        )

    def _held(self, options: dict[str, Any]) -> jobs.Run:
        """A job of this process, or one whose process died; no worker gets between."""
        try:
            with transaction.atomic():
                starting.distilling(
                    by=None, name=options["name"], layers=options["layers"],
                    minutes=options["minutes"], seed=options["seed"],
                    has_data=options["data"] is not None,
                )  # fmt: skip
                held = jobs.claim(kinds=[Job.Kind.DISTIL], now=timezone.now())
        except jobs.JobRuns:
            held = jobs.claim(kinds=[Job.Kind.DISTIL], now=timezone.now())
        except starting.StartRefused as error:
            raise CommandError(f"--{error.field}: {error}") from error
        if held is None:
            raise CommandError("Another one waits or runs, or was killed within three minutes.")
        return held

    def _said(self) -> Any:
        said_at = -SAID_EVERY
        before = ""

        def say(done: int, total: int, step: str, seconds_left: float | None) -> None:
            nonlocal said_at, before
            name = step.partition(",")[0]
            if time.monotonic() - said_at < SAID_EVERY and name == before:
                return
            said_at, before = time.monotonic(), name
            left = "" if seconds_left is None else f", {seconds_left / 60:.0f} minutes left"
            self.stdout.write(f"{step}: {done} of {total}{left}" if total else step)

        return say
