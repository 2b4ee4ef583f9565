"""Which student reads before the release in service, and up to what it is believed. No networks."""

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from dedup import releases
from dedup.ml.artifact import ArtifactRefused, Manifest, read_manifest
from dedup.models import Release
from support.templatetags.texts import in_percent

NO_STUDENT = "it is no student: its manifest names no teacher and no floor"


@dataclass(frozen=True)
class Student:
    """A release that reads first, and the probability below which it is believed."""

    manifest: Manifest
    folder: Path
    floor: float


def is_on() -> bool:
    """Whether a student is to read first."""
    return bool(settings.DEDUP_CASCADE)


def named() -> Manifest:
    """The manifest of the student that is set. Raises ArtifactRefused."""
    manifest = read_manifest(_folder())
    if settings.DEDUP_CASCADE_FLOOR is None and not {"teacher", "cascade"} <= manifest.raw.keys():
        raise ArtifactRefused(NO_STUDENT)
    return manifest


def student_of(release: Release) -> Student:
    """The student that is set, where it fits the release. Raises ArtifactRefused where it does not.

    It never settles what the release might flag: its floor is at most the release's threshold.
    """
    manifest = named()
    if manifest.embedding_fingerprint != release.embedding_fingerprint:
        raise ArtifactRefused(f"its bi-encoder is not that of {release}")
    floor = settings.DEDUP_CASCADE_FLOOR
    if floor is None:
        floor = _chosen_floor(manifest, release)
    return Student(manifest, _folder(), min(floor, release.threshold))


def _chosen_floor(manifest: Manifest, release: Release) -> float:
    """The floor that was chosen for it; only for this teacher, and no lower threshold."""
    teacher, cascade = manifest.raw["teacher"], manifest.raw["cascade"]
    if teacher["fingerprint"] != release.fingerprint:
        raise ArtifactRefused(f"it learned from {teacher['name']}, not from {release} as it is")
    if release.threshold < cascade["threshold"]:
        raise ArtifactRefused(
            f"its floor was chosen for a threshold of {in_percent(cascade['threshold'])}; it"
            f" is {in_percent(release.threshold)} now"
        )
    if not cascade["floor"] > 0:
        raise ArtifactRefused(
            f"no floor was found for it: {cascade['flagged']} held pairs that the release flags"
            " were too few"
        )
    return float(cascade["floor"])


def _folder() -> Path:
    return releases.folder_named(settings.DEDUP_CASCADE)
