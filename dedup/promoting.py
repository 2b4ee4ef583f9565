"""Into service, through the gates, and what is known of a release at them."""

from datetime import datetime

import numpy as np
from django.db import transaction
from django.utils import timezone

from dedup import gates, releases, reports
from dedup.gates import Gate, Shadowed, Shown
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Release, Score
from support import audit
from support.models import OutboxEntry, User

MOST_PAIRS = 5_000  # of the newest that both releases judged
LONGEST_REASON = 500


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
    report, newest = reports.newest(release, against=active), reports.newest(release)
    is_proved = newest is not None and newest.figures.get("fingerprint") == release.fingerprint
    figures = report.figures if report else None
    return Shown(refused, is_proved, figures, _shadowed(release, active))


def _shadowed(release: Release, active: Release) -> Shadowed | None:
    """Of the newest pairs that both judged, as long as the texts are the same."""
    pair = ("older", "newer", "older_hash", "newer_hash")
    newest = Score.objects.filter(release=release).order_by("-scored_at", "-pk")
    said = list(newest.values_list(*pair, "probability")[:MOST_PAIRS])
    # Two plain queries: joined, the planner may read all scores there are.
    ends = {"older__in": {row[0] for row in said}, "newer__in": {row[1] for row in said}}
    others = Score.objects.filter(release=active, **ends).values_list(*pair, "probability")
    by_active = {tuple(key): probability for *key, probability in others}
    both = [(by_active[tuple(key)], p) for *key, p in said if tuple(key) in by_active]
    if not both:
        return None
    rows = np.asarray(both, float)
    return Shadowed(rows[:, 0], rows[:, 1], active.threshold, release.threshold)


def count_shadowed() -> int:
    """Pairs that the release in the shadow judged beside the one in service; gates ask for some."""
    shadow, active = releases.in_shadow(), Release.objects.filter(is_active=True).first()
    seen = _shadowed(shadow, active) if shadow and active else None
    return len(seen.shadow) if seen else 0


def checked_by_others(active: Release) -> int:
    """Questions that were last checked by another release than the one in service."""
    checked = OutboxEntry.objects.filter(settled_at__isnull=False)
    return checked.exclude(checked_by=active.fingerprint).count()


def promote(
    *, release: Release, by: User | None, reason: str = "", now: datetime | None = None
) -> Release:
    """Put `release` into service if its gates are open; workers take it up with their next check.

    With a `reason`, gates that may be overruled are. Of two at once the second is judged against
    what the first left in service. What is kept out is on record too. Raises GatesShut, and
    dedup.ml.artifact.ArtifactRefused as `releases.activate`.
    """
    now, reason = now or timezone.now(), reason.strip()[:LONGEST_REASON]
    try:
        return _promote(release, by=by, reason=reason, now=now)
    except GatesShut as kept_out:
        audit.record(
            "release_kept_out", by=by, now=now, release=release.name, gates=names(kept_out.gates)
        )
        raise


@transaction.atomic
def _promote(release: Release, *, by: User | None, reason: str, now: datetime) -> Release:
    chosen = releases.lock()[release.pk]
    closed = gates.shut(judged(chosen))
    if closed and not (reason and all(gate.may_be_overruled for gate in closed)):
        raise GatesShut(closed)
    if chosen.is_active:
        return chosen
    promoted = releases.activate(release=chosen, by=by, now=now)
    promoted.overruled = reason if closed else ""
    promoted.save(update_fields=["overruled"])
    if closed:
        audit.record("gates_overruled", by=by, now=now, release=release.name, gates=names(closed))
    return promoted


def names(judged: list[Gate]) -> list[str]:
    """Of gates, for programs and for the record."""
    return [gate.name for gate in judged]
