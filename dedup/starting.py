"""What long work can be asked for, by a page, a program or a command: checked before it begins."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_noop

from dedup import feedback, jobs, releases
from dedup.feedback import Label
from dedup.ml import calibration
from dedup.models import Job, Release
from support.models import User

BASES = ("current", "base")  # goes on from the release in service, or afresh from its bi-encoder
MOST_EPOCHS = 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)

NO_BASE = gettext_noop("A training begins from “current” or from “base”.")
NO_LAYER = gettext_noop("A student has at least one layer.")
NO_EPOCHS = gettext_noop("It may go over the verdicts once to %(most)d times.")
NO_MINUTES = gettext_noop("It may take one minute to %(most)d (DEDUP_TRAINING_MINUTES).")
NO_SEED = gettext_noop("A seed is a whole number from 0 on.")
NO_PRECISION = gettext_noop("A precision is a share between 0 and 1.")
NO_NAME = gettext_noop(
    "A release's name has small letters, digits, dots, dashes and underscores, 80 at most."
)
NAME_TAKEN = gettext_noop("There is a release “%(name)s” already.")
NO_CHECKPOINT = gettext_noop(
    "“%(name)s” is neither a folder among the checkpoints (DEDUP_CHECKPOINTS) nor a name on the hub"
    " such as owner/name."
)
NO_LANGUAGE = gettext_noop("A language is named by two or three letters, such as en.")


TOO_FEW = gettext_noop(
    "More verdicts on pairs that were flagged or drawn are needed: about %(all)d, at least"
    " %(duplicates)d of them on duplicates and %(others)d on pairs that are none. One in"
    " %(one_in)d is kept to calibrate on: %(kept)d so far, where it takes %(enough)d."
)


class StartRefused(jobs.JobFailed):
    """What was asked for cannot be begun; `field` names what is wrong with it."""

    def __init__(self, field: str, said: str, **details: object) -> None:
        super().__init__(said, **details)
        self.field = field


class TooFewVerdicts(StartRefused):
    """People decided too little for a training; `details` say how much of what is missing."""


def training(
    *,
    by: User | None,
    base: str = "current",
    epochs: int = 3,
    minutes: float | None = None,
    seed: int = 1,
    precision: float | None = None,
    name: str = "",
) -> Job:
    """Put the training of a release from the portal's verdicts in line.

    `precision` is the one wanted of what is flagged; without one, that of the release in service.
    Raises StartRefused, TooFewVerdicts, and jobs.JobRuns where one waits or runs.
    """
    most = settings.DEDUP_TRAINING_MINUTES
    minutes = most if minutes is None else minutes
    _require(base in BASES, "base", NO_BASE)
    _require(1 <= epochs <= MOST_EPOCHS, "epochs", NO_EPOCHS, most=MOST_EPOCHS)
    _require(0 < minutes <= most, "minutes", NO_MINUTES, most=int(most))
    _require(0 <= seed < 2**31, "seed", NO_SEED)
    _require(precision is None or 0 < precision < 1, "precision", NO_PRECISION)
    _require_free(name)
    if Job.objects.unfinished().filter(kind=Job.Kind.TRAIN).exists():
        raise jobs.JobRuns(Job.Kind.TRAIN)
    require_verdicts(feedback.labels())
    params = {
        "base": base, "epochs": epochs, "minutes": minutes, "seed": seed, "precision": precision,
        "name": name,
    }  # fmt: skip
    return jobs.start(kind=Job.Kind.TRAIN, params=params, by=by)


def require_verdicts(known: Sequence[Label]) -> None:
    """Raises TooFewVerdicts where so few labels leave too few to calibrate on.

    What is missing there is told as so many more decided pairs: on which side of the split one
    comes to lie, nobody knows beforehand.
    """
    kept = feedback.measurable(known, "tune")
    if calibration.enough([label.label for label in kept]):
        return
    share = dict(feedback.PARTS)["tune"]
    same = sum(label.label > 0.5 for label in kept)

    def missing(wanted: int, there: int) -> int:
        return math.ceil(max(0, wanted - there) / share)

    duplicates = missing(calibration.FEWEST, same)
    others = missing(calibration.FEWEST, len(kept) - same)
    raise TooFewVerdicts(
        "", TOO_FEW, all=max(missing(calibration.ENOUGH, len(kept)), duplicates + others),
        duplicates=duplicates, others=others, one_in=round(1 / share), kept=len(kept),
        enough=calibration.ENOUGH,
    )  # fmt: skip


def distilling(
    *,
    by: User | None,
    name: str = "",
    layers: int = 3,
    minutes: float | None = None,
    seed: int = 1,
    has_data: bool = False,
) -> Job:
    """Put the making of a student of the release in service in line.

    `has_data` says that who runs it has a folder to learn from. Raises StartRefused, and
    jobs.JobRuns where one waits or runs.
    """
    most = settings.DEDUP_TRAINING_MINUTES
    minutes = most if minutes is None else minutes
    _require(layers >= 1, "layers", NO_LAYER)
    _require(0 < minutes <= most, "minutes", NO_MINUTES, most=int(most))
    _require(0 <= seed < 2**31, "seed", NO_SEED)
    _require_free(name)
    params = {
        "name": name or _student_name(), "layers": layers, "minutes": minutes, "seed": seed,
        "has_data": has_data,
    }  # fmt: skip
    return jobs.start(kind=Job.Kind.DISTIL, params=params, by=by)


def _student_name() -> str:
    """What a student is called: after its teacher, with a number where that is taken."""
    teacher = Release.objects.filter(is_active=True).values_list("name", flat=True).first()
    wanted, number = f"{(teacher or 'release')[:60]}-student", 1
    name = wanted
    while is_taken(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def adopting(
    *, by: User | None, checkpoint: str, name: str = "", languages: list[str] | None = None
) -> Job:
    """Put the taking of a checkpoint as a release in line: a folder's name among the checkpoints,
    or a name on the hub. Raises StartRefused, and jobs.JobRuns where one waits or runs."""
    source_of(checkpoint)
    name = name or checkpoint.rpartition("/")[2].lower()
    _require_free(name)
    languages = languages or ["en"]
    for language in languages:
        _require(bool(re.fullmatch(r"[a-z]{2,3}", language)), "languages", NO_LANGUAGE)
    params = {"checkpoint": checkpoint, "name": name, "languages": languages}
    return jobs.start(kind=Job.Kind.ADOPT, params=params, by=by)


def source_of(checkpoint: str) -> str:
    """Where a checkpoint lies: a folder right inside DEDUP_CHECKPOINTS, else a name on the hub.

    Nothing else on this machine is reached. Raises StartRefused.
    """
    for folder in checkpoints():
        if folder.name == checkpoint:
            return str(folder)
    _require(bool(HUB_NAME.fullmatch(checkpoint)), "checkpoint", NO_CHECKPOINT, name=checkpoint)
    return checkpoint


def checkpoints() -> list[Path]:
    """The folders that a checkpoint may be taken from, by name; links are none."""
    given = settings.DEDUP_CHECKPOINTS
    folder = Path(given)
    if not given or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _require(is_so: bool, field: str, said: str, **details: object) -> None:
    if not is_so:
        raise StartRefused(field, said, **details)


def _require_free(name: str) -> None:
    if name:
        _require(bool(NAME.fullmatch(name)), "name", NO_NAME)
        _require(not is_taken(name), "name", NAME_TAKEN, name=name)


def is_taken(name: str) -> bool:
    """Whether a release or a folder has this name."""
    return Release.objects.filter(name=name).exists() or releases.folder_named(name).exists()


def defaults() -> dict[str, Any]:
    """What a form for a training begins with."""
    return {"base": "current", "epochs": 3, "seed": 1, "minutes": settings.DEDUP_TRAINING_MINUTES}
