"""A release -> a smaller one that says nearly the same, of the portal's own pairs. Worker only."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_noop

from dedup import feedback, jobs, learning, releases
from dedup.ml import distilling
from dedup.ml.distilling import Distilled, Plan
from dedup.ml.pairs import Pair
from dedup.ml.refitting import RefitRefused
from dedup.ml.release import ReleaseScorer, open_release
from dedup.models import Release

MOST_PAIRS = 20_000  # of the portal's own
MOST_GATHERED = 60_000  # of a folder of data

GATHERING = gettext_noop("gathering pairs")
STEPS = [gettext_noop("the teacher reads the pairs")]
TOO_FEW = gettext_noop(
    "A student learns from pairs that the release was asked about: there are %(pairs)d, and it"
    " takes %(fewest)d. Let more questions be checked first."
)
NO_LAYERS = gettext_noop("A student of this release has one layer to %(most)d.")
NO_DATA = gettext_noop(
    "It was begun with a folder of data, by a command that ended: give that command again."
)

Say = Callable[[int, int, str, float | None], None]


def distil(run: jobs.Run, *, data: Path | None = None, say: Say | None = None) -> dict[str, Any]:
    """Make a student of the release in service; see `starting.distilling`.

    It learns from pairs that this portal's release was asked about, or from those in the folder
    `data`. Checkpoints lie in the job's folder. Raises jobs.JobFailed, jobs.JobStopped.
    """
    work = settings.DEDUP_TRAINING_FOLDER / f"job-{run.job.pk}"
    try:
        release = _make(run, work, data, say)
    except jobs.JobLost:
        raise  # the folder is another run's
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return _result(release)


def _make(run: jobs.Run, work: Path, data: Path | None, say: Say | None) -> Release:
    if run.params["has_data"] and data is None:
        raise jobs.JobFailed(NO_DATA)
    tell = _both(learning.told(run), say)
    tell(0, 0, GATHERING, None)
    parent, folder = learning.parent_release(), learning.writable_folder()
    teacher = open_release(releases.folder_of(parent), threads=settings.DEDUP_THREADS)
    depth = teacher.cross.network.config.num_hidden_layers
    if run.params["layers"] > depth:
        raise jobs.JobFailed(NO_LAYERS, most=depth)
    name = run.params["name"]
    if not (folder / name).exists():  # else an earlier run of this job had got so far
        pairs = _pairs(parent, teacher, data, run.params["seed"])
        plan = Plan(
            seed=run.params["seed"], layers=run.params["layers"], minutes=run.params["minutes"],
            threads=settings.DEDUP_THREADS,
        )  # fmt: skip
        made = distilling.distil(
            teacher=teacher, pairs=pairs, out=work / "network", plan=plan, progress=tell
        )
        _write(made, pairs, parent, teacher, folder / name, data, tell)
    return releases.add(name)


def _pairs(parent: Release, teacher: ReleaseScorer, data: Path | None, seed: int) -> list[Pair]:
    """What is learned from. Raises jobs.JobFailed where it is too little."""
    if data:
        found = distilling.gathered(data, teacher, MOST_GATHERED, seed)
    else:
        found = learning.replayed(parent, MOST_PAIRS, besides=set(), seed=seed)
    if len(found) < distilling.FEWEST:
        raise jobs.JobFailed(TOO_FEW, pairs=len(found), fewest=distilling.FEWEST)
    return found


def _write(
    made: Distilled,
    pairs: list[Pair],
    parent: Release,
    teacher: ReleaseScorer,
    out: Path,
    data: Path | None,
    tell: Say,
) -> None:
    known = feedback.labels()
    try:
        distilling.release_of(
            made, pairs, teacher, releases.folder_of(parent), out,
            at=learning.thresholds_of(parent),
            wanted=learning.wanted_precisions(parent.manifest),
            tune=learning.asked(known, "tune"),
            hold=learning.asked(known, "hold"),
            data=distilling.data_hashes(data) if data else None,
            progress=tell,
        )  # fmt: skip
    except RefitRefused as error:
        raise jobs.JobFailed(learning.TELLS_NOTHING) from error


def _both(told: Say, say: Say | None) -> Say:
    def tell(done: int, total: int, step: str, seconds_left: float | None) -> None:
        told(done, total, step, seconds_left)
        if say:
            say(done, total, step, seconds_left)

    return tell


def _result(release: Release) -> dict[str, Any]:
    raw = release.manifest
    return {
        "release": release.name,
        "release_id": release.pk,
        "teacher": raw["teacher"]["name"],
        "layers": len(raw["recipe"]["distilled"]["layers"]),
        "pairs": raw["recipe"]["distilled"]["pairs"],
        "threshold": release.threshold,
        "floor": raw["cascade"]["floor"],
        "settled": raw["cascade"]["settled"],
        "lost": raw["cascade"]["lost"],
    }
