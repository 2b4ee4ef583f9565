"""System checks: settings that would make the machine fall silent or overrun its lease."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from dedup.ml.artifact import ArtifactRefused, read_manifest

HARD_LIMIT_SECONDS = 45


@register()
def check_settings(**_: Any) -> list[CheckMessage]:
    """The lease outlives the hard limit of a check, and limits are positive."""
    found: list[CheckMessage] = []
    if settings.DEDUP_LEASE_SECONDS <= HARD_LIMIT_SECONDS:
        found.append(
            Error("The lease must outlive a check's hard limit.", id="dedup.E001")
        )
    for name in ("DEDUP_BATCH", "DEDUP_SHORTLIST", "DEDUP_FLAGS_PER_QUESTION"):
        if getattr(settings, name) < 1:
            found.append(Error(f"{name} must be at least 1.", id="dedup.E002"))
    return found


@register()
def check_artifacts(**_: Any) -> list[CheckMessage]:
    """Each release folder has a manifest that can be read."""
    found: list[CheckMessage] = []
    for folder in sorted(settings.DEDUP_ARTIFACTS.glob("*/")):
        try:
            read_manifest(folder)
        except ArtifactRefused as error:
            found.append(Error(f"Release {folder.name}: {error}", id="dedup.E003"))
    return found
