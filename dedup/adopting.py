"""A cross-encoder that others trained -> a release of this portal. Worker only."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_noop

from dedup import feedback, jobs, learning, releases, starting
from dedup.ml import adopting, refitting
from dedup.ml.adopting import CheckpointRefused
from dedup.ml.artifact import ArtifactRefused, verify
from dedup.ml.refitting import RefitRefused
from dedup.models import Release

FETCHING = gettext_noop("fetching the checkpoint")
NO_USE = gettext_noop("The checkpoint cannot be used: %(reason)s")
LONGEST_REASON = 200

Tell = Callable[[int, int, str, float | None], None]


def adopt(run: jobs.Run) -> dict[str, Any]:
    """Take a checkpoint as a release; see `starting.adopting`. Raises jobs.JobFailed."""
    run.progress(0, 0, FETCHING)
    parent = learning.parent_release()
    learning.writable_folder()
    name, checkpoint = run.params["name"], run.params["checkpoint"]
    source = starting.source_of(checkpoint)
    if source == checkpoint and Path(source).exists():  # a name on the hub is no way into a folder
        raise jobs.JobFailed(starting.NO_CHECKPOINT, name=checkpoint)
    if not (releases.made_folder() / name).exists():  # else an earlier run had got so far
        try:
            take(
                source, name=name, like=releases.folder_of(parent),
                languages=run.params["languages"], progress=learning.told(run),
            )  # fmt: skip
        except (CheckpointRefused, ArtifactRefused) as error:
            raise jobs.JobFailed(NO_USE, reason=str(error)[:LONGEST_REASON]) from error
    release = releases.add(name)
    return {
        "release": release.name,
        "release_id": release.pk,
        "threshold": release.threshold,
        "on": release.manifest["calibration"]["on"],
    }


def take(
    source: str,
    *,
    name: str,
    like: Path,
    languages: Sequence[str],
    progress: Tell = lambda done, total, step, left: None,
) -> dict[str, Any]:
    """Write the release folder `name`, with the bi-encoder of the release in `like`; its manifest.

    Calibrated on what people decided here, where that is enough, else on questions of our own. Adds
    no row. Raises dedup.ml.adopting.CheckpointRefused, dedup.ml.artifact.ArtifactRefused.
    """
    before = verify(like)
    out = releases.made_folder() / name
    known = feedback.labels()
    judged = learning.asked(known, "train") + learning.asked(known, "tune")
    if not refitting.enough(judged):
        return adopting.adopt(source, like, [], out, list(languages))
    try:
        return adopting.adopt_here(
            source, like, judged, learning.asked(known, "hold"), out, list(languages),
            wanted=learning.wanted_precisions(before.raw), before_at=_thresholds(like.name, before),
            progress=progress,
        )  # fmt: skip
    except RefitRefused as error:
        said = {"name_taken": f"there is a release {name} already"}
        nothing = "its score tells nothing on what people decided here"
        raise CheckpointRefused(said.get(error.code, nothing)) from error


def _thresholds(name: str, before: Any) -> dict[str, float]:
    """Those in service where they were moved, else those that the release came with."""
    row = Release.objects.filter(name=name).first()
    return learning.thresholds_of(row) if row else dict(before.thresholds)
