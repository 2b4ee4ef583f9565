"""The report of a week, for admins and whoever they print it for."""

from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from dedup import agreement, drift, weekly
from dedup.ml.estimation import Estimate
from support.http import HtmxRequest

WEEKS_BEFORE = 8


@require_GET
@permission_required("dedup.activate_release", raise_exception=True)
def show(request: HtmxRequest) -> HttpResponse:
    """What the machine did in a week, how well, to whom, and what went wrong."""
    now = timezone.now()
    try:
        week = weekly.read_week(request.GET.get("week", ""), now=now)
    except weekly.NoWeek as error:
        raise Http404 from error
    report = weekly.report(week, now=now)
    current = weekly.week_of(now)
    context = {
        "report": report,
        "precision": _in_percent(report.quality.precision if report.quality else None),
        "recall": _in_percent(report.quality.recall if report.quality else None),
        "weeks": [current.before(back) for back in range(WEEKS_BEFORE)],
        "fewest": agreement.FEWEST,
        "moved": drift.MOVED,
        "strong": drift.STRONG,
    }
    return render(request, "dedup/weekly.html", context)


def _in_percent(estimate: Estimate | None) -> dict[str, int] | None:
    """An estimate as a page shows shares."""
    if estimate is None:
        return None
    return {
        "percent": round(100 * estimate.value),
        "low_percent": round(100 * estimate.low),
        "high_percent": round(100 * estimate.high),
        "judged": estimate.judged,
    }
