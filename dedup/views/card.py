"""One pair side by side, and the decision on it."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dedup import differences, marking, precedent, queue, review
from dedup.marking import Marked
from dedup.models import Flag, Review
from dedup.texts import text_of
from dedup.views.request import (
    DESK,
    card_url,
    numbers,
    queue_url,
    reviewers_only,
    seen_versions,
    snooze_time,
    whole_number,
)
from support import merging, thread
from support.http import HtmxRequest
from support.models import Product, Question, User
from support.thread import Thread, ThreadAnswer

AHEAD = 2  # cards that a page has ready behind the one that it shows


@require_GET
@reviewers_only
def next_card(request: HtmxRequest) -> HttpResponse:
    """The next pair that nobody else is looking at, but for those that are `held`."""
    wanted, held = queue.Filter.parse(request.GET), numbers(request.GET.getlist("held"))
    for flag in queue.claim_next(request.user, wanted, held=held):
        return redirect(card_url(flag.pk, wanted))
    return redirect(queue_url(wanted))


@require_GET
@reviewers_only
def ahead(request: HtmxRequest) -> HttpResponse:
    """Cards after those that a page has already (`held`), held for it: for the page's script.

    Never one whose decision is on its way (`without`).
    """
    return render(request, "dedup/ahead.html", {"cards": _ahead(request, request.GET)})


def _ahead(request: HtmxRequest, given: QueryDict) -> list[SafeString]:
    wanted, held = queue.Filter.parse(given), numbers(given.getlist("held"))
    count = max(0, 1 + AHEAD - len(held))
    passed = held | numbers(given.getlist("without"))
    found = queue.claim_next(request.user, wanted, count=count, held=passed) if count else []
    contexts = [_context(request, flag, wanted) for flag in found]
    return [render_to_string("dedup/card_body.html", one, request) for one in contexts]


@require_POST
@reviewers_only
def hold(request: HtmxRequest) -> HttpResponse:
    """The heartbeat of an open page: hold on to its pairs; who else is here."""
    queue.hold(numbers(request.POST.getlist("held")), by=request.user)
    others = [one for one in queue.reviewers_now() if one.pk != request.user.pk]
    return render(request, "dedup/presence.html", {"others": others})


@require_POST
@reviewers_only
def let_go(request: HtmxRequest) -> HttpResponse:
    """A page was left: its pairs are free for others."""
    queue.let_go(numbers(request.POST.getlist("held")), by=request.user)
    return HttpResponse(status=204)


@require_POST
@reviewers_only
def take_over(request: HtmxRequest, pk: int) -> HttpResponse:
    """Hold a pair that somebody else has before them."""
    queue.take_over(flag=get_object_or_404(Flag, pk=pk), by=request.user)
    return redirect("review_card", pk)


@require_GET
@reviewers_only
def card(request: HtmxRequest, pk: int) -> HttpResponse:
    """Two threads side by side, and what can be said of them."""
    flag = get_object_or_404(Flag.objects.select_related("release", "claimed_by"), pk=pk)
    return _show_card(request, flag, queue.Filter.parse(request.GET))


@dataclass(frozen=True)
class Side:
    """One of the two questions on a card, with the thread in which it stands now."""

    question: Question
    marked: Marked
    root: Question
    thread: Thread
    answers: list[ThreadAnswer]
    duplicates: list[Question]


def _show_card(
    request: HtmxRequest, flag: Flag, wanted: queue.Filter, *, status: int = 200,
    conflict: str = "", faster: Review | None = None,
) -> HttpResponse:  # fmt: skip
    context = _context(request, flag, wanted) | {"conflict": conflict, "faster": faster}
    following, preceding = queue.neighbours(request.user, flag, wanted)
    context |= {
        "next": following and card_url(following.pk, wanted),
        "previous": preceding and card_url(preceding.pk, wanted),
        "others": [one for one in queue.reviewers_now() if one.pk != request.user.pk],
    }
    is_part = DESK in request.headers
    template = "dedup/card_body.html" if is_part else "dedup/card.html"
    return render(request, template, context, status=status)


def _context(request: HtmxRequest, flag: Flag, wanted: queue.Filter) -> dict[str, Any]:
    """What a card shows. Claims the pair where it is free."""
    with_people = Question.objects.select_related("product", "asked_by", "canonical")
    both = {question.pk: question for question in with_people.filter(pk__in=flag.question_ids)}
    older, newer = both[flag.older_id], both[flag.newer_id]
    is_open = flag.status == Flag.Status.OPEN
    is_mine = is_open and queue.claim(flag=flag, by=request.user)
    one, other = (q.canonical or q for q in (older, newer))
    canonical = merging.choose_direction(one, other)[1]
    said = list(flag.reviews.select_related("by").order_by("-pk"))
    decided = (one for one in said if one.undone_at is None and one.verdict in Review.DECISIONS)
    ours, theirs = marking.side_by_side(newer, older, _alignment(flag, newer, older))
    names = Product.objects.values_list("name", flat=True)
    return {
        "flag": flag,
        "wanted": wanted,
        "newer": newer,
        "sides": [
            _side(newer, older, ours, request.user),
            _side(older, newer, theirs, request.user),
        ],
        "canonical": canonical,
        "why_stays": merging.why_stays(other if canonical == one else one, canonical),
        "is_open": is_open,
        "is_mine": is_mine,
        "is_blind": is_open and flag.lane == Flag.Lane.SAMPLED,
        "has_direction": one.pk != other.pk,  # else they are merged, and that is disputed
        "reviews": said,
        "decision": None if is_open else next(decided, None),
        "verdicts": Review.DECISIONS,
        "same_readers": one.has_same_readers_as(other),
        "merges_at_once": merging.may_merge(request.user, one, other),
        "is_marked": is_open and one.pk != other.pk and review.is_marked(one, other),
        "differences": differences.differences(_whole(newer), _whole(older), products=names),
        "like_it": precedent.like_it(flag),
        "candidates": _candidates(flag),
        "passing": [(Review.Verdict.SNOOZED, "snooze"), (Review.Verdict.UNSURE, "unsure")],
        "next": f"{reverse('review_next')}?{urlencode([*wanted.parts, ('held', flag.pk)])}",
    }


def _candidates(flag: Flag) -> list[Flag]:
    """Other open pairs of the newer question, likeliest first, at most five."""
    ends = Q(older=flag.newer_id) | Q(newer=flag.newer_id)
    found = Flag.objects.open().filter(ends, lane=Flag.Lane.FLAGGED).exclude(pk=flag.pk)
    return list(found.in_queue_order()[:5])


def _alignment(flag: Flag, newer: Question, older: Question) -> list[Any] | None:
    """Words that mean each other, while both texts are those in which they were found."""
    texts = (text_of(older).hash, text_of(newer).hash)
    return flag.alignment if texts == (flag.older_hash, flag.newer_hash) else None


def _side(question: Question, opposite: Question, marked: Marked, reader: User) -> Side:
    """What a card shows of a question: the whole thread, or its own part where both are in one."""
    root = question.canonical or question
    whole = thread.read(root, reader)
    if root.pk == opposite.root_id:
        own = [given for given in whole.answers if given.answer.question_id == question.pk]
        return Side(question, marked, root, whole, own, [])
    shown = [one for one in whole.duplicates if one.pk != question.pk]
    return Side(question, marked, root, whole, whole.answers, shown)


def _whole(question: Question) -> str:
    return f"{question.title}\n{question.body}"


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the reviewer's decision and show the next card; a lost race is a 409 with who won.

    A page with its script gets what it needs to go on: the way back, and cards to come.
    """
    flag = get_object_or_404(Flag.objects.select_related("release", "claimed_by"), pk=pk)
    wanted = queue.Filter.parse(request.POST)
    try:
        said = _decide(request, flag)
    except review.FlagClosed as error:
        said_first = _("Somebody was faster: this pair has been decided already.")
        return _show_card(
            request, error.flag, wanted, status=409, conflict=said_first, faster=error.last
        )
    except (review.ReviewRefused, merging.MergeRefused) as error:
        flag.refresh_from_db()
        return _show_card(request, flag, wanted, status=409, conflict=str(error))
    if said is None:
        choose = _("Please choose a decision.")
        return _show_card(request, flag, wanted, status=400, conflict=choose)
    if DESK in request.headers:
        context = {"said": said, "cards": _ahead(request, request.POST)}
        return render(request, "dedup/decided.html", context)
    messages.info(request, f"{said.get_verdict_display()}.", extra_tags=f"undo-{said.pk}")
    return redirect(f"{reverse('review_next')}?{wanted.query}")


def _decide(request: HtmxRequest, flag: Flag) -> Review | None:
    """Do what the form says; None where it says nothing that is known."""
    by, given = request.user, request.POST
    shown = {pk for q in (flag.older, flag.newer) for pk in (q.pk, q.root_id)}
    seen, note = seen_versions(request, *shown), given.get("note", "")
    match given.get("verdict", ""):
        case Review.Verdict.CONFIRMED:
            chosen = get_object_or_404(Question, pk=whole_number(given.get("canonical")))
            return review.confirm(flag=flag, canonical=chosen, by=by, seen=seen)
        case Review.Verdict.DISMISSED:
            return review.dismiss(flag=flag, by=by, seen=seen)
        case Review.Verdict.RELATED:
            return review.dismiss(flag=flag, by=by, is_related=True, seen=seen)
        case Review.Verdict.SKIPPED:
            return review.skip(flag=flag, by=by)
        case Review.Verdict.UNSURE:
            return review.ask_second_opinion(flag=flag, by=by, note=note)
        case Review.Verdict.SNOOZED:
            until, more = snooze_time(given.get("snooze", ""))
            return review.snooze(flag=flag, by=by, until=until, more=more)
    return None


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
