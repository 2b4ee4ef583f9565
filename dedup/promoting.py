"""Into service, through the gates, and what is known of a release at them."""

from datetime import datetime

import numpy as np
from django.db import transaction
from django.db.models import F, FilteredRelation, Q
from django.utils import timezone

from dedup import gates, releases
from dedup.gates import Gate, Shadowed, Shown
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Release, Report, Score
from support import audit
from support.models import User

MOST_PAIRS = 5_000  # of the newest that both releases judged


class GatesShut(Exception):
    """Something that is asked of a release is missing; `gates` are those that are shut."""

    def __init__(self, shut: list[Gate]) -> None:
        super().__init__("; ".join(f"{gate.title}: {gate.found}" for gate in shut))
        self.gates = shut


def judged(release: Release) -> list[Gate]:
    """Every gate before this release, as it stands now; none where no release is in service."""
    active = Release.objects.filter(is_active=True).first()
    if active is None or active.pk == release.pk:
        return []
    return gates.judge(shown(release, active))


def shown(release: Release, active: Release) -> Shown:
    """What is known of it beside the active one."""
    try:
        releases.prove_files(release)
        refused = ""
    except ArtifactRefused as error:
        refused = str(error)
    report, newest = newest_report(release, against=active), newest_report(release)
    is_proved = newest is not None and newest.figures.get("fingerprint") == release.fingerprint
    figures = report.figures if report else None
    return Shown(refused, is_proved, figures, _shadowed(release, active))


def newest_report(release: Release, *, against: Release | None = None) -> Report | None:
    """What was measured last of a release, or last beside another one."""
    reports = Report.objects.filter(release=release)
    if against:
        reports = reports.filter(against=against)
    return reports.order_by("-made_at", "-pk").first()


def _shadowed(release: Release, active: Release) -> Shadowed | None:
    """Of the newest pairs that both judged, as long as the texts are the same."""
    others = Q(older__scores_as_older__newer=F("newer"), older__scores_as_older__release=active)
    pairs = (
        Score.objects.filter(release=release)
        .annotate(other=FilteredRelation("older__scores_as_older", condition=others))
        .filter(
            other__isnull=False, other__older_hash=F("older_hash"),
            other__newer_hash=F("newer_hash"),
        )
        .order_by("-scored_at", "-pk")
        .values_list("other__probability", "probability")[:MOST_PAIRS]
    )  # fmt: skip
    rows = np.asarray(list(pairs), float)
    if not len(rows):
        return None
    return Shadowed(rows[:, 0], rows[:, 1], active.threshold, release.threshold)


def promote(
    *, release: Release, by: User | None, reason: str = "", now: datetime | None = None
) -> Release:
    """Put `release` into service if its gates are open; workers take it up with their next check.

    With a `reason`, gates that may be overruled are. Raises GatesShut, and
    dedup.ml.artifact.ArtifactRefused as `releases.activate`.
    """
    now = now or timezone.now()
    closed = gates.shut(judged(release))
    if closed and not (reason.strip() and all(gate.may_be_overruled for gate in closed)):
        raise GatesShut(closed)
    with transaction.atomic():
        promoted = releases.activate(release=release, by=by, now=now)
        promoted.overruled = reason.strip()[:500] if closed else ""
        promoted.save(update_fields=["overruled"])
        if closed:
            names = [gate.name for gate in closed]
            audit.record("gates_overruled", by=by, now=now, release=release.name, gates=names)
    return promoted
