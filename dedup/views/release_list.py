"""Releases: which is in service, which in the shadow; into service through the gates, and back."""

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import backfilling, gates, jobs, promoting, releases, reports
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Job, Release
from dedup.views.release import being_measured
from support.http import HtmxRequest

ON_A_PAGE = 20  # releases
admins_only = permission_required("dedup.activate_release", raise_exception=True)


@require_GET
@admins_only
def show(request: HtmxRequest) -> HttpResponse:
    """All releases: the one in service first, then the one in the shadow, then the newest."""
    ordered = Release.objects.select_related("previous", "activated_by").order_by(
        "-is_active", "shadow_since", "-added_at", "-pk"
    )
    page = Paginator(ordered, ON_A_PAGE).get_page(request.GET.get("page"))
    active = Release.objects.filter(is_active=True).first()
    found = reports.newest_of(page)
    context = {
        "page": page,
        "releases": [(release, found.get(release.pk)) for release in page],
        "active": active,
        "older_checks": promoting.checked_by_others(active) if active else 0,
        "jobs": Job.objects.unfinished().order_by("put_at"),
        "shadowed": promoting.count_shadowed(),
        "fewest_shadowed": gates.FEWEST_SHADOWED,
    }
    return render(request, "dedup/releases.html", context)


@require_http_methods(["GET", "POST"])
@admins_only
def promote(request: HtmxRequest, pk: int) -> HttpResponse:
    """Show the gates; put the release into service where they are open, or with a reason."""
    release = get_object_or_404(Release, pk=pk)
    if request.method == "POST":
        return _promote(request, release)
    return _gates(request, release)


def _promote(request: HtmxRequest, release: Release) -> HttpResponse:
    reason = request.POST.get("reason", "")
    try:
        promoting.promote(release=release, by=request.user, reason=reason)
    except promoting.GatesShut:
        said = _("Nothing was changed: see what is missing.")
        return _gates(request, release, reason=reason, refused=said)
    except ArtifactRefused as error:
        said = _("Refused: %(reason)s") % {"reason": error}
        return _gates(request, release, reason=reason, refused=said)
    messages.success(request, _("%(release)s is in service.") % {"release": release})
    return redirect("releases")


def _gates(
    request: HtmxRequest, release: Release, *, reason: str = "", refused: str = ""
) -> HttpResponse:
    found = promoting.judged(release)
    shut = gates.shut(found)
    active = Release.objects.filter(is_active=True).first()
    context = {
        "release": release,
        "active": active,
        "gates": found,
        "shut": shut,
        "may_overrule": all(gate.may_be_overruled for gate in shut),
        "reason": reason,
        "longest_reason": promoting.LONGEST_REASON,
        "refused": refused,
        "report": reports.newest(release, against=active) if active else None,
        **being_measured(release),
    }
    return render(request, "dedup/promote.html", context, status=409 if refused else 200)


@require_http_methods(["GET", "POST"])
@admins_only
def roll_back(request: HtmxRequest) -> HttpResponse:
    """Say what comes back; then bring the release back that the active one replaced."""
    refused = ""
    if request.method == "POST":
        seen = request.POST.get("leaving", "")
        leaving = int(seen) if seen.isdecimal() and len(seen) < 18 else None
        try:
            back = releases.roll_back(by=request.user, leaving=leaving)
        except (releases.NoRelease, releases.NoWayBack, ArtifactRefused) as error:
            refused = str(error)
        else:
            messages.success(request, _("%(release)s is in service again.") % {"release": back})
            return redirect("releases")
    active = Release.objects.filter(is_active=True).select_related("previous").first()
    context = {"active": active, "refused": refused}
    return render(request, "dedup/roll_back.html", context, status=409 if refused else 200)


@require_POST
@admins_only
def shadow(request: HtmxRequest, pk: int) -> HttpResponse:
    """Let a release judge in the shadow, or end that."""
    release = get_object_or_404(Release, pk=pk)
    try:
        if "end" in request.POST:
            releases.end_shadow(release=release, by=request.user)
        else:
            releases.shadow(release=release, by=request.user)
    except (releases.ActiveAlready, ArtifactRefused) as error:
        messages.error(request, _("Refused: %(reason)s") % {"reason": error})
    return redirect("releases")


@require_POST
@permission_required("dedup.start_job", raise_exception=True)
def recheck(request: HtmxRequest) -> HttpResponse:
    """Let what other releases checked be compared again, in the background."""
    try:
        job = backfilling.begin(kind=Job.Kind.RECHECK, by=request.user)
    except jobs.JobRuns:
        messages.error(request, _("One of this kind waits or runs already: here it is."))
        return redirect("jobs")
    return redirect("job", job.pk)
