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


class ActiveAlready(Exception):
    """What is in service cannot be its own shadow."""


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


def lock() -> dict[int, Release]:
    """All releases by id, locked until the transaction ends: one change of what is in service after
    the other. Checks that write scores meanwhile do not wait: their keys stay as they are."""
    in_order = Release.objects.order_by("pk").select_for_update(no_key=True)
    return {row.pk: row for row in in_order}


@transaction.atomic
def _put_into_service(
    release: Release, *, by: User | None, now: datetime, replaces: bool
) -> Release:
    by_id = lock()
    chosen = by_id[release.pk]
    before = next((row for row in by_id.values() if row.is_active), None)
    if before and before.pk == chosen.pk:
        return chosen
    if before:
        before.is_active = False
        before.save(update_fields=["is_active"])
    chosen.is_active, chosen.shadow_since = True, None
    if replaces:  # a way back leads on to where the older one came from, not to and fro
        chosen.previous = before
    chosen.activated_at, chosen.activated_by = now, by
    chosen.save(
        update_fields=["is_active", "shadow_since", "previous", "activated_at", "activated_by"]
    )
    audit.record("release_activated", by=by, now=now, release=chosen.name)
    return chosen


@transaction.atomic
def roll_back(
    *, by: User | None = None, now: datetime | None = None, leaving: int | None = None
) -> Release:
    """Put the release back into service that the active one replaced.

    With `leaving` (an id), only where that one is still in service: what somebody saw before may
    have changed. Raises NoRelease, NoWayBack, and dedup.ml.artifact.ArtifactRefused as `activate`.
    """
    lock()
    current = active()
    if leaving is not None and current.pk != leaving:
        raise NoWayBack(f"{current.name} went into service meanwhile.")
    if current.previous is None:
        raise NoWayBack(f"{current.name} replaced no other release.")
    prove_files(current.previous)
    return _put_into_service(current.previous, by=by, now=now or timezone.now(), replaces=False)


@transaction.atomic
def shadow(*, release: Release, by: User | None, now: datetime | None = None) -> Release:
    """Let `release` judge what the active one judges, in the place of any other that did; nothing
    of it is flagged.

    Raises ActiveAlready, and dedup.ml.artifact.ArtifactRefused as `activate` does.
    """
    now = now or timezone.now()
    prove_files(release)
    chosen = lock()[release.pk]
    if chosen.is_active:
        raise ActiveAlready(f"{chosen.name} is in service already.")
    if chosen.shadow_since is None:
        Release.objects.update(shadow_since=None)
        chosen.shadow_since = now
        chosen.save(update_fields=["shadow_since"])
        audit.record("release_shadowed", by=by, now=now, release=chosen.name)
    return chosen


@transaction.atomic
def end_shadow(*, release: Release, by: User | None, now: datetime | None = None) -> None:
    """Let `release` judge no further; what it said is kept."""
    ended = Release.objects.filter(pk=release.pk, shadow_since__isnull=False)
    if ended.update(shadow_since=None):
        now = now or timezone.now()
        audit.record("release_shadow_ended", by=by, now=now, release=release.name)


def in_shadow() -> Release | None:
    """The release that judges without being heard."""
    return Release.objects.filter(shadow_since__isnull=False).first()
