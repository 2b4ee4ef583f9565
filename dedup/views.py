"""Search, the ask page, the review queue and the merge desk."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dedup import differences, review, suggesting
from dedup.models import Flag, Review
from dedup.suggesting import Suggestions
from support import asking, merging, thread
from support.forms import QuestionForm
from support.http import HtmxRequest
from support.models import Merge, OutboxEntry, Product, Question, User
from support.thread import Thread, ThreadAnswer

reviewers_only = permission_required("dedup.review_flag", raise_exception=True)
SHORTEST_SEARCH = 3


@require_GET
def home(request: HtmxRequest) -> HttpResponse:
    """One box; what resembles the words and their meaning, or the newest questions."""
    query = request.GET.get("q", "").strip()[:200]
    product = Product.objects.filter(slug=request.GET.get("product", "")).first()
    state = request.GET.get("state", "")
    context: dict[str, Any] = {
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
            newest = newest.filter(answered=state == "answered")  # type: ignore[misc]
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
            said = _("Your question is received. You will hear of answers by mail.")
            messages.success(request, said)
            return redirect(question)
    status = 400 if form.errors else 200
    context = {"form": form, "found": found, "similar": _with_openings(found, request.user)}
    return render(request, "dedup/ask.html", context, status=status)


def _with_openings(found: Suggestions | None, reader: User) -> list[tuple[Question, str]]:
    """What was found, each with the text of its first answer, if there is one."""
    questions = found.questions if found else []
    openings = thread.openings(questions, reader) if questions else {}
    return [(question, openings.get(question.pk, "")) for question in questions]


@login_required
@require_POST
def similar(request: HtmxRequest) -> HttpResponse:
    """Similar questions while somebody writes. A POST: a draft belongs in no log of addresses."""
    title = request.POST.get("title", "").strip()[:200]
    body = request.POST.get("body", "")[:20_000]
    found = None
    if len(title) >= 10 and "\0" not in title + body:
        found = suggesting.similar(title=title, body=body, reader=request.user)
    context = {"similar": _with_openings(found, request.user), "while_writing": True}
    return render(request, "dedup/similar.html", context | {"is_asked": found is not None})


@login_required
@require_POST
def dispute(request: HtmxRequest, pk: int) -> HttpResponse:
    """ "Mine is different": the asker of a merged question has it looked at again."""
    question = get_object_or_404(Question.objects.visible_to(request.user), pk=pk)
    try:
        review.dispute(question=question, by=request.user, reason=request.POST.get("reason", ""))
        messages.success(request, _("Thank you. Our team will look at it again."))
    except (review.ReviewRefused, merging.MergeRefused) as error:
        messages.error(request, str(error))
    return redirect(question)


@require_GET
@reviewers_only
def queue(request: HtmxRequest) -> HttpResponse:
    """What waits for a decision, likeliest first."""
    page = Paginator(review.queue(request.user), 20).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [(flag, _band(flag)) for flag in page],
        "recent": Review.objects.standing()
        .filter(by=request.user)
        .select_related("flag__older", "flag__newer")
        .order_by("-pk")[:10],
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


@dataclass(frozen=True)
class Side:
    """One of the two questions on a card, with the thread in which it stands now.

    `opposite` is what the other one says, title and body, to be compared with.
    """

    question: Question
    opposite: str
    root: Question
    thread: Thread
    answers: list[ThreadAnswer]
    duplicates: list[Question]


def _show_card(
    request: HtmxRequest, flag: Flag, *, status: int = 200, conflict: str = "",
    faster: Review | None = None,
) -> HttpResponse:  # fmt: skip
    with_people = Question.objects.select_related("product", "asked_by", "canonical")
    older, newer = with_people.get(pk=flag.older_id), with_people.get(pk=flag.newer_id)
    is_open = flag.status == Flag.Status.OPEN
    is_mine = is_open and review.claim(flag=flag, by=request.user)
    one, other = (q.canonical or q for q in (older, newer))
    canonical = merging.choose_direction(one, other)[1]
    following, preceding = _neighbours(request.user, flag)
    context = {
        "flag": flag,
        "newer": newer,
        "sides": [_side(newer, older, request.user), _side(older, newer, request.user)],
        "canonical": canonical,
        "is_open": is_open,
        "is_mine": is_mine,
        "has_direction": one.pk != other.pk,  # else they are merged, and that is disputed
        "conflict": conflict,
        "faster": faster,
        "reviews": flag.reviews.select_related("by").order_by("-pk"),
        "same_readers": one.has_same_readers_as(other),
        "merges_at_once": merging.may_merge(request.user, one, other),
        "is_marked": is_open and one.pk != other.pk and review.is_marked(one, other),
        "band": _band(flag),
        "differences": differences.differences(
            _whole(newer), _whole(older), products=Product.objects.values_list("name", flat=True)
        ),
        "next": following,
        "previous": preceding,
    }
    return render(request, "dedup/card.html", context, status=status)


def _side(question: Question, opposite: Question, reader: User) -> Side:
    """What a card shows of a question: the whole thread, or its own part where both are in one."""
    root = question.canonical or question
    whole = thread.read(root, reader)
    if root.pk == opposite.root_id:
        own = [given for given in whole.answers if given.answer.question_id == question.pk]
        return Side(question, _whole(opposite), root, whole, own, [])
    shown = [one for one in whole.duplicates if one.pk != question.pk]
    return Side(question, _whole(opposite), root, whole, whole.answers, shown)


def _whole(question: Question) -> str:
    return f"{question.title}\n{question.body}"


def _neighbours(reviewer: User, flag: Flag) -> tuple[int | None, int | None]:
    """The pairs after and before this one in the reviewer's queue."""
    pairs = review.queue(reviewer).exclude(pk=flag.pk)
    same = Q(probability=flag.probability)
    behind = pairs.filter(Q(probability__lt=flag.probability) | same & Q(pk__gt=flag.pk))
    ahead = pairs.filter(Q(probability__gt=flag.probability) | same & Q(pk__lt=flag.pk))
    return (
        behind.values_list("pk", flat=True).first(),
        ahead.order_by("probability", "-pk").values_list("pk", flat=True).first(),
    )


def _band(flag: Flag) -> str:
    if flag.probability >= flag.release.sure_threshold:
        return _("Likely the same")
    is_flagged_yet = flag.probability >= flag.release.threshold
    return _("Perhaps the same") if is_flagged_yet else _("Hardly the same")


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the reviewer's decision and show the next card; a lost race is a 409 with who won."""
    flag = get_object_or_404(Flag, pk=pk)
    verdict = request.POST.get("verdict", "")
    shown = {pk for question in (flag.older, flag.newer) for pk in (question.pk, question.root_id)}
    seen = _seen(request, *shown)
    try:
        if verdict == Review.Verdict.CONFIRMED:
            chosen = get_object_or_404(Question, pk=_number(request.POST.get("canonical")))
            said = review.confirm(flag=flag, canonical=chosen, by=request.user, seen=seen)
        elif verdict == Review.Verdict.DISMISSED:
            said = review.dismiss(flag=flag, by=request.user, seen=seen)
        elif verdict == Review.Verdict.SKIPPED:
            said = review.skip(flag=flag, by=request.user)
        else:
            return _show_card(request, flag, status=400, conflict=_("Please choose a decision."))
    except review.FlagClosed as error:
        said_first = _("Somebody was faster: this pair has been decided already.")
        return _show_card(request, error.flag, status=409, conflict=said_first, faster=error.last)
    except (review.ReviewRefused, merging.MergeRefused) as error:
        return _show_card(request, flag, status=409, conflict=str(error))
    messages.info(request, f"{said.get_verdict_display()}.", extra_tags=f"undo-{said.pk}")
    return redirect("review_next")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 18 else 0


def _seen(request: HtmxRequest, *question_ids: int) -> dict[int, int]:
    """The versions of the questions that stood on the page from which somebody decides."""
    names = {pk: f"version-{pk}" for pk in question_ids}
    return {pk: _number(request.POST[name]) for pk, name in names.items() if name in request.POST}


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
        seen = never_seen | _seen(request, duplicate.pk, canonical.pk)
        try:
            review.merge(
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
            review.unmerge(merge=edge, by=request.user)
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
