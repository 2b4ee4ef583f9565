"""What waits for a decision."""

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from dedup import queue
from dedup.models import Review
from dedup.views.request import reviewers_only
from support.http import HtmxRequest
from support.models import OutboxEntry


@require_GET
@reviewers_only
def show(request: HtmxRequest) -> HttpResponse:
    """What waits for a decision, likeliest first."""
    page = Paginator(queue.queue(request.user), 20).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "recent": Review.objects.standing()
        .filter(by=request.user)
        .select_related("flag__older", "flag__newer")
        .order_by("-pk")[:10],
        "waiting": OutboxEntry.objects.waiting().count(),
        "quarantined": OutboxEntry.objects.quarantined().select_related("question")[:20],
    }
    return render(request, "dedup/queue.html", context)
