"""System checks: settings that would make the machine fall silent or overrun its lease."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's word

from dedup import releases
from dedup.ml.artifact import MANIFEST, ArtifactRefused, read_manifest

HARD_LIMIT_SECONDS = 45  # a check that takes longer is killed
SMALLEST_TRAINING_MB = 512  # the libraries alone take half of that
LONGEST_LEASE_SECONDS = 55.0  # what a killed worker held is taken up again within a minute


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """The lease outlives the hard limit of a check, and limits are positive."""
    found: list[CheckMessage] = []
    if not HARD_LIMIT_SECONDS < settings.DEDUP_LEASE_SECONDS <= LONGEST_LEASE_SECONDS:
        found.append(
            Error(
                f"DEDUP_LEASE_SECONDS must be over {HARD_LIMIT_SECONDS}, the hard limit of a check,"
                f" and at most {LONGEST_LEASE_SECONDS:.0f}.",
                id="dedup.E001",
            )
        )
    for name in (
        "DEDUP_BATCH", "DEDUP_SHORTLIST", "DEDUP_FLAGS_PER_QUESTION", "DEDUP_THREADS",
        "DEDUP_TRAINING_MINUTES",
    ):  # fmt: skip
        if getattr(settings, name) < 1:
            found.append(Error(f"{name} must be at least 1.", id="dedup.E002"))
    if 0 < settings.DEDUP_TRAINING_MEMORY_MB < SMALLEST_TRAINING_MB:
        said = f"DEDUP_TRAINING_MEMORY_MB must be 0 or at least {SMALLEST_TRAINING_MB}."
        found.append(Error(said, id="dedup.E005"))
    if not settings.DEDUP_SAMPLED_PER_QUESTION >= 0:
        found.append(Error("DEDUP_SAMPLED_PER_QUESTION must be at least 0.", id="dedup.E004"))
    return found


@register()
def check_artifacts(**_: Any) -> list[CheckMessage]:
    """Each release folder's manifest can be read. A warning: the site works without a release."""
    found: list[CheckMessage] = []
    folders = {settings.DEDUP_ARTIFACTS, releases.made_folder()}
    for manifest in sorted(file for each in folders for file in each.glob(f"*/{MANIFEST}")):
        try:
            read_manifest(manifest.parent)
        except ArtifactRefused as error:
            found.append(Warning(f"Release {manifest.parent.name}: {error}", id="dedup.W003"))
    return found
