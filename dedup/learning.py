"""Verdicts of people -> a trained, calibrated release; not yet in service. Worker only.

It learns from labels of the part `train`, and from what they imply; it is calibrated on `tune` and
reported on `hold`. A tenth of `train`, by question, says when to stop. So that nothing else is
forgotten, the network is held near what it said of pairs of this portal that nobody judged.

Unlabelled pairs are no negatives. Two rules let verdicts speak of further pairs of the shortlists
(correlation clustering: Bansal et al. 2004): two questions that people joined through others are
duplicates; and where people told one question apart from another, all that were joined with the one
are told apart from all that were joined with the other.
"""

import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Max, Min
from django.utils import timezone
from django.utils.translation import gettext_noop

from dedup import feedback, jobs, releases, starting
from dedup.feedback import Groups, Label
from dedup.ml import refitting
from dedup.ml.artifact import ArtifactRefused, verify
from dedup.ml.building import WANTED
from dedup.ml.finetuning import FEWEST_JUDGES, Finetuned, Plan, Taught, finetune
from dedup.ml.pairs import Pair
from dedup.ml.refitting import Asked, RefitRefused
from dedup.models import Release, Score
from dedup.texts import text_of
from support.models import Question

STOPPED_BY = 0.1  # share of the questions learned from whose labels say when to stop
IMPLIED_WEIGHT = 0.5  # of a pair that follows from verdicts, beside one that was judged
MOST_REPLAYED = 4_000  # pairs that nobody judged
READ_AT_ONCE = 2_000  # rows

READING = gettext_noop("reading the verdicts")
STEPS = [
    gettext_noop("training"),
    gettext_noop("reading the pairs"),
    gettext_noop("choosing how far to go"),
    gettext_noop("calibrating"),
    gettext_noop("measuring on other texts"),
]

NO_RELEASE = gettext_noop("No release is in service: a training begins from one.")
NOT_WHOLE = gettext_noop("The files of the release in service are not what they were: %(reason)s")
ONE_KIND = gettext_noop("All verdicts to learn from say the same: it takes duplicates and others.")
OTHER_KIND = gettext_noop(
    "The cross-encoder of the release in service is of another kind: train from the base instead."
)
NOT_WRITABLE = gettext_noop(
    "Releases cannot be written to %(folder)s: let DEDUP_RELEASES_FOLDER be a folder that the"
    " worker may write to, and that web and workers share."
)
UNSTABLE = gettext_noop("The training became unstable: try another seed, or fewer epochs.")
TELLS_NOTHING = gettext_noop(
    "What it learned tells nothing on verdicts that it did not learn from. More verdicts may help;"
    " nothing was changed."
)


@dataclass(frozen=True)
class Lesson:
    """What a network learns from, stops by, and is held near on."""

    taught: list[Taught]
    stop: list[Taught]
    replay: list[Pair]
    judged: int  # of those taught and stopped by, how many people judged
    implied: int


def train(run: jobs.Run) -> dict[str, Any]:
    """Make a release of what people said until the job began; see `starting.training`.

    Checkpoints lie in the job's folder, so that another run goes on with them where this one is
    killed. Raises jobs.JobFailed where it cannot be done, jobs.JobStopped where somebody ended it.
    """
    work = settings.DEDUP_TRAINING_FOLDER / f"job-{run.job.pk}"
    try:
        release = _make(run, work)
    except jobs.JobLost:
        raise  # the folder is another run's
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return _result(release)


def _make(run: jobs.Run, work: Path) -> Release:
    run.progress(0, 0, READING)
    parent, folder = parent_release(), writable_folder()
    known = feedback.labels(until=run.job.started_at)
    tune, hold = asked(known, "tune"), asked(known, "hold")
    starting.require_verdicts(known)
    before = releases.folder_of(parent)
    is_current = run.params["base"] == "current"
    if is_current and not refitting.can_go_on(before):
        raise jobs.JobFailed(OTHER_KIND)
    work.mkdir(parents=True, exist_ok=True)
    name = _name(work, parent, wanted=run.params.get("name", ""))
    if not (folder / name).exists():  # else an earlier run of this job had got so far
        lesson = prepare(known, parent, seed=run.params["seed"])
        trained = _finetune(run, lesson, before, work / "network", is_current=is_current)
        about = _about(run, parent, lesson, trained, tune=len(tune), hold=len(hold))
        _refit(run, trained.folder, parent, (tune, hold), about, folder / name)
    return releases.add(name)


def parent_release() -> Release:
    """The release in service, whole. Raises jobs.JobFailed."""
    try:
        parent = releases.active()
        verify(releases.folder_of(parent))
    except releases.NoRelease as error:
        raise jobs.JobFailed(NO_RELEASE) from error
    except ArtifactRefused as error:
        raise jobs.JobFailed(NOT_WHOLE, reason=str(error)) from error
    return parent


def writable_folder() -> Path:
    """Where releases are made. Raises jobs.JobFailed where nothing can be written there."""
    folder = releases.made_folder()
    probe = folder / f".probe-{timezone.now():%H%M%S%f}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
    except OSError as error:
        raise jobs.JobFailed(NOT_WRITABLE, folder=str(folder)) from error
    finally:
        with suppress(OSError):
            probe.rmdir()
    return folder


def asked(known: Sequence[Label], part: str) -> list[Asked]:
    """The labels of a part that can be measured with: asked about by a known chance."""
    return [
        Asked(label.pair.older, label.pair.newer, label.label, label.share, label.weight)
        for label in feedback.measurable(known, part)
        if label.share
    ]


def _name(work: Path, parent: Release, *, wanted: str) -> str:
    """The name of the release: chosen once for a job, whatever run of it comes so far."""
    note = work / "name"
    if not note.exists():
        note.write_text(wanted or free_name(parent.name, now=timezone.now()), encoding="utf-8")
    return note.read_text(encoding="utf-8")


def free_name(parent: str, *, now: datetime) -> str:
    """What a release that is made of `parent` is called: its line, the day, and a number."""
    line = re.sub(r"-\d{8}-\d+$", "", parent)[:80]
    number = 1
    while starting.is_taken(name := f"{line}-{now:%Y%m%d}-{number}"):
        number += 1
    return name


def prepare(known: Sequence[Label], parent: Release, *, seed: int) -> Lesson:
    """What is learned from these labels; of the parts `tune` and `hold` nothing is."""
    learned = [label for label in known if label.part == "train"]
    groups = _joined(learned)
    judged = [(label, _is_stop(label, groups)) for label in learned]
    taught = [_taught(label) for label, is_stop in judged if not is_stop]
    stop = [_taught(label) for label, is_stop in judged if is_stop]
    if len(stop) < FEWEST_JUDGES:
        taught, stop = taught + stop, []
    if len({one.label for one in taught}) < 2:
        raise jobs.JobFailed(ONE_KIND)
    spoken_of = {frozenset((label.older_id, label.newer_id)) for label in known}
    held_out = {pk for label in known if label.part != "train" for pk in _ends(label)}
    stopped_by = {pk for label, is_stop in judged if is_stop and stop for pk in _ends(label)}
    found = implied(learned, groups, parent, besides=spoken_of, without=held_out | stopped_by)
    found = found[: len(taught)]
    replay = replayed(parent, min(MOST_REPLAYED, 2 * len(taught)), besides=spoken_of, seed=seed)
    return Lesson(taught + found, stop, replay, len(learned), len(found))


def _ends(label: Label) -> tuple[int, int]:
    return label.older_id, label.newer_id


def _taught(label: Label) -> Taught:
    return Taught(label.pair.older, label.pair.newer, label.label, label.weight)


def _joined(learned: Sequence[Label]) -> Groups:
    groups = Groups()
    for label in learned:
        if label.label > 0.5:
            groups.join(*_ends(label), most=None)
    return groups


def _is_stop(label: Label, groups: Groups) -> bool:
    """Whether a label says when to stop: by the questions that it speaks of, and those joined."""
    return any(_place(groups.name_of(pk)) < STOPPED_BY for pk in _ends(label))


def _place(question_id: int) -> float:
    return int.from_bytes(sha256(f"stop:{question_id}".encode()).digest()[:8]) / 2**64


def implied(
    learned: Sequence[Label], groups: Groups, parent: Release, *,
    besides: set[frozenset[int]], without: set[int],
) -> list[Taught]:  # fmt: skip
    """Pairs of the shortlists of which nobody said anything, but which follow from what was said.

    Never of a question in `without`, and never out of a group inside which two were told apart.
    """
    apart: set[frozenset[int]] = set()
    torn: set[int] = set()
    for label in learned:
        ends = frozenset(groups.name_of(pk) for pk in _ends(label))
        if label.label < 0.5:
            apart.add(ends)
            torn |= ends if len(ends) == 1 else set()
    members = {pk for label in learned for pk in _ends(label)} - without
    members = {pk for pk in members if groups.name_of(pk) not in torn}
    rows = _shortlisted(members, parent)
    followed = []
    for older, newer in rows:
        ends = frozenset((groups.name_of(older), groups.name_of(newer)))
        if frozenset((older, newer)) in besides:
            continue
        if len(ends) == 1:
            followed.append((older, newer, 1.0))
        elif ends in apart:
            followed.append((older, newer, 0.0))
    texts = _texts({pk for older, newer, _ in followed for pk in (older, newer)})
    return [
        Taught(texts[older], texts[newer], label, IMPLIED_WEIGHT)
        for older, newer, label in followed
        if older in texts and newer in texts
    ]


def _shortlisted(members: set[int], parent: Release) -> list[tuple[int, int]]:
    """The pairs of these questions that the release was asked about, in the order of their ids."""
    found: list[tuple[int, int]] = []
    ordered = sorted(members)
    for first in range(0, len(ordered), READ_AT_ONCE):
        some = ordered[first : first + READ_AT_ONCE]
        rows = Score.objects.filter(release=parent, older__in=some)
        pairs = rows.order_by("older", "newer").values_list("older", "newer")
        found += [(older, newer) for older, newer in pairs if newer in members]
    return found


def replayed(parent: Release, count: int, *, besides: set[frozenset[int]], seed: int) -> list[Pair]:
    """About so many pairs of which nobody said anything, drawn at random from those that the
    release was asked about and where its logit counts; the same for a seed."""
    rows = Score.objects.filter(release=parent)
    ends = rows.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["first"] is None:
        return []
    low = parent.manifest.get("calibration", {}).get("coefficients", {}).get("low", -1.0)
    rng = random.Random(seed)  # noqa: S311 - no secret
    drawn: dict[int, Pair] = {}
    for _ in range(8):
        wanted = [rng.randint(ends["first"], ends["last"]) for _ in range(4 * count)]
        chosen = rows.filter(pk__in=set(wanted) - drawn.keys(), cosine__gte=low)
        drawn |= _pairs(chosen.order_by("pk"), besides)
        if len(drawn) >= count:
            break
    kept = sorted(drawn)
    rng.shuffle(kept)
    return [drawn[pk] for pk in kept[:count]]


def _pairs(rows: Any, besides: set[frozenset[int]]) -> dict[int, Pair]:
    """The texts of scores by their keys, as long as they are those that were read."""
    found = [row for row in rows if frozenset((row.older_id, row.newer_id)) not in besides]
    ids = {pk for row in found for pk in (row.older_id, row.newer_id)}
    questions = Question.objects.written().defer("words").in_bulk(ids)
    texts = {pk: text_of(question) for pk, question in questions.items()}
    return {
        row.pk: Pair(texts[row.older_id].input, texts[row.newer_id].input)
        for row in found
        if row.older_id in texts
        and row.newer_id in texts
        and texts[row.older_id].hash == row.older_hash
        and texts[row.newer_id].hash == row.newer_hash
    }


def _texts(ids: set[int]) -> dict[int, str]:
    questions = Question.objects.written().defer("words").in_bulk(ids)
    return {pk: text_of(question).input for pk, question in questions.items()}


def _finetune(
    run: jobs.Run, lesson: Lesson, before: Path, out: Path, *, is_current: bool
) -> Finetuned:
    params = run.params
    plan = Plan(
        seed=params["seed"], epochs=params["epochs"], minutes=params["minutes"],
        threads=settings.DEDUP_THREADS,
    )  # fmt: skip
    try:
        return finetune(
            bi=before / "bi-encoder",
            start=before / "cross-encoder" if is_current else None,
            taught=lesson.taught, tune=lesson.stop, replay=lesson.replay, out=out, plan=plan,
            progress=told(run),
        )  # fmt: skip
    except FloatingPointError as error:
        raise jobs.JobFailed(UNSTABLE) from error


def told(run: jobs.Run) -> Callable[[int, int, str, float | None], None]:
    """How the networks' part says how far it is, as the job's own sign of life."""
    return lambda done, total, step, left: run.progress(done, total, step, seconds_left=left)


def _refit(
    run: jobs.Run, trained: Path, parent: Release,
    labels: tuple[list[Asked], list[Asked]], about: Mapping[str, Any], out: Path,
) -> None:  # fmt: skip
    tune, hold = labels
    try:
        refitting.refit(
            write=partial(refitting.write_trained, trained),
            parent=releases.folder_of(parent), tune=tune, hold=hold,
            wanted=wanted_precisions(parent.manifest, run.params.get("precision")),
            before_at=thresholds_of(parent),
            about=about, out=out, progress=told(run),
        )  # fmt: skip
    except RefitRefused as error:
        said = {"tells_nothing": TELLS_NOTHING, "name_taken": starting.NAME_TAKEN}[error.code]
        raise jobs.JobFailed(said, name=out.name) from error
    except ArtifactRefused as error:
        raise jobs.JobFailed(NOT_WHOLE, reason=str(error)) from error


def thresholds_of(release: Release) -> dict[str, float]:
    """Those in service: an admin may have moved them."""
    return {
        "flag": release.threshold,
        "suggest": release.suggestion_floor,
        "sure": release.sure_threshold,
    }


def wanted_precisions(
    manifest: Mapping[str, Any], precision: float | None = None
) -> dict[str, float]:
    """By threshold: what the release before was chosen for, unless another is wanted of flags."""
    told = manifest.get("thresholds", {})
    wanted = {
        name: float(told.get(name, {}).get("chosen", {}).get("wanted_precision", usual))
        for name, usual in WANTED.items()
    }
    if precision is not None:
        wanted |= {
            "flag": precision,
            "suggest": min(wanted["suggest"], precision),
            "sure": max(wanted["sure"], precision),
        }
    return wanted


def _about(
    run: jobs.Run, parent: Release, lesson: Lesson, trained: Finetuned, *, tune: int, hold: int
) -> dict[str, Any]:
    """What a release says of how it was made, beside its figures."""
    return {
        "parent": {"name": parent.name, "fingerprint": parent.fingerprint},
        "job": run.job.pk,
        "labels": {
            "train": lesson.judged, "implied": lesson.implied, "replayed": len(lesson.replay),
            "tune": tune, "hold": hold,
        },
        "recipe": {
            "start": run.params["base"], "seed": run.params["seed"],
            "epochs": run.params["epochs"], "steps": trained.steps,
            "seconds": trained.seconds, "stopped_by": trained.tune_losses, "way": trained.way,
        },
    }  # fmt: skip


def _result(release: Release) -> dict[str, Any]:
    raw = release.manifest
    portal = raw["metrics"]["portal"]
    return {
        "release": release.name,
        "release_id": release.pk,
        "labels": raw["labels"],
        "held": portal["rows"],
        "average_precision": portal["release"],
        "average_precision_before": portal["before"],
        "threshold": release.threshold,
        "basis": raw["thresholds"]["flag"]["basis"],
    }
