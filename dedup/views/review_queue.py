"""What waits for a decision: filtered, in views under a name, many decided at once."""

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from dedup import agreement, bulk, queue, review
from dedup.models import Flag, Review, SavedView
from dedup.views.request import (
    all_seen_versions,
    numbered,
    numbers,
    queue_url,
    reviewers_only,
    whole_number,
)
from support import merging
from support.http import HtmxRequest
from support.models import OutboxEntry, Product, Question

LAST = 10  # decisions that stay editable on the page


@require_GET
@reviewers_only
def show(request: HtmxRequest) -> HttpResponse:
    """What waits for a decision, likeliest first."""
    wanted = queue.Filter.parse(request.GET)
    pairs = queue.queue(request.user, wanted)
    page = Paginator(pairs.select_related("claimed_by"), 20).get_page(request.GET.get("page"))
    languages = Question.objects.exclude(language="").values_list("language", flat=True)
    context = {
        "page": page,
        "wanted": wanted,
        "now": timezone.now(),
        "decisions": {verdict.value: verdict.label for verdict in Review.DECISIONS},
        "products": Product.objects.order_by("name"),
        "languages": languages.order_by("language").distinct(),
        "views": _views(request),
        "today": queue.today(request.user, left=_left(request, wanted, page)),
        "others": [one for one in queue.reviewers_now() if one.pk != request.user.pk],
        "recent": _recent(request),
        "rate": agreement.rate(request.user),
        **OutboxEntry.objects.waiting().aggregate(
            waiting=Count("pk", filter=Q(checked_by="")),
            rechecked=Count("pk", filter=~Q(checked_by="")),
        ),
        "quarantined": OutboxEntry.objects.quarantined().select_related("question")[:20],
    }
    return render(request, "dedup/queue.html", context)


def _left(request: HtmxRequest, wanted: queue.Filter, page: Page[Flag]) -> int:
    return queue.queue(request.user).count() if wanted.query else page.paginator.count


def _views(request: HtmxRequest) -> list[SavedView]:
    """One's own views and those that others share, by name."""
    shown = SavedView.objects.filter(owner=request.user) | SavedView.objects.filter(is_shared=True)
    return list(shown.select_related("owner").order_by("name", "pk"))


def _recent(request: HtmxRequest) -> list[Review]:
    said = Review.objects.standing().filter(by=request.user).order_by("-pk")
    return list(said.select_related("flag__older", "flag__newer", "flag__release")[:LAST])


@require_POST
@reviewers_only
def save_view(request: HtmxRequest) -> HttpResponse:
    """Keep the filter that is shown under a name."""
    wanted, name = queue.Filter.parse(request.POST), request.POST.get("name", "").strip()[:60]
    if not name:
        messages.error(request, _("A view needs a name."))
        return redirect(queue_url(wanted))
    SavedView.objects.update_or_create(
        owner=request.user,
        name=name,
        defaults={"query": wanted.query, "is_shared": "is_shared" in request.POST},
    )
    messages.success(request, _("The view is kept."))
    return redirect(queue_url(wanted))


@require_POST
@reviewers_only
def drop_view(request: HtmxRequest, pk: int) -> HttpResponse:
    """Forget one's own view."""
    get_object_or_404(SavedView, pk=pk, owner=request.user).delete()
    messages.success(request, _("The view is gone."))
    return redirect("review_queue")


@require_POST
@reviewers_only
def overrule(request: HtmxRequest, pk: int) -> HttpResponse:
    """Decide otherwise than oneself, or somebody else, did; from a card (it names what is to stay)
    or from the list of what one decided last."""
    said = get_object_or_404(Review, pk=pk)
    chosen = Question.objects.filter(pk=whole_number(request.POST.get("canonical"))).first()
    verdict = request.POST.get("verdict", "")
    if verdict not in Review.DECISIONS:
        messages.error(request, _("Please choose a decision."))
        return redirect("review_queue")
    try:
        changed = review.overrule(
            review=said, verdict=verdict, by=request.user,
            canonical=chosen, seen=all_seen_versions(request),
        )  # fmt: skip
    except (review.ReviewRefused, merging.MergeRefused) as error:
        messages.error(request, str(error))
        return redirect("review_card", said.flag_id)
    messages.info(request, f"{changed.get_verdict_display()}.", extra_tags=f"undo-{changed.pk}")
    return redirect("review_next" if chosen else "review_queue")


@require_POST
@reviewers_only
def decide_many(request: HtmxRequest) -> HttpResponse:
    """Say first what deciding many pairs would do; then do it, all or none."""
    wanted, verdict = queue.Filter.parse(request.POST), request.POST.get("verdict", "")
    chosen = numbers(request.POST.getlist("flag"))
    if not chosen or verdict not in bulk.VERDICTS:
        messages.error(request, _("Choose pairs and a decision."))
        return redirect(queue_url(wanted))
    conflict = ""
    if "apply" in request.POST:
        try:
            reviews = bulk.apply(
                flag_ids=chosen,
                verdict=verdict,
                by=request.user,
                stays={pk: whole_number(one) for pk, one in numbered(request, "stays-").items()},
                seen=all_seen_versions(request),
            )
        except (review.ReviewRefused, merging.MergeRefused) as error:
            conflict = str(error)
        else:
            count = len(reviews)
            said = ngettext("%(count)s decided together.", "%(count)s decided together.", count)
            said %= {"count": count}
            messages.info(request, said, extra_tags=f"undo-{reviews[-1].pk}")
            return redirect(queue_url(wanted))
    context = {
        "preview": bulk.preview(flag_ids=chosen, verdict=verdict, by=request.user),
        "wanted": wanted,
        "conflict": conflict,
    }
    return render(request, "dedup/bulk.html", context, status=409 if conflict else 200)
