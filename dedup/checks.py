"""System checks: settings that would make the machine fall silent or overrun its lease."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's word

from dedup import cascade, releases, webhooks
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
        found.append(Error(said, id="dedup.E007"))
    floor = settings.DEDUP_CASCADE_FLOOR
    if floor is not None and not 0 < floor < 1:
        found.append(Error("DEDUP_CASCADE_FLOOR must be over 0 and below 1.", id="dedup.E011"))
    for name in ("DEDUP_SAMPLED_PER_QUESTION", "DEDUP_CHOSEN_PER_DAY", "DEDUP_NICENESS"):
        if not getattr(settings, name) >= 0:
            found.append(Error(f"{name} must be at least 0.", id="dedup.E004"))
    return found


@register()
def check_cascade(**_: Any) -> list[CheckMessage]:
    """The student that is set is one. A warning: without it the release reads all."""
    if not cascade.is_on():
        return []
    try:
        cascade.named()
    except ArtifactRefused as error:
        return [Warning(f"DEDUP_CASCADE {settings.DEDUP_CASCADE}: {error}", id="dedup.W012")]
    return []


@register()
def check_webhook(**_: Any) -> list[CheckMessage]:
    """Where alerts are sent to is an address that may be sent to, with a secret that signs."""
    if not settings.ALERT_WEBHOOK:
        return []
    try:
        webhooks.read_url(settings.ALERT_WEBHOOK, allows_private=settings.ALERT_WEBHOOK_PRIVATE)
    except webhooks.AddressRefused as error:
        return [Error(f"ALERT_WEBHOOK is refused: {error}.", id="dedup.E005")]
    if not webhooks.is_secret(settings.ALERT_WEBHOOK_SECRET):
        hint = "ALERT_WEBHOOK_SECRET must be whsec_ and at least 24 random bytes in base64."
        return [Error(hint, id="dedup.E006")]
    return []


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
