"""One pair side by side, and the decision on it."""

from dataclasses import dataclass

from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dedup import differences, queue, review
from dedup.models import Flag, Review
from dedup.views.request import reviewers_only, seen_versions, whole_number
from support import merging, thread
from support.http import HtmxRequest
from support.models import Product, Question, User
from support.thread import Thread, ThreadAnswer


@require_GET
@reviewers_only
def next_card(request: HtmxRequest) -> HttpResponse:
    """The next pair that nobody else is looking at."""
    flag = queue.next_for(request.user)
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
    is_mine = is_open and queue.claim(flag=flag, by=request.user)
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
    pairs = queue.queue(reviewer).exclude(pk=flag.pk)
    same = Q(probability=flag.probability)
    behind = pairs.filter(Q(probability__lt=flag.probability) | same & Q(pk__gt=flag.pk))
    ahead = pairs.filter(Q(probability__gt=flag.probability) | same & Q(pk__lt=flag.pk))
    return (
        behind.values_list("pk", flat=True).first(),
        ahead.order_by("probability", "-pk").values_list("pk", flat=True).first(),
    )


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the reviewer's decision and show the next card; a lost race is a 409 with who won."""
    flag = get_object_or_404(Flag, pk=pk)
    verdict = request.POST.get("verdict", "")
    shown = {pk for question in (flag.older, flag.newer) for pk in (question.pk, question.root_id)}
    seen = seen_versions(request, *shown)
    try:
        if verdict == Review.Verdict.CONFIRMED:
            chosen = get_object_or_404(Question, pk=whole_number(request.POST.get("canonical")))
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
