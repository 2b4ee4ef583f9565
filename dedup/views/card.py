"""One pair side by side, and the decision on it."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dedup import blind, cluster, differences, marking, marks, precedent, queue, review
from dedup.models import BlindItem, Flag, Review
from dedup.texts import text_of
from dedup.views import sides
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
from dedup.views.sides import Side
from support import merging, thread
from support.http import HtmxRequest
from support.models import Product, Question
from support.templatetags.texts import percent
from support.thread import Thread

AHEAD = 2  # cards that a page has ready behind the one that it shows


@require_GET
@reviewers_only
def next_card(request: HtmxRequest) -> HttpResponse:
    """The next pair that nobody else is looking at, but for those that are `held`."""
    wanted, held = queue.Filter.parse(request.GET), numbers(request.GET.getlist("held"))
    for flag in blind.deal(request.user, wanted, held=held):
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
    found = blind.deal(request.user, wanted, count=count, held=passed) if count else []
    contexts = [_context(request, flag, wanted, is_claimed=True) for flag in found]
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
    flag = find(pk)
    return show_card(request, flag, queue.Filter.parse(request.GET))


def find(pk: int) -> Flag:
    """A flag with what a card needs of it. Raises Http404."""
    known = Flag.objects.select_related("release", "claimed_by", "older", "newer")
    return get_object_or_404(known, pk=pk)


def show_card(
    request: HtmxRequest, flag: Flag, wanted: queue.Filter, *, status: int = 200,
    conflict: str = "", faster: Review | None = None,
) -> HttpResponse:  # fmt: skip
    """A card with the ways to those before and after it."""
    context = _context(request, flag, wanted) | {"conflict": conflict, "faster": faster}
    context["others"] = [one for one in queue.reviewers_now() if one.pk != request.user.pk]
    if not context["is_blind"]:  # its place in the queue would tell its score
        following, preceding = queue.neighbours(request.user, flag, wanted)
        context["next"] = following and card_url(following, wanted)
        context["previous"] = preceding and card_url(preceding, wanted)
    is_part = DESK in request.headers
    template = "dedup/card_body.html" if is_part else "dedup/card.html"
    return render(request, template, context, status=status)


def _context(
    request: HtmxRequest, flag: Flag, wanted: queue.Filter, *, is_claimed: bool = False
) -> dict[str, Any]:
    """What a card shows. Claims the pair where it is free, unless it has just been.

    A known case is shown as a pair from below the threshold is, and as it was when it was decided.
    """
    threads = thread.read_all(flag.question_ids, request.user)
    rows = {row.pk: row for one in threads.values() for row in one.members}
    item = blind.item_of(flag, request.user)
    is_known = item is not None and not item.verdict
    is_open, is_blind = is_known or flag.status == Flag.Status.OPEN, is_known or flag.is_blind
    is_mine = is_claimed or is_known or (is_open and queue.claim(flag=flag, by=request.user))
    until = (is_known and flag.decided_at) or timezone.now()
    shown = _sides(flag, threads, alone_until=until if is_blind else None)
    newer, older = (each.question for each in shown)
    answered = {each.root.pk for each in shown if each.answers}
    goes, stays = merging.direct(*(each.root for each in shown), answered=answered)
    said = list(flag.reviews.select_related("by").order_by("-pk"))
    decided = (one for one in said if one.undone_at is None and one.verdict in Review.DECISIONS)
    names = Product.objects.values_list("name", flat=True)
    return {
        "flag": flag,
        "wanted": wanted,
        "newer": newer,
        "sides": shown,
        "canonical": stays,
        "why_stays": merging.why_stays(goes, stays),
        "is_open": is_open,
        "is_mine": is_mine,
        "is_blind": is_blind,
        "has_direction": goes.pk != stays.pk,  # else they are merged, and that is disputed
        "reviews": [] if is_blind else said,
        "decision": None if is_open else next(decided, None),
        "verdicts": Review.DECISIONS,
        "same_readers": goes.has_same_readers_as(stays),
        "merges_at_once": request.user.may_merge(*(row.product_id for row in rows.values())),
        "is_marked": is_open and not is_blind and _is_marked(threads),
        "differences": differences.differences(
            sides.whole(newer),
            sides.whole(older),
            products=names,
            common={newer.product.name} & {older.product.name},
        ),
        "like_it": None if is_blind else precedent.like_it(flag),
        "candidates": _candidates(flag),
        "more": cluster.more(flag, roots={pk: row.root_id for pk, row in rows.items()}),
        "passing": [(Review.Verdict.SNOOZED, "snooze"), (Review.Verdict.UNSURE, "unsure")],
        "next": f"{reverse('review_next')}?{urlencode([*wanted.parts, ('held', flag.pk)])}",
    }


def _sides(
    flag: Flag, threads: Mapping[int, Thread], *, alone_until: datetime | None
) -> list[Side]:
    """Both questions of a pair, the newer first, out of the threads in which they are."""
    rows = {row.pk: row for one in threads.values() for row in one.members}
    older, newer = rows[flag.older_id], rows[flag.newer_id]
    ours, theirs = marking.side_by_side(newer, older, _alignment(flag, newer, older))
    side = partial(sides.alone, until=alone_until) if alone_until else sides.in_thread
    return [
        side(newer, older, ours, threads[newer.root_id]),
        side(older, newer, theirs, threads[older.root_id]),
    ]


def _is_marked(threads: Mapping[int, Thread]) -> bool:
    """Whether people said of any pair between these two threads that it is not a duplicate."""
    members = [{row.pk for row in one.members} for one in threads.values()]
    return len(members) == 2 and marks.is_marked_between(*members)


def _candidates(flag: Flag) -> list[Flag]:
    """Other open pairs of the newer question, likeliest first, at most five."""
    ends = Q(older=flag.newer_id) | Q(newer=flag.newer_id)
    found = Flag.objects.open().filter(ends, lane=Flag.Lane.FLAGGED).exclude(pk=flag.pk)
    ordered = found.order_by("-probability", "pk").select_related("older", "newer", "release")
    return list(ordered[:5])


def _alignment(flag: Flag, newer: Question, older: Question) -> list[Any] | None:
    """Words that mean each other, while both texts are those in which they were found."""
    texts = (text_of(older).hash, text_of(newer).hash)
    return flag.alignment if texts == (flag.older_hash, flag.newer_hash) else None


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the reviewer's decision and show the next card; a lost race is a 409 with who won.

    A page with its script gets what it needs to go on: the way back, and cards to come.
    """
    flag = find(pk)
    wanted, is_blind = queue.Filter.parse(request.POST), flag.is_blind
    try:
        said = _answer(request, flag) or _decide(request, flag)
    except review.FlagClosed as error:
        said_first = _("Somebody was faster: this pair has been decided already.")
        return show_card(
            request, error.flag, wanted, status=409, conflict=said_first, faster=error.last
        )
    except (review.ReviewRefused, merging.MergeRefused) as error:
        flag.refresh_from_db()
        return show_card(request, flag, wanted, status=409, conflict=str(error))
    if said is None:
        choose = _("Please choose a decision.")
        return show_card(request, flag, wanted, status=400, conflict=choose)
    revealed, undo = _revealed(said, flag, is_blind), said.pk if isinstance(said, Review) else None
    if DESK in request.headers:
        cards = _ahead(request, request.POST)
        context = {"said": said, "revealed": revealed, "undo": undo, "cards": cards}
        return render(request, "dedup/decided.html", context)
    words = f"{said.get_verdict_display()}. {revealed}".strip()
    messages.info(request, words, extra_tags=f"undo-{undo}" if undo else "")
    return redirect(f"{reverse('review_next')}?{wanted.query}")


def _answer(request: HtmxRequest, flag: Flag) -> BlindItem | None:
    """Keep what the form says of a known case; None where it is none to this person."""
    item, verdict = blind.item_of(flag, request.user), request.POST.get("verdict", "")
    if item is None or verdict not in Review.Verdict:
        return None
    return blind.answer(item=item, verdict=verdict, by=request.user)


def _revealed(said: Review | BlindItem, flag: Flag, is_blind: bool) -> str:
    """What a card without its score kept back, now that it is decided."""
    if isinstance(said, BlindItem):
        stands = {"verdict": said.get_expected_display()}
        if said.agrees:
            return _("A known case, decided “%(verdict)s” before, as you see it.") % stands
        return _("A known case, decided “%(verdict)s” before. That still stands.") % stands
    if not is_blind or said.verdict not in Review.DECISIONS:
        return ""
    if flag.known_probability is None:
        return _("The machine had put it below its threshold.")
    return _("The machine gave it %(percent)s, below its threshold.") % {
        "percent": percent(flag.known_probability)
    }


def _decide(request: HtmxRequest, flag: Flag) -> Review | None:
    """Do what the form says; None where it says nothing that is known."""
    by, given = request.user, request.POST
    roots = {flag.older.root_id, flag.newer.root_id}
    seen, note = seen_versions(request, *flag.question_ids, *roots), given.get("note", "")
    match given.get("verdict", ""):
        case Review.Verdict.CONFIRMED:
            chosen = get_object_or_404(Question, pk=whole_number(given.get("canonical")))
            never_shown = dict.fromkeys(roots, 0)  # since then they may have been merged elsewhere
            return review.confirm(flag=flag, canonical=chosen, by=by, seen=never_shown | seen)
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
    messages.success(request, _("Taken back."))
    return redirect("review_queue") if said.batch else redirect("review_card", flag.pk)
