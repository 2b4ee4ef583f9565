"""How good a release is on this portal: measured by a job or a command, kept as a report.

Measured on pairs that people judged and that nothing was fitted on, and that were asked about by
the machine, each weighed by one over the chance with which it was: so they stand for all pairs that
a check compares, not only for those that a release believed in.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_noop

from dedup import feedback, jobs, releases, reports
from dedup.ml import reporting
from dedup.ml.artifact import MANIFEST, ArtifactRefused, Manifest, read_manifest
from dedup.ml.reporting import Held, Progress, Said
from dedup.models import Release, Report
from dedup.texts import text_of
from support.models import Question

log = logging.getLogger(__name__)

NOT_WHOLE = gettext_noop("The release cannot be used: %(reason)s")
COMPARING, TIMING = gettext_noop("comparing pairs"), gettext_noop("measuring the speed")
SETS = gettext_noop("measuring on fixed sets")
WANTED = 0.5  # precision, where a release does not say for which its threshold was chosen


@dataclass(frozen=True)
class Subject:
    """A release as it is measured: its files, and from which probability on it flags."""

    name: str
    folder: Path
    manifest: Manifest
    threshold: float
    row: Release | None  # None where it is not known to the portal

    @classmethod
    def of(cls, release: Release) -> "Subject":
        """A release that is known, with its threshold as it stands. Raises ArtifactRefused."""
        folder = releases.folder_of(release)
        manifest = read_manifest(folder)
        if manifest.fingerprint != release.fingerprint:
            raise ArtifactRefused(releases.OTHER_FILES)
        return cls(release.name, folder, manifest, release.threshold, release)

    @classmethod
    def named(cls, name: str) -> "Subject":
        """By name, or by folder where it is not known yet. Raises ArtifactRefused."""
        given = Path(name)
        folder = given if (given / MANIFEST).is_file() else releases.folder_named(name)
        manifest = read_manifest(folder)
        row = Release.objects.filter(fingerprint=manifest.fingerprint).first()
        threshold = row.threshold if row else manifest.thresholds["flag"]
        return cls(row.name if row else manifest.name, folder, manifest, threshold, row)

    @property
    def wanted(self) -> float:
        """The precision that its threshold was chosen for."""
        chosen = self.manifest.raw["thresholds"]["flag"].get("chosen", {})
        return float(chosen.get("wanted_precision", WANTED))

    def open(self) -> Any:
        """Its networks. Worker and commands only. Raises ArtifactRefused."""
        from dedup.ml.release import open_release  # noqa: PLC0415 - loads torch

        return open_release(self.folder, threads=settings.DEDUP_THREADS)


def evaluate(run: jobs.Run) -> Mapping[str, Any]:
    """Do a job of this kind: measure a release beside the one in service, or beside the one that it
    replaced. Raises jobs.JobFailed where its files cannot be used."""
    release = Release.objects.get(pk=run.params["release"])
    against = rival(release)
    try:
        report = measure(
            Subject.of(release), against=Subject.of(against) if against else None,
            progress=run.progress, now=timezone.now(),
        )  # fmt: skip
    except ArtifactRefused as error:
        raise jobs.JobFailed(NOT_WHOLE, reason=str(error)) from error
    return {"report": report.pk, "release": release.name}


def rival(release: Release) -> Release | None:
    """What a release is held against: the one in service, or the one that it replaced; only where
    its files lie here."""
    other = (
        release.previous if release.is_active else Release.objects.filter(is_active=True).first()
    )
    return other if other and reports.has_files(other) else None


def measure(
    subject: Subject, *, against: Subject | None, progress: Progress, now: datetime,
    data: Path | None = None, out: Path | None = None,
) -> Report:  # fmt: skip
    """Measure a known release on the portal's own pairs and keep what comes out, as a row and as a
    folder. Raises ArtifactRefused, ValueError where the release is not known."""
    if subject.row is None:
        raise ValueError(f"{subject.name} is no release of this portal")
    report, drawn = examine(
        subject, against=against, is_own=True, data=data, progress=progress, now=now
    )
    folder = out or reports_folder() / f"{subject.name}-{now:%Y-%m-%d-%H%M%S}"
    return Report.objects.create(
        release=subject.row, against=against.row if against else None, made_at=now,
        figures=report, folder=folder.name if write(folder, report, drawn) else "",
    )  # fmt: skip


def reports_folder() -> Path:
    """Where reports lie on the machine that measured."""
    return Path(settings.LOCAL_FOLDER) / "reports"


def write(folder: Path, report: Mapping[str, Any], drawn: Mapping[str, str]) -> bool:
    """Whether the folder could be written; all that it holds but the pictures is in the row too."""
    try:
        reporting.write(folder, report, drawn)
    except OSError as error:
        log.warning("The report was kept without a folder: %s", error)
        return False
    return True


def examine(
    subject: Subject, *, against: Subject | None, is_own: bool, data: Path | None,
    progress: Progress, now: datetime,
) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    """The report and its pictures. Raises ArtifactRefused."""
    scorer = subject.open()
    raw = subject.manifest.raw
    report: dict[str, Any] = {
        "release": subject.name,
        "fingerprint": subject.manifest.fingerprint,
        "made_at": now.isoformat(timespec="seconds"),
        "languages": raw["languages"],
    }
    held = held_pairs() if is_own else None
    if held:
        said = _said(subject, scorer, held, progress)
        texts = _texts() or [pair["older"] for pair in raw["golden"]]
        if texts:
            spent = reporting.speed(scorer, texts, progress, TIMING)
            report["speed"] = {**spent, "processor": reporting.processor(), **scorer.runs_on}
    if data:
        report["sets"] = _on_sets(scorer, data, progress)
    if not held:
        return report, {}
    del scorer  # one release's networks at a time
    other = None
    if against:
        rival = against.open()
        other = _said(against, rival, held, progress)
        if texts:  # soon after it: what else the machine does weighs on both alike
            report["speed_against"] = reporting.speed(rival, texts, progress, TIMING)
    report["own"] = reporting.on_own_pairs(held, said, subject.wanted, other)
    return report, reporting.pictures(held, said, other)


def held_pairs() -> Held:
    """Pairs of the part that nothing is fitted on, of the lanes whose chance is known."""
    chosen = feedback.measurable(feedback.labels(), "hold")
    return Held(
        [label.pair for label in chosen],
        np.asarray([label.label for label in chosen], float),
        np.asarray([1 / label.share for label in chosen if label.share], float),
        clusters_of(chosen),
        [label.segments for label in chosen],
    )


def clusters_of(labels: Sequence[feedback.Label]) -> list[int]:
    """For each pair the group of questions that it belongs to: duplicates, and what they were
    compared with, as far as groups go."""
    groups = feedback.Groups()
    for label in labels:
        most = None if label.label > 0.5 else feedback.LARGEST_GROUP
        groups.join(label.older_id, label.newer_id, most=most)
    return [groups.name_of(label.newer_id) for label in labels]


def _said(subject: Subject, scorer: Any, held: Held, progress: Progress) -> Said:
    chances = reporting.judged(scorer, held.pairs, progress, COMPARING)
    return Said(subject.name, chances, subject.threshold)


def _texts() -> list[str]:
    """The newest questions as the networks read them."""
    newest = Question.objects.live().order_by("-asked_at", "-pk")[: reporting.TEXTS]
    return [text_of(question).input for question in newest]


def _on_sets(scorer: Any, data: Path, progress: Progress) -> dict[str, Any]:
    """Fixed labelled sets, as a release's manifest has them."""
    from dedup.ml.measuring import Measuring, Reported  # noqa: PLC0415 - loads torch

    progress(0, 0, SETS)
    measuring = Measuring(
        data, scorer.bi, scorer.cross, scorer.calibration, scorer.even,
        scorer.manifest.thresholds["flag"],
    )  # fmt: skip
    return measuring.all(Reported.of(scorer.bi, scorer.cross))
