"""Releases: which is in service, which in the shadow; into service through the gates, and back."""

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import gates, promoting, releases
from dedup.ml.artifact import ArtifactRefused
from dedup.models import Job, Release
from support.http import HtmxRequest

admins_only = permission_required("dedup.activate_release", raise_exception=True)


@require_GET
@admins_only
def show(request: HtmxRequest) -> HttpResponse:
    """All releases, the one in service first, then the newest."""
    return _listed(request)


def _listed(request: HtmxRequest, *, refused: str = "") -> HttpResponse:
    rows = Release.objects.select_related("previous", "activated_by").order_by(
        "-is_active", "shadow_since", "-added_at", "-pk"
    )
    context = {
        "releases": [(release, promoting.newest_report(release)) for release in rows],
        "active": next((release for release in rows if release.is_active), None),
        "jobs": Job.objects.unfinished().order_by("put_at"),
        "refused": refused,
    }
    return render(request, "dedup/releases.html", context, status=409 if refused else 200)


@require_http_methods(["GET", "POST"])
@admins_only
def promote(request: HtmxRequest, pk: int) -> HttpResponse:
    """Show the gates; put the release into service where they are open, or with a reason."""
    release = get_object_or_404(Release, pk=pk)
    reason, status, refused = "", 200, ""
    if request.method == "POST":
        reason = request.POST.get("reason", "")
        try:
            promoting.promote(release=release, by=request.user, reason=reason)
        except (promoting.GatesShut, ArtifactRefused) as error:
            status = 409
            refused = str(error) if isinstance(error, ArtifactRefused) else ""
        else:
            messages.success(request, _("%(release)s is in service.") % {"release": release})
            return redirect("releases")
    found = promoting.judged(release)
    shut = gates.shut(found)
    context = {
        "release": release,
        "active": Release.objects.filter(is_active=True).first(),
        "gates": found,
        "shut": shut,
        "may_overrule": all(gate.may_be_overruled for gate in shut),
        "reason": reason,
        "is_refused": status == 409,
        "refused": refused,
    }
    return render(request, "dedup/promote.html", context, status=status)


@require_http_methods(["GET", "POST"])
@admins_only
def roll_back(request: HtmxRequest) -> HttpResponse:
    """Say what comes back; then bring the release back that the active one replaced."""
    active = Release.objects.filter(is_active=True).select_related("previous").first()
    refused = ""
    if request.method == "POST":
        try:
            back = releases.roll_back(by=request.user)
        except (releases.NoRelease, releases.NoWayBack, ArtifactRefused) as error:
            refused = str(error)
        else:
            messages.success(request, _("%(release)s is in service again.") % {"release": back})
            return redirect("releases")
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
        return _listed(request, refused=str(error))
    return redirect("releases")
