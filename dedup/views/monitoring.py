"""What admins see of how the machine fares, and of the alerts about it."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dedup import agreement, alerts, drift, timing, watching
from dedup.drift import Drift
from dedup.models import Alert, Baseline, Delivery, Release, Score
from dedup.templatetags.charts import Series, number_words
from dedup.timing import Stage
from support.http import HtmxRequest

PERIODS = (7, 30, 90)
ALERTS_SHOWN, DELIVERIES_SHOWN = 20, 20
CHARTED = (Stage.EMBED, Stage.SHORTLIST, Stage.SCORE, Stage.WRITE)
WEEKS = 12


@require_GET
@permission_required("dedup.activate_release", raise_exception=True)
def show(request: HtmxRequest) -> HttpResponse:
    """Queue, workers, stages, what people confirm, drift, alerts: each with period and counts."""
    wanted, now = request.GET.get("days", ""), timezone.now()
    days = next((days for days in PERIODS if str(days) == wanted), 30)
    since = now - timedelta(days=days)
    context = {
        "days": days,
        "periods": PERIODS,
        "waiting": (waiting := watching.waiting(now=now)),
        "oldest_at": now - timedelta(seconds=waiting.oldest_seconds),
        "workers": _workers(now),
        "last_seen": timing.last_seen(),
        "degraded": watching.degraded(since=since, until=now),
        "fewest": agreement.FEWEST,
        "kept_days": timing.KEPT.days,
        **_stages(since, now),
        **_people(since, now),
        **_drift(now),
        **_alerts(),
    }
    return render(request, "dedup/monitoring.html", context)


def _workers(now: datetime) -> list[dict[str, Any]]:
    return [
        {"worker": one, "is_alive": one.seen_at > now - watching.ALIVE}
        for one in watching.workers()
    ]


def _stages(since: datetime, now: datetime) -> dict[str, Any]:
    by_day = timing.by_day(since=since, until=now)
    return {
        "stages": [
            {"label": Stage(name).label, "count": one.count, "p50": duration(one.p50),
             "p95": duration(one.p95)}
            for name, one in watching.stage_times(since=since, until=now)
        ],
        "stage_series": _p95s(by_day, CHARTED),
        "wait_series": _p95s(by_day, (Stage.WAITED, *timing.SUGGESTIONS)),
    }  # fmt: skip


def _p95s(
    by_day: dict[str, dict[datetime, timing.Histogram]], stages: Sequence[Stage]
) -> list[Any]:
    """Of each of these stages, within how many seconds 95 in 100 were done, day by day."""
    return [
        Series(str(name.label), [(day.date(), one.p95) for day, one in by_day[name].items()])
        for name in stages
        if name in by_day
    ]


def _people(since: datetime, now: datetime) -> dict[str, Any]:
    weeks = watching.acceptance_by_week(since=now - timedelta(weeks=WEEKS), until=now)
    line = [(week.date(), rate.agreed / rate.asked) for week, rate in weeks]
    band = [agreement.wilson(rate.agreed, rate.asked) for _week, rate in weeks]
    return {
        "acceptance": watching.acceptance_by_release(since=since, until=now),
        "agreement": watching.agreement_by_release(since=since, until=now),
        "weeks": WEEKS,
        "acceptance_series": [Series(_("Confirmed"), line, band)] if weeks else [],
    }


def _drift(now: datetime) -> dict[str, Any]:
    release = Release.objects.filter(is_active=True).first()
    found = drift.drifts(release, now=now) if release else []
    labels = drift.labels_of(one.segment for one in found)
    baselines = {one.measure: one for one in release.baselines.all()} if release else {}
    wholes = {one.measure: one for one in found if not one.segment}
    measures = [
        {
            "name": measure.value,
            "label": measure.label,
            "chart": f"parts-{measure.value}",
            "baseline": baselines[measure],
            "rows": [
                {"label": labels[one.segment], "drift": one}
                for one in found
                if one.measure == measure
            ],
            **_parts(wholes[measure], baselines[measure]),
        }
        for measure in Baseline.Measure
        if measure in baselines
    ]  # fmt: skip
    return {
        "release": release,
        "measures": measures,
        "drift_days": drift.LATELY.days,
        "moved": drift.MOVED,
        "strong": drift.STRONG,
        "few_scores": drift.FEWEST_SCORES,
        "few_questions": drift.FEWEST_QUESTIONS,
        "so_far": None if measures or not release else _so_far(release),
        "wanted_scores": drift.BASELINE_SCORES,
        "wanted_questions": drift.BASELINE_QUESTIONS,
        "baseline_days": drift.BASELINE.days,
    }


def _so_far(release: Release) -> dict[str, int]:
    """How many scores there are for a baseline that is not there yet."""
    since = release.activated_at
    scores = Score.objects.filter(release=release, scored_at__gt=since, newer__asked_at__gt=since)
    if since is None:
        return {"scores": 0, "questions": 0}
    return scores.aggregate(scores=Count("pk"), questions=Count("newer", distinct=True))


def _parts(whole: Drift, baseline: Baseline) -> dict[str, Any]:
    """What share of scores lies in each part, then and now, and how high that is."""
    ends = [number_words(edge) for edge in baseline.edges]
    names = [f"< {ends[0]}", *(f"≥ {end}" for end in ends)] if ends else []
    both = [(_("At first"), whole.then), (_("Lately"), whole.now)]
    series = [
        Series(name, [(part, n / sum(counts)) for part, n in zip(names, counts, strict=True)])
        for name, counts in both
        if names and sum(counts)
    ]
    shares = [share for one in series for _part, share in one.points if share]
    return {"series": series, "high": min(1.0, math.ceil(10 * max(shares, default=0.5)) / 10)}


def _alerts() -> dict[str, Any]:
    shown = list(Alert.objects.open().order_by("-opened_at"))
    over = list(Alert.objects.exclude(closed_at=None).order_by("-opened_at")[:ALERTS_SHOWN])
    sent = list(Delivery.objects.select_related("alert").order_by("-put_at", "-pk")
                [:DELIVERIES_SHOWN])  # fmt: skip
    labels = alerts.subject_labels({*shown, *over, *(one.alert for one in sent)})
    return {
        "open_alerts": [_said(one, labels) for one in shown],
        "past_alerts": [_said(one, labels) for one in over],
        "deliveries": [{"delivery": one, "subject": labels[one.alert_id]} for one in sent],
        "addresses": len(alerts.addresses()),
        "look_minutes": int(alerts.EVERY.total_seconds()) // 60,
    }


def _said(alert: Alert, labels: dict[int, str]) -> dict[str, Any]:
    return {
        "alert": alert,
        "subject": labels[alert.pk],
        "value": alerts.in_words(alert, alert.worst),
        "bound": alerts.in_words(alert, alert.bound),
    }


def duration(seconds: float | None) -> str:
    """So many seconds as people read them: 34 ms, 2.5 s."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return _("%(number)s ms") % {"number": number_words(round(1000 * seconds))}
    return _("%(number)s s") % {"number": number_words(round(seconds, 1))}


@require_POST
@permission_required("dedup.activate_release", raise_exception=True)
def redeliver(request: HtmxRequest, pk: int) -> HttpResponse:
    """Send a message about an alert once more."""
    delivery = get_object_or_404(Delivery, pk=pk)
    alerts.redeliver(delivery=delivery, by=request.user, now=timezone.now())
    messages.success(request, _("It will be sent again within a minute."))
    return redirect("monitoring")
