"""Which release is in service: add one, activate it, roll back."""

from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from dedup.ml.artifact import ArtifactRefused, verify
from dedup.models import Release
from support import audit
from support.models import User

OTHER_FILES = "its folder holds other files than those that were put into service"


class NoRelease(Exception):
    """No release is active: nothing can be checked, and the site says so."""


class NoWayBack(Exception):
    """The active release replaced none."""


def active() -> Release:
    """Return the release in service. Raises NoRelease."""
    release = Release.objects.filter(is_active=True).first()
    if release is None:
        raise NoRelease("No release is active: run activate_release.")
    return release


def folder_of(release: Release) -> Path:
    """Where the files of a release lie on this machine."""
    return folder_named(release.name)


def made_folder() -> Path:
    """Where releases go that this portal makes; among the artifacts where none is named."""
    return Path(settings.DEDUP_RELEASES_FOLDER or settings.DEDUP_ARTIFACTS)


def folder_named(name: str) -> Path:
    """Where a release of this name lies, or would; what was made here comes before what ships."""
    made = made_folder() / name
    return made if made.exists() else Path(settings.DEDUP_ARTIFACTS) / name


def add(name: str) -> Release:
    """Take the artifact folder `name` in as a release, not yet active; adding it again is harmless.

    A release is its files: where the folder held others before, what those said stays theirs, under
    a name with their fingerprint. Raises dedup.ml.artifact.ArtifactRefused where a file is missing
    or is not what its hash says.
    """
    manifest = verify(folder_named(name))
    for former in Release.objects.filter(name=name).exclude(fingerprint=manifest.fingerprint):
        former.name = f"{name}@{former.fingerprint[:12]}"
        former.save(update_fields=["name"])
    release, _ = Release.objects.update_or_create(
        fingerprint=manifest.fingerprint,
        defaults={"name": name},
        create_defaults={
            "name": name,
            "embedding_fingerprint": manifest.embedding_fingerprint,
            "manifest": manifest.raw,
            "threshold": manifest.thresholds["flag"],
            "suggestion_floor": manifest.thresholds["suggest"],
            "sure_threshold": manifest.thresholds["sure"],
        },
    )
    return release


def prove_files(release: Release) -> None:
    """Raises dedup.ml.artifact.ArtifactRefused unless its files lie here, unchanged."""
    if verify(folder_of(release)).fingerprint != release.fingerprint:
        raise ArtifactRefused(OTHER_FILES)


def activate(*, release: Release, by: User | None = None, now: datetime | None = None) -> Release:
    """Put `release` into service; workers take it up with their next check.

    Raises dedup.ml.artifact.ArtifactRefused, and the one in service stays, where its files are not
    what they were.
    """
    prove_files(release)
    return _put_into_service(release, by=by, now=now or timezone.now(), replaces=True)


@transaction.atomic
def _put_into_service(
    release: Release, *, by: User | None, now: datetime, replaces: bool
) -> Release:
    in_order = Release.objects.order_by("pk").select_for_update()
    by_id = {row.pk: row for row in in_order}
    chosen = by_id[release.pk]
    before = next((row for row in by_id.values() if row.is_active), None)
    if before and before.pk == chosen.pk:
        return chosen
    if before:
        before.is_active = False
        before.save(update_fields=["is_active"])
    chosen.is_active = True
    if replaces:  # a way back leads on to where the older one came from, not to and fro
        chosen.previous = before
    chosen.activated_at, chosen.activated_by = now, by
    chosen.save(update_fields=["is_active", "previous", "activated_at", "activated_by"])
    audit.record("release_activated", by=by, now=now, release=chosen.name)
    return chosen


def roll_back(*, by: User | None = None, now: datetime | None = None) -> Release:
    """Put the release back into service that the active one replaced.

    Raises NoWayBack, and dedup.ml.artifact.ArtifactRefused as `activate` does.
    """
    current = active()
    if current.previous is None:
        raise NoWayBack(f"{current.name} replaced no other release.")
    prove_files(current.previous)
    return _put_into_service(current.previous, by=by, now=now or timezone.now(), replaces=False)
