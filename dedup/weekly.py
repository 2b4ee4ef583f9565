"""The report of a week: what the machine did, how well, to whom, and what went wrong.

For admins, and for whoever they print it for: it says what its words mean and of how many each
figure is. Weeks are those of ISO 8601, in UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import connection
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import translation

from dedup import alerts, drift, estimating, watching
from dedup.agreement import Rate
from dedup.drift import Drift
from dedup.estimating import Quality
from dedup.models import Alert, Flag, Release, Review
from support.models import AuditEntry, Merge

# What of the audit trail tells of the machine: releases, thresholds, long work.
CHANGES = ("release_", "threshold", "gates_", "job_", "alert_")

ASKED = (  # both are made of constants
    "SELECT segment, count(*), count(*) FILTER (WHERE EXISTS (SELECT 1 FROM dedup_flag f"  # noqa: S608
    " WHERE f.newer_id = q.id AND f.lane = 'flagged'))"
    " FROM support_question q JOIN support_user u ON u.id = q.asked_by_id, "
    + drift.SEGMENTS
    + "WHERE q.asked_at > %(since)s AND q.asked_at <= %(until)s GROUP BY segment"
)  # fmt: skip
DECIDED = (
    "SELECT segment, count(*), count(*) FILTER (WHERE r.verdict <> 'confirmed')"  # noqa: S608
    " FROM dedup_review r JOIN dedup_flag f ON f.id = r.flag_id"
    " JOIN support_question q ON q.id = f.newer_id"
    " JOIN support_user u ON u.id = q.asked_by_id, "
    + drift.SEGMENTS
    + "WHERE r.id = ANY(%(reviews)s) GROUP BY segment"
)  # fmt: skip


class NoWeek(Exception):
    """It names no week, or one that has not begun."""


@dataclass(frozen=True)
class Week:
    """A week from Monday to Sunday, in UTC."""

    begins_on: date

    @property
    def name(self) -> str:
        year, week, _day = self.begins_on.isocalendar()
        return f"{year}-W{week:02}"

    @property
    def year(self) -> str:
        """The year that it is counted in: a text, since no number of so many."""
        return str(self.begins_on.isocalendar().year)

    @property
    def number(self) -> int:
        return self.begins_on.isocalendar().week

    @property
    def ends_on(self) -> date:
        return self.begins_on + timedelta(days=6)

    @property
    def since(self) -> datetime:
        return datetime.combine(self.begins_on, time(), UTC)

    def until(self, now: datetime) -> datetime:
        """Its end, or this moment while it lasts."""
        return min(now, self.since + timedelta(days=7))

    def is_over(self, now: datetime) -> bool:
        return now >= self.since + timedelta(days=7)

    def before(self, weeks: int = 1) -> "Week":
        return Week(self.begins_on - timedelta(weeks=weeks))


def week_of(now: datetime) -> Week:
    """The week in which this moment lies."""
    day = now.astimezone(UTC).date()
    return Week(day - timedelta(days=day.weekday()))


def read_week(name: str, *, now: datetime) -> Week:
    """The week that `2026-W48` names; the current one of "". Raises NoWeek."""
    if not name:
        return week_of(now)
    year, _w, week = name.partition("-W")
    try:
        found = Week(date.fromisocalendar(int(year), int(week), 1))
    except ValueError as error:
        raise NoWeek(name) from error
    if found.name != name or found.since > now:
        raise NoWeek(name)
    return found


@dataclass(frozen=True)
class Volumes:
    """How much there was of what."""

    asked: int
    checked: int
    flagged: int
    decided: int
    confirmed: int
    dismissed: int
    drawn: int  # decided blindly, from below the threshold
    merged: int
    unmerged: int
    unmerged_flagged: int  # of those, merges that a flag had led to
    suggestions: int


@dataclass(frozen=True)
class Segment:
    """How often questions of one kind are flagged, and wrongly so, beside all others."""

    segment: str
    label: str
    flagged: Rate  # of its questions
    wrong: Rate  # of its decided flags, those that were not confirmed
    is_flagged_more: bool
    is_wrong_more: bool


@dataclass(frozen=True)
class Report:
    """All that is said of a week."""

    week: Week
    is_over: bool
    now: datetime
    releases: Sequence[str]
    changes: Sequence[Mapping[str, Any]]
    volumes: Volumes
    acceptance: Rate
    acceptance_before: Rate
    quality: Quality | None
    segments: Sequence[Segment]
    drifts: Sequence[tuple[str, Drift]]
    alerts: Sequence[Mapping[str, Any]]
    degraded: watching.Degraded
    agreement: Sequence[tuple[str, Rate]]
    threshold: float | None


def report(week: Week, *, now: datetime) -> Report:
    """What is to be said of a week, as it is known now."""
    since, until = week.since, week.until(now)
    release = Release.objects.filter(is_active=True).first()
    drifts = drift.drifts(release, now=until, lately=until - since) if release else []
    labels = drift.labels_of(one.segment for one in drifts)
    return Report(
        week=week,
        is_over=week.is_over(now),
        now=now,
        releases=releases_of(since, until),
        changes=changes(since, until),
        volumes=volumes(since, until),
        acceptance=watching.acceptance(since=since, until=until),
        acceptance_before=watching.acceptance(since=since - timedelta(weeks=4), until=since),
        quality=estimating.cases(release, until=until).quality() if release else None,
        segments=segments(since, until),
        drifts=[(labels[one.segment], one) for one in drifts],
        alerts=alerts_of(since, until),
        degraded=watching.degraded(since=since, until=until),
        agreement=watching.agreement_by_release(since=since, until=until),
        threshold=release.threshold if release else None,
    )


def releases_of(since: datetime, until: datetime) -> list[str]:
    """Names of the releases that were in service in this time, in order."""
    activated = AuditEntry.objects.filter(action="release_activated", at__lte=until)
    within = list(activated.filter(at__gt=since).order_by("at", "pk"))
    before = activated.filter(at__lte=since).order_by("-at", "-pk").first()
    names = [entry.details.get("release", "") for entry in ([before] if before else []) + within]
    if not names and (active := Release.objects.filter(is_active=True).first()):
        names = [active.name]
    return list(dict.fromkeys(name for name in names if name))


def changes(since: datetime, until: datetime) -> list[dict[str, Any]]:
    """What the audit trail says of the machine: ids and plain values, oldest first."""
    about = Q()
    for beginning in CHANGES:
        about |= Q(action__startswith=beginning)
    entries = AuditEntry.objects.filter(about, at__gt=since, at__lte=until).select_related("by")
    return [
        {"at": one.at, "action": one.action, "by": one.by, "details": one.details}
        for one in entries.order_by("at", "pk")
    ]


def volumes(since: datetime, until: datetime) -> Volumes:
    """How much there was of what, in this time."""
    rate = watching.acceptance(since=since, until=until)
    found = watching.degraded(since=since, until=until)
    drawn = Review.objects.standing().filter(
        verdict__in=Review.DECISIONS, flag__lane=Flag.Lane.SAMPLED,
        reviewed_at__gt=since, reviewed_at__lte=until,
    )  # fmt: skip
    undone = Merge.objects.filter(undone_at__gt=since, undone_at__lte=until)
    return Volumes(
        asked=watching.asked(since=since, until=until),
        checked=found.checks,
        flagged=Flag.objects.flagged().filter(flagged_at__gt=since, flagged_at__lte=until).count(),
        decided=rate.asked,
        confirmed=rate.agreed,
        dismissed=rate.asked - rate.agreed,
        drawn=drawn.values("flag").distinct().count(),
        merged=Merge.objects.filter(merged_at__gt=since, merged_at__lte=until).count(),
        unmerged=undone.count(),
        unmerged_flagged=undone.exclude(release="").count(),
        suggestions=found.suggestions,
    )


def segments(since: datetime, until: datetime) -> list[Segment]:
    """Each kind of question beside all others; "more" where the intervals lie apart."""
    reviews = list(watching.decided(since=since, until=until).values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(ASKED, {"since": since, "until": until})
        flagged = {segment: Rate(hits, number) for segment, number, hits in cursor.fetchall()}
        cursor.execute(DECIDED, {"reviews": reviews})
        wrong = {segment: Rate(hits, number) for segment, number, hits in cursor.fetchall()}
    names = {*flagged, *wrong}
    labels = drift.labels_of(names)
    none = Rate(0, 0)
    found = [
        Segment(
            name, labels[name], flagged.get(name, none), wrong.get(name, none),
            is_more(flagged.get(name, none), flagged.get("", none)),
            is_more(wrong.get(name, none), wrong.get("", none)),
        )
        for name in names
    ]  # fmt: skip
    return sorted(
        found, key=lambda one: (one.segment != "", drift.kind_of(one.segment), -one.flagged.asked,
                                one.segment)
    )  # fmt: skip


def is_more(some: Rate, everything: Rate) -> bool:
    """Whether a share is noticeably higher than that of all the others."""
    others = Rate(everything.agreed - some.agreed, everything.asked - some.asked)
    if not (some.is_enough and others.is_enough):
        return False
    return some.low > others.high


def alerts_of(since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Alerts that were open in this time, oldest first."""
    found = list(
        Alert.objects.filter(Q(closed_at=None) | Q(closed_at__gt=since), opened_at__lte=until)
        .order_by("opened_at", "pk")
    )  # fmt: skip
    labels = alerts.subject_labels(found)
    return [
        {
            "alert": one, "subject": labels[one.pk], "bound": alerts.in_words(one, one.bound),
            "value": alerts.in_words(one, one.worst),
        }
        for one in found
    ]  # fmt: skip


# --- For programs -----------------------------------------------------------------------------


def as_dict(found: Report) -> dict[str, Any]:
    """The report in plain values: no names of people, no texts."""
    return {
        "week": found.week.name,
        "begins_on": found.week.begins_on.isoformat(),
        "ends_on": found.week.ends_on.isoformat(),
        "is_over": found.is_over,
        "releases": list(found.releases),
        "changes": [
            {"at": one["at"].isoformat(), "action": one["action"], "details": one["details"]}
            for one in found.changes
        ],
        "volumes": asdict(found.volumes),
        "acceptance": _rate(found.acceptance),
        "acceptance_four_weeks_before": _rate(found.acceptance_before),
        "threshold": found.threshold,
        "recall": _estimate(found.quality.recall if found.quality else None),
        "precision": _estimate(found.quality.precision if found.quality else None),
        "segments": [
            {
                "segment": one.segment, "flagged": _rate(one.flagged), "wrong": _rate(one.wrong),
                "is_flagged_more": one.is_flagged_more, "is_wrong_more": one.is_wrong_more,
            }
            for one in found.segments
        ],
        "drift": [
            {
                "measure": one.measure, "segment": one.segment, "state": one.state,
                "psi": round(one.psi, 4) if one.is_enough else None,
                "by_chance": round(one.by_chance, 4) if one.is_enough else None,
                "scores": one.scores_now, "questions": one.questions_now,
            }
            for _label, one in found.drifts
        ],
        "alerts": [
            {
                "rule": one["alert"].rule, "subject": one["alert"].subject,
                "worst": one["alert"].worst, "bound": one["alert"].bound,
                "opened_at": one["alert"].opened_at.isoformat(),
                "closed_at": one["alert"].closed_at and one["alert"].closed_at.isoformat(),
            }
            for one in found.alerts
        ],
        "degraded": asdict(found.degraded),
        "agreement": {name: _rate(rate) for name, rate in found.agreement},
    }  # fmt: skip


def _rate(rate: Rate) -> dict[str, Any]:
    ends = [round(rate.low, 4), round(rate.high, 4)] if rate.asked else None
    return {"hits": rate.agreed, "of": rate.asked, "interval": ends}


def _estimate(one: Any) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "value": round(one.value, 4), "interval": [round(one.low, 4), round(one.high, 4)],
        "judged": one.judged, "duplicates": one.duplicates,
    }  # fmt: skip


def as_markdown(found: Report) -> str:
    """The report as a text that can be mailed or kept, in English as all that commands say."""
    with translation.override("en"):
        return render_to_string("dedup/weekly.md", {"report": found}).strip() + "\n"
