"""What `backfill` and `recheck` share: begin a job in the outbox, show how far it is, say what came
of it."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dedup import backfilling, jobs, releases, scoring
from dedup.management.here import check_batch, ending_in_order
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Job

LOOK_SECONDS = 1.0
IDLE_SECONDS = 90.0  # without anything checked for so long, no worker seems to run
SPEED_SECONDS = 300.0  # the time left is judged by as many of the last ones
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left:"),
    TimeRemainingColumn(),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Of both commands."""
    parser.add_argument("--all", action="store_true", help="also those that are checked already")
    parser.add_argument("--limit", type=int, help="so many questions at most")
    parser.add_argument("--here", action="store_true", help="check in this process too")
    parser.add_argument("--no-wait", action="store_true", help="leave it to the workers at once")
    parser.add_argument(
        "--stop", action="store_true", help="end it: what is left does not wait any more"
    )
    parser.add_argument("--report", action="store_true", help="what came of the last one")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(kind: str, options: Mapping[str, Any], say: Callable[[str], object]) -> None:
    """Do what the options say. Raises CommandError."""
    note = Console(stderr=True).print if options["json"] else say
    last = Job.objects.filter(kind=kind).order_by("-pk").first()
    if options["report"] or options["stop"]:
        if last is None:
            raise CommandError(f"There was no {kind} yet.")
        if options["stop"] and not last.is_finished:
            jobs.stop(job=last, by=None)
            _settle(last)
        _tell(last, options, say)
        return
    try:
        job = last if last and not last.is_finished else _begin(kind, options, note)
        if options["no_wait"]:
            backfilling.tend()
            note("It is in the background: a worker takes it. --report says how far it is.")
            return
        with ending_in_order():
            follow(job, is_here=options["here"], say=note)
    except (releases.NoRelease, ArtifactRefused) as error:
        raise CommandError(f"Questions wait: {error}") from error
    except KeyboardInterrupt:
        job.refresh_from_db()
        note(
            f"{job.total - job.done} questions are left to the workers. Run {kind} again to watch,"
            f" {kind} --stop to end it."
        )
        return
    _tell(job, options, say)


def _begin(kind: str, options: Mapping[str, Any], say: Callable[[str], object]) -> Job:
    release, scorer = scoring.active_scorer()
    wish = {"everything": options["all"], "limit": options["limit"]}
    meant = Job(kind=kind, params={"all": options["all"], "limit": options["limit"]})
    cost = backfilling.estimate(meant, release=release, scorer=scorer)
    say(
        f"{cost.questions} questions, at most {cost.pairs} pairs: about {cost.minutes:.1f} minutes"
        f" of one worker process, by {release}."
    )
    return backfilling.begin(kind=kind, by=None, **wish)


def follow(job: Job, *, is_here: bool, say: Callable[[str], object]) -> None:
    """Show a job until it is finished; `is_here`: check in this process as well."""
    progress = Progress(*COLUMNS, console=Console(stderr=True), speed_estimate_period=SPEED_SECONDS)
    moved_at, is_told = time.monotonic(), False
    with progress:
        bar = progress.add_task(job.get_kind_display(), total=None)
        while not job.is_finished:
            done = job.done
            backfilling.tend()
            if is_here:
                check_batch()
            else:
                time.sleep(LOOK_SECONDS)
            job.refresh_from_db()
            progress.update(bar, completed=job.done, total=job.total or None)
            if job.done != done:
                moved_at = time.monotonic()
            elif not is_told and time.monotonic() - moved_at > IDLE_SECONDS:
                is_told = True
                say("Nothing moves: does a worker for `checks` run? --here checks in this process.")


def _settle(job: Job) -> None:
    """Bring a job that is to stop to its end."""
    while not job.is_finished:
        if backfilling.tend() is None:
            time.sleep(LOOK_SECONDS)
        job.refresh_from_db()


def _tell(job: Job, options: Mapping[str, Any], say: Callable[[str], object]) -> None:
    found = job.result if job.is_finished else backfilling.report(job)
    if options["json"]:
        say(json.dumps({"state": job.state, "done": job.done, "total": job.total, **found}))
        return
    say(f"{job.get_kind_display()}: {job.get_state_display()}, {job.done} of {job.total} checked.")
    if not found:
        return
    if found["unchecked"]:
        say(f"{found['unchecked']} could not be checked: see the queue, under Unchecked.")
    say(
        f"{found['flagged']} pairs flagged in {found['seconds'] / 60:.1f} minutes,"
        f" {found['likely']} of them likely; {found['open']} are open."
    )
    say(f"Likely ones join {found['clusters']} clusters, {found['pairs']} of them pairs.")
    for members in found["largest"]:
        say(f"  {len(members)}: {', '.join(str(pk) for pk in members)}")
