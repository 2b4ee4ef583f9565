"""Search, the ask page, the review queue and the merge desk."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import review, suggesting
from dedup.models import Flag, Review
from support import asking, merging, outbox, thread
from support.forms import QuestionForm
from support.http import HtmxRequest
from support.models import Merge, OutboxEntry, Product, Question

reviewers_only = permission_required("dedup.review_flag", raise_exception=True)
LATE_SECONDS = 60
SHORTEST_SEARCH = 3


@require_GET
def home(request: HtmxRequest) -> HttpResponse:
    """One box; what resembles the words and their meaning, or the newest questions."""
    query = request.GET.get("q", "").strip()[:200]
    product = Product.objects.filter(slug=request.GET.get("product", "")).first()
    state = request.GET.get("state", "")
    context = {
        "query": query,
        "product": product,
        "state": state,
        "products": Product.objects.order_by("name"),
    }
    if len(query) >= SHORTEST_SEARCH:
        found = suggesting.similar(
            title=query, reader=request.user, product_id=product.pk if product else None, limit=15
        )
        context |= {"found": _in_state(found.questions, state), "by_meaning": found.by_meaning}
    else:
        newest = Question.objects.visible_to(request.user).live().with_answered()
        newest = newest.filter(product=product) if product else newest
        if state in {"answered", "open"}:
            newest = newest.filter(answered=state == "answered")
        newest = newest.select_related("product").order_by("-asked_at", "-pk")
        context["page"] = Paginator(newest, 15).get_page(request.GET.get("page"))
    return render(request, "dedup/home.html", context)


def _in_state(questions: list[Question], state: str) -> list[Question]:
    if state not in {"answered", "open"}:
        return questions
    return [q for q in questions if q.answered == (state == "answered")]  # type: ignore[attr-defined]


@login_required
@require_http_methods(["GET", "POST"])
def ask(request: HtmxRequest) -> HttpResponse:
    """The form; without JavaScript, similar questions come as a second step before it is stored."""
    initial = {"title": request.GET.get("title", "")[:200], "audience": "public"}
    form = QuestionForm(request.POST or None, initial=initial)
    found = None
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        if "seen_similar" not in request.POST:
            found = suggesting.similar(
                title=given["title"], body=given["body"], reader=request.user, limit=5
            )
        if found is None or not found.questions:
            question = asking.submit_question(
                product=given["product"], title=given["title"], body=given["body"],
                audience=given["audience"], by=request.user,
            )  # fmt: skip
            messages.success(request, "Your question is received. You will hear of answers by mail.")
            return redirect(question)
    status = 400 if form.errors else 200
    return render(request, "dedup/ask.html", {"form": form, "found": found}, status=status)


@login_required
@require_POST
def similar(request: HtmxRequest) -> HttpResponse:
    """Similar questions while somebody writes. A POST: a draft belongs in no log of addresses."""
    title = request.POST.get("title", "").strip()[:200]
    body = request.POST.get("body", "")[:20_000]
    found = None
    if len(title) >= 10 and "\0" not in title + body:
        found = suggesting.similar(title=title, body=body, reader=request.user)
    return render(request, "dedup/similar.html", {"found": found, "while_writing": True})


@login_required
@require_POST
def dispute(request: HtmxRequest, pk: int) -> HttpResponse:
    """ "Mine is different": the asker of a merged question has it looked at again."""
    question = get_object_or_404(Question.objects.visible_to(request.user), pk=pk)
    try:
        review.dispute(question=question, by=request.user, reason=request.POST.get("reason", ""))
        messages.success(request, "Thank you. Our team will look at it again.")
    except review.ReviewRefused as error:
        messages.error(request, str(error))
    return redirect(question)


@require_GET
@reviewers_only
def queue(request: HtmxRequest) -> HttpResponse:
    """What waits for a decision, likeliest first."""
    flags = review.queue(request.user)
    now = timezone.now()
    context = {
        "page": Paginator(flags, 20).get_page(request.GET.get("page")),
        "recent": Review.objects.standing()
        .filter(by=request.user)
        .select_related("flag__older", "flag__newer")
        .order_by("-pk")[:10],
        "is_late": outbox.seconds_behind(now) > LATE_SECONDS,
        "waiting": OutboxEntry.objects.waiting().count(),
        "quarantined": OutboxEntry.objects.quarantined().select_related("question")[:20],
    }
    return render(request, "dedup/queue.html", context)


@require_GET
@reviewers_only
def next_card(request: HtmxRequest) -> HttpResponse:
    """The next pair that nobody else is looking at."""
    flag = review.next_for(request.user)
    if flag is None:
        return redirect("review_queue")
    return redirect("review_card", flag.pk)


@require_GET
@reviewers_only
def card(request: HtmxRequest, pk: int) -> HttpResponse:
    """Two threads side by side, and what can be said of them."""
    flag = get_object_or_404(Flag.objects.select_related("release", "claimed_by"), pk=pk)
    return _show_card(request, flag)


def _show_card(
    request: HtmxRequest, flag: Flag, *, status: int = 200, conflict: str = ""
) -> HttpResponse:
    roots = Question.objects.select_related("product", "asked_by", "canonical")
    older, newer = roots.get(pk=flag.older_id), roots.get(pk=flag.newer_id)
    is_open = flag.status == Flag.Status.OPEN
    is_mine = is_open and review.claim(flag=flag, by=request.user)
    one, other = (q.canonical or q for q in (older, newer))
    duplicate, canonical = merging.choose_direction(one, other)
    context = {
        "flag": flag,
        "older": older,
        "newer": newer,
        "threads": [thread.read(q, request.user) for q in (one, other)],
        "canonical": canonical,
        "duplicate": duplicate,
        "is_mine": is_mine,
        "conflict": conflict,
        "reviews": flag.reviews.select_related("by").order_by("-pk"),
        "same_readers": one.has_same_readers_as(other),
        "merges_at_once": request.user.may_merge(one.product_id, other.product_id),
        "band": _band(flag),
    }
    return render(request, "dedup/card.html", context, status=status)


def _band(flag: Flag) -> str:
    if flag.probability >= flag.release.sure_threshold:
        return "Very likely the same"
    return "Likely the same" if flag.probability >= flag.release.threshold else "Perhaps the same"


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the reviewer's decision and show the next card; a lost race is a 409 with who was faster."""
    flag = get_object_or_404(Flag, pk=pk)
    verdict = request.POST.get("verdict", "")
    try:
        if verdict == Review.Verdict.CONFIRMED:
            chosen = get_object_or_404(Question, pk=_number(request.POST.get("canonical")))
            said = review.confirm(flag=flag, canonical=chosen, by=request.user)
        elif verdict == Review.Verdict.DISMISSED:
            said = review.dismiss(flag=flag, by=request.user)
        elif verdict == Review.Verdict.SKIPPED:
            said = review.skip(flag=flag, by=request.user)
        else:
            return _show_card(request, flag, status=400, conflict="Please choose a decision.")
    except review.FlagClosed as error:
        by = f" by {error.last.by}: {error.last.get_verdict_display()}" if error.last else ""
        return _show_card(request, error.flag, status=409, conflict=f"Decided already{by}.")
    except merging.MergeRefused as error:
        return _show_card(request, flag, status=409, conflict=str(error))
    messages.info(request, f"{said.get_verdict_display()}.", extra_tags=f"undo-{said.pk}")
    return redirect("review_next")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 18 else 0


@require_POST
@reviewers_only
def undo(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take one's own decision back and show its card again."""
    said = get_object_or_404(Review.objects.filter(by=request.user), pk=pk)
    try:
        flag = review.undo(review=said, by=request.user)
    except (review.ReviewRefused, merging.MergeRefused) as error:
        messages.error(request, str(error))
        return redirect("review_queue")
    return redirect("review_card", flag.pk)


@require_GET
@reviewers_only
def to_merge(request: HtmxRequest) -> HttpResponse:
    """Pairs that agents confirmed and that wait for somebody who may merge."""
    page = Paginator(Flag.objects.to_merge(), 20).get_page(request.GET.get("page"))
    rows = [(flag, *_direction(flag)) for flag in page]
    return render(request, "dedup/to_merge.html", {"page": page, "rows": rows})


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
        seen = {
            question.pk: _number(request.POST.get(f"version-{question.pk}"))
            for question in (duplicate, canonical)
        }
        try:
            merging.merge(
                duplicate=duplicate, canonical=canonical, by=request.user, seen=seen,
                reason=request.POST.get("reason", "")[:500],
            )  # fmt: skip
            messages.success(request, "Merged. It can be taken back at any time.")
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
            review.unmerge(merge=edge, by=request.user)
            messages.success(request, "Taken back. What was written since stays where it is.")
            return redirect(edge.duplicate)
        except merging.MergeRefused as error:
            messages.error(request, str(error))
    back = Question.objects.filter(pk__in=merging.subtree(edge.duplicate_id)).order_by("asked_at")
    may = request.user.may_merge(edge.duplicate.product_id, edge.canonical.product_id)
    context = {"edge": edge, "back": back, "may": may}
    status = 403 if request.method == "POST" else 200
    return render(request, "dedup/unmerge.html", context, status=status)
