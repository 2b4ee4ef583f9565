"""What admins merge, and take back."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from dedup import desk, review
from dedup.models import Flag
from dedup.views.request import reviewers_only, seen_versions
from support import merging
from support.http import HtmxRequest
from support.models import Merge, Question


@require_GET
@reviewers_only
def to_merge(request: HtmxRequest) -> HttpResponse:
    """What agents said of pairs, waiting for somebody who may merge or take a merge back."""
    page = Paginator(Flag.objects.to_merge(), 20).get_page(request.GET.get("page"))
    rows = [(flag, *_direction(flag)) for flag in page]
    wrong = [(flag, review.disputed_edge(flag)) for flag in Flag.objects.to_unmerge()[:20]]
    return render(request, "dedup/to_merge.html", {"page": page, "rows": rows, "to_unmerge": wrong})


def _direction(flag: Flag) -> tuple[Question, Question]:
    one, other = (
        Question.objects.select_related("product").get(pk=question.root_id)
        for question in (flag.older, flag.newer)
    )
    return merging.choose_direction(one, other)


@require_http_methods(["GET", "POST"])
@reviewers_only
def merge(request: HtmxRequest, duplicate_pk: int, canonical_pk: int) -> HttpResponse:
    """Say first what a merge would do; then do it, unless something changed meanwhile (409)."""
    everything = Question.objects.visible_to(request.user).select_related("product", "asked_by")
    duplicate = get_object_or_404(everything, pk=duplicate_pk)
    canonical = get_object_or_404(everything, pk=canonical_pk)
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
        "preview": merging.preview(duplicate=duplicate, canonical=canonical, by=request.user),
        "is_marked": review.is_marked(duplicate, canonical),
        "conflict": conflict,
        "swap": reverse("merge", args=[canonical_pk, duplicate_pk]),
    }
    return render(request, "dedup/merge.html", context, status=status if conflict else 200)


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
    back = Question.objects.filter(pk__in=merging.subtree(edge.duplicate_id)).order_by("asked_at")
    may = request.user.may_merge(edge.duplicate.product_id, edge.canonical.product_id)
    context = {"edge": edge, "back": back, "may": may}
    status = 403 if request.method == "POST" else 200
    return render(request, "dedup/unmerge.html", context, status=status)
