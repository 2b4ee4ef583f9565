"""Where admins see what would come of other thresholds, and move them."""

import math
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from dedup import foreseeing, moving
from dedup.foreseeing import Consequences
from dedup.ml.estimation import Estimate
from dedup.models import Release, ThresholdChange
from dedup.moving import Which
from dedup.replaying import DAYS
from dedup.templatetags.charts import Series
from dedup.views.request import whole_number
from support.http import HtmxRequest
from support.templatetags.texts import in_percent

HISTORY = 20  # changes
admins_only = permission_required("dedup.activate_release", raise_exception=True)


@require_GET
@admins_only
def show(request: HtmxRequest) -> HttpResponse:
    """A threshold where it stands and where it might; as a part of the page while one slides."""
    release = _release(request.GET.get("release"))
    if release is None:
        return render(request, "dedup/thresholds.html", {"release": None})
    which = _which(request.GET.get("which"))
    context = _context(request, release, which, _wanted(request, release, which))
    template = "dedup/consequences.html" if request.htmx else "dedup/thresholds.html"
    return render(request, template, context)


@require_POST
@admins_only
def move(request: HtmxRequest) -> HttpResponse:
    """Move a threshold from where the page showed it; 409 with the page where it was refused."""
    release = get_object_or_404(Release, pk=whole_number(request.POST.get("release")))
    which = _which(request.POST.get("which"))
    before, after = _number(request.POST.get("before")), _number(request.POST.get("after"))
    try:
        change = moving.move(
            release=release, which=which, before=before, after=after, by=request.user,
            reason=request.POST.get("reason", ""),
        )  # fmt: skip
    except moving.ThresholdRefused as error:
        release.refresh_from_db()
        at = after if math.isfinite(after) else moving.value_of(release, which)
        given = {"conflict": str(error), "reason": request.POST.get("reason", "")[:300]}
        context = _context(request, release, which, at) | given
        return render(request, "dedup/thresholds.html", context, status=409)
    messages.success(request, _moved(change))
    return redirect(_address(release, which))


@require_POST
@admins_only
def take_back(request: HtmxRequest, pk: int) -> HttpResponse:
    """Put a threshold back to where it stood before a change; 409 where others came in between."""
    change = get_object_or_404(ThresholdChange.objects.select_related("release"), pk=pk)
    which = Which(change.which)
    try:
        moving.take_back(change=change, by=request.user)
    except moving.ThresholdRefused as error:
        release = Release.objects.get(pk=change.release_id)
        at = moving.value_of(release, which)
        context = _context(request, release, which, at) | {"conflict": str(error)}
        return render(request, "dedup/thresholds.html", context, status=409)
    messages.success(request, _("Moved back to %(value)s.") % {"value": in_percent(change.before)})
    return redirect(_address(change.release, which))


def _address(release: Release, which: Which) -> str:
    return f"{reverse('thresholds')}?release={release.pk}&which={which.value}"


def _release(wanted: str | None) -> Release | None:
    """The one asked for, or the one in service."""
    chosen = Release.objects.filter(pk=whole_number(wanted)).first()
    return chosen or Release.objects.filter(is_active=True).first()


def _which(text: str | None) -> Which:
    return Which(text) if text in Which.values else Which.FLAG


def _number(text: str | None) -> float:
    """The number that a text is; what is none, the domain refuses."""
    try:
        return float((text or "").replace(",", "."))
    except ValueError:
        return math.nan


def _wanted(request: HtmxRequest, release: Release, which: Which) -> float:
    """Where the slider stands: the form speaks in percent. Without a script its two inputs do not
    know of each other: the one that was changed counts."""
    now = moving.value_of(release, which)
    slid, typed, shown = (_number(request.GET.get(name)) for name in ("at", "number", "shown"))
    chosen = (typed if math.isfinite(typed) and typed != shown else slid) / 100
    if not moving.LOWEST <= chosen <= moving.HIGHEST or abs(chosen - now) < 0.0005:
        return now
    return round(chosen, 3)


def _slider(threshold: float) -> str:
    """As the inputs have it, in percent and in every language with a point."""
    return f"{100 * threshold:.1f}"


def _chosen(text: str | None, choices: tuple[float, ...], default: float) -> float:
    return next((one for one in choices if str(one) == text), default)


def _context(request: HtmxRequest, release: Release, which: Which, at: float) -> dict[str, Any]:
    given = request.GET
    wanted = _chosen(given.get("wanted"), foreseeing.WANTED, 0.5)
    confidence = _chosen(given.get("confidence"), foreseeing.CONFIDENCES, 0.95)
    found = foreseeing.foresee(release=release, which=which, threshold=at, now=timezone.now())
    promise = None
    if which != Which.SUGGEST:
        promise = foreseeing.promise(release=release, wanted=wanted, confidence=confidence)
    changes = release.threshold_changes.newest_first()[:HISTORY]
    return {
        "release": release, "releases": Release.objects.order_by("-is_active", "-added_at"),
        "which": which, "kinds": Which.choices, "found": found, "at": at,
        "stands_at": moving.value_of(release, which), "is_moved": at != found.now.threshold,
        "slid_to": _slider(at), "lowest": _slider(moving.LOWEST),
        "highest": _slider(moving.HIGHEST), "days": DAYS,
        "precision": (_rate(found.now.quality.precision), _rate(found.then.quality.precision)),
        "recall": (_rate(found.now.quality.recall), _rate(found.then.quality.recall)),
        "products": [(part, _rate(part.precision)) for part in found.products],
        "languages": [(part, _rate(part.precision)) for part in found.languages],
        "by_day": _by_day(found), "promise": promise, "wanted": wanted, "confidence": confidence,
        "choices": foreseeing.WANTED, "confidences": foreseeing.CONFIDENCES, "changes": changes,
        "to_take_back": moving.to_take_back(release),
    }  # fmt: skip


def _rate(found: Estimate | None) -> dict[str, int] | None:
    """As `dedup/share.html` shows it."""
    if found is None:
        return None
    shares = {"percent": found.value, "low_percent": found.low, "high_percent": found.high}
    return {name: round(100 * share) for name, share in shares.items()}


def _by_day(found: Consequences) -> list[Series]:
    sides = [(_("As it stands"), found.now)]
    if found.then.threshold != found.now.threshold:
        sides.append((_("As on the slider"), found.then))
    return [
        Series(name, list(zip(found.days, map(float, side.by_day), strict=True)))
        for name, side in sides
    ]


def _moved(change: ThresholdChange) -> str:
    """What a move did."""
    said = [_("Moved to %(value)s.") % {"value": in_percent(change.after)}]
    if change.withdrawn:
        words = ngettext(
            "%(count)s open pair left the queue.", "%(count)s open pairs left the queue.",
            change.withdrawn,
        )  # fmt: skip
        said.append(words % {"count": change.withdrawn})
    if change.put_back:
        words = ngettext(
            "%(count)s question is checked again.", "%(count)s questions are checked again.",
            change.put_back,
        )  # fmt: skip
        said.append(words % {"count": change.put_back})
    return " ".join(said)
