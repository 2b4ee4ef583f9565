"""What admins merge, link, send back, and take back."""

import re

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import desk, marks, review
from dedup.models import Flag
from dedup.views.request import (
    all_seen_versions,
    numbered,
    numbers,
    reviewers_only,
    seen_versions,
    whole_number,
)
from support import merging, previewing
from support.http import HtmxRequest
from support.models import Merge, Question

PAGE = 20  # pairs
ADDRESS = re.compile(r"(?:^|/questions/)\s*#?(\d+)")


@require_GET
@reviewers_only
def to_merge(request: HtmxRequest) -> HttpResponse:
    """What agents said of pairs, waiting for somebody who may merge or take a merge back."""
    page = Paginator(Flag.objects.to_merge(), PAGE).get_page(request.GET.get("page"))
    edges = marks.disputed_edges(Flag.objects.to_unmerge()[:PAGE])
    context = {"page": page, "rows": desk.proposals(list(page)), "to_unmerge": edges}
    return render(request, "dedup/to_merge.html", context)


@require_POST
@reviewers_only
def merge_many(request: HtmxRequest) -> HttpResponse:
    """Say first what merging many pairs would do; then do it, all or none."""
    chosen, conflict, status = numbers(request.POST.getlist("flag")), "", 200
    if not chosen:
        messages.error(request, _("Choose pairs to merge."))
        return redirect("to_merge")
    if "apply" in request.POST:
        try:
            edges = desk.merge_many(
                flag_ids=chosen,
                by=request.user,
                shown=_shown(request),
                seen=all_seen_versions(request),
            )
        except merging.NotAllowed as error:
            conflict, status = str(error), 403
        except (review.ReviewRefused, merging.MergeRefused) as error:
            conflict, status = str(error), 409
        else:
            said = ngettext("%(count)s merged.", "%(count)s merged.", len(edges))
            request.session["merged_together"] = [edge.pk for edge in edges]
            messages.success(request, said % {"count": len(edges)}, extra_tags="unmerge-many")
            return redirect("to_merge")
    waiting = Flag.objects.to_merge().filter(pk__in=chosen)
    previews = [
        (
            flag,
            previewing.merge(duplicate=duplicate, canonical=canonical, by=request.user),
            marks.is_marked(duplicate, canonical),
        )
        for flag, duplicate, canonical in desk.proposals(list(waiting))
    ]
    context = {
        "previews": previews,
        "versions": {
            pk: seen for _flag, one, _marked in previews for pk, seen in one.versions.items()
        },
        "conflict": conflict,
    }
    return render(request, "dedup/merge_many.html", context, status=status)


def _shown(request: HtmxRequest) -> dict[int, tuple[int, int]]:
    """What the preview said would close and stay, by flag."""
    closing, staying = numbered(request, "closes-"), numbered(request, "stays-")
    both = {pk: (closing[pk], staying[pk]) for pk in closing.keys() & staying.keys()}
    return {pk: (whole_number(goes), whole_number(stays)) for pk, (goes, stays) in both.items()}


@require_POST
@reviewers_only
def unmerge_many(request: HtmxRequest) -> HttpResponse:
    """Take back what this person merged in one go just now."""
    edges = Merge.objects.filter(pk__in=request.session.pop("merged_together", []))
    if not edges:
        messages.error(request, _("Nothing was merged in one go just now."))
        return redirect("to_merge")
    try:
        undone = desk.unmerge_many(merges=list(edges), by=request.user)
        at_once = all(e.undone_at and e.undone_at - e.merged_at <= merging.UNDO for e in undone)
        messages.success(request, _taken_back(len(undone), at_once=at_once))
    except merging.MergeRefused as error:
        messages.error(request, str(error))
    return redirect("to_merge")


def _taken_back(count: int, *, at_once: bool) -> str:
    """What became of pairs whose merges were taken back together."""
    waiting = ngettext(
        "%(count)s taken back: it waits to be merged again.",
        "%(count)s taken back: they wait to be merged again.",
        count,
    )
    marked = ngettext(
        "%(count)s taken back, and remembered as not a duplicate.",
        "%(count)s taken back, and remembered as not duplicates.",
        count,
    )
    return (waiting if at_once else marked) % {"count": count}


@require_POST
@reviewers_only
def send_back(request: HtmxRequest, pk: int) -> HttpResponse:
    """Have a confirmed pair looked at again, with a word on why."""
    flag = get_object_or_404(Flag, pk=pk)
    try:
        review.send_back(flag=flag, by=request.user, note=request.POST.get("note", ""))
        messages.success(request, _("Sent back: agents look at it again."))
    except (review.ReviewRefused, merging.MergeRefused) as error:
        messages.error(request, str(error))
    return redirect("to_merge")


@require_GET
@reviewers_only
def merge_other(request: HtmxRequest, pk: int) -> HttpResponse:
    """From a question's page to the preview with another one, by that one's number or address."""
    readable = Question.objects.visible_to(request.user).select_related("canonical")
    one = get_object_or_404(readable, pk=pk)
    named = ADDRESS.search(request.GET.get("other", ""))
    other = readable.filter(pk=whole_number(named[1] if named else "")).first()
    if other is None or other.root_id == one.root_id:
        messages.error(request, _("Give the number or the address of another question."))
        return redirect(one)
    goes, stays = merging.choose_direction(one.canonical or one, other.canonical or other)
    return redirect("merge", goes.pk, stays.pk)


@require_http_methods(["GET", "POST"])
@reviewers_only
def merge(request: HtmxRequest, duplicate_pk: int, canonical_pk: int) -> HttpResponse:
    """Say first what a merge would do; then do it, unless something changed meanwhile (409)."""
    duplicate, canonical = _both(request, duplicate_pk, canonical_pk)
    conflict = ""
    if request.method == "POST":
        never_seen = {duplicate.pk: 0, canonical.pk: 0}
        seen = never_seen | seen_versions(request, duplicate.pk, canonical.pk)
        try:
            desk.merge(
                duplicate=duplicate, canonical=canonical, by=request.user, seen=seen,
                reason=request.POST.get("reason", "")[:500],
            )  # fmt: skip
            messages.success(request, _("Merged. It can be taken back at any time."))
            return redirect(canonical)
        except merging.NotAllowed as error:
            conflict, status = str(error), 403
        except merging.MergeRefused as error:
            conflict, status = str(error), 409
        duplicate.refresh_from_db()
        canonical.refresh_from_db()
    context = {
        "preview": previewing.merge(duplicate=duplicate, canonical=canonical, by=request.user),
        "is_marked": marks.is_marked(duplicate, canonical),
        "conflict": conflict,
        "swap": reverse("merge", args=[canonical_pk, duplicate_pk]),
    }
    return render(request, "dedup/merge.html", context, status=status if conflict else 200)


def _both(request: HtmxRequest, *pks: int) -> tuple[Question, Question]:
    readable = Question.objects.visible_to(request.user).select_related("product", "asked_by")
    one, other = (get_object_or_404(readable, pk=pk) for pk in pks)
    return one, other


@require_POST
@reviewers_only
def link(request: HtmxRequest, duplicate_pk: int, canonical_pk: int) -> HttpResponse:
    """Show two that other people may read beside each other, for agents, instead of merging."""
    one, other = _both(request, duplicate_pk, canonical_pk)
    try:
        desk.link(one=one, other=other, by=request.user)
        messages.success(request, _("Linked, for agents only."))
    except review.ReviewRefused as error:
        messages.error(request, str(error))
    return redirect(other)


@require_http_methods(["GET", "POST"])
@reviewers_only
def unmerge(request: HtmxRequest, pk: int) -> HttpResponse:
    """Say what comes back and what stays; then take the merge back."""
    edge = get_object_or_404(Merge.objects.select_related("duplicate", "canonical"), pk=pk)
    if request.method == "POST":
        try:
            desk.unmerge(merge=edge, by=request.user)
            said = _("Taken back. What was written since stays where it is.")
            messages.success(request, said)
            return redirect(edge.duplicate)
        except merging.MergeRefused as error:
            messages.error(request, str(error))
    context = {
        "preview": previewing.unmerge(edge=edge, by=request.user),
        "edge": edge,
        "was_slip": timezone.now() - edge.merged_at <= merging.UNDO,
    }
    status = 403 if request.method == "POST" else 200
    return render(request, "dedup/unmerge.html", context, status=status)
