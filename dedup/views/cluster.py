"""More than two questions that are one, on one page, decided by one button."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from dedup import cluster, queue, review
from dedup.cluster import Cluster
from dedup.models import Flag, Review
from dedup.views.card import find, show_card
from dedup.views.request import (
    all_seen_versions,
    card_url,
    numbered,
    numbers,
    reviewers_only,
    whole_number,
)
from support import merging, thread
from support.http import HtmxRequest
from support.models import Answer, Question, User

MOST_PAIRS = 500  # read out of a form
SAME, OUT, OPEN = CHOICES = ("same", "out", "open")


@dataclass(frozen=True)
class Member:
    """One of the questions of a cluster, with its thread and what is chosen for it."""

    question: Question
    likeliest: Flag  # what joins it to the rest most surely
    to: Question  # ... and to which
    is_loose: bool
    answers: list[Answer]
    duplicates: list[Question]
    choice: str


@require_GET
@reviewers_only
def show(request: HtmxRequest, pk: int) -> HttpResponse:
    """The cluster in which a pair is; just its card where there is no more than the pair."""
    flag, wanted = find(pk), queue.Filter.parse(request.GET)
    found = cluster.around(flag)
    return _page(request, flag, found, wanted) if found else redirect(card_url(pk, wanted))


def _page(
    request: HtmxRequest, flag: Flag, found: Cluster, wanted: queue.Filter, *, status: int = 200,
    conflict: str = "", faster: Review | None = None,
) -> HttpResponse:  # fmt: skip
    """Holds what is free of its pairs."""
    queue.hold([edge.pk for edge in found.edges], by=request.user)
    members = _members(request, found)
    chosen = whole_number(request.POST.get("canonical"))
    known = {member.question.pk for member in members}
    products = {one.product_id for m in members for one in (m.question, *m.duplicates)}
    context: dict[str, Any] = {
        "flag": flag,
        "wanted": wanted,
        "cluster": found,
        "members": members,
        "weakest": found.ends(found.weakest),
        "canonical": chosen if chosen in known else cluster.proposed(found.members).pk,
        "merges_at_once": request.user.may_merge(*products),
        "same_readers": all(one.has_same_readers_as(found.members[0]) for one in found.members),
        "held_by": _held_by(request, found),
        "others": [one for one in queue.reviewers_now() if one.pk != request.user.pk],
        "conflict": conflict,
        "faster": faster,
    }
    return render(request, "dedup/cluster.html", context, status=status)


def _members(request: HtmxRequest, found: Cluster) -> list[Member]:
    answers = thread.answers(found.members, request.user)
    duplicates: dict[int | None, list[Question]] = {}
    merged = Question.objects.visible_to(request.user).filter(canonical__in=found.members)
    for one in merged.order_by("asked_at", "pk"):
        duplicates.setdefault(one.canonical_id, []).append(one)
    members = []
    for question in found.members:
        likeliest = found.likeliest(question)
        given = request.POST.get(f"member-{question.pk}", SAME)
        members.append(
            Member(
                question=question,
                likeliest=likeliest,
                to=next(one for one in found.ends(likeliest) if one.pk != question.pk),
                is_loose=question.pk in found.loose,
                answers=answers.get(question.pk, []),
                duplicates=duplicates.get(question.pk, []),
                choice=given if given in CHOICES else SAME,
            )
        )
    return members


def _held_by(request: HtmxRequest, found: Cluster) -> list[User]:
    """Who else has one of the pairs before them."""
    edges = Flag.objects.filter(pk__in=[edge.pk for edge in found.edges])
    held = edges.filter(claimed_until__gte=timezone.now()).values("claimed_by")
    others = User.objects.filter(pk__in=held).exclude(pk=request.user.pk)
    return list(others.order_by("username"))


@require_POST
@reviewers_only
def decide(request: HtmxRequest, pk: int) -> HttpResponse:
    """Take the decision on all members and show the next card; 409 with the page where any of its
    pairs or texts changed meanwhile, and nothing is stored."""
    flag, wanted = find(pk), queue.Filter.parse(request.POST)
    try:
        said = _decide(request, flag)
    except review.FlagClosed as error:
        said_first = _("Somebody was faster: one of these pairs has been decided already.")
        return _refused(request, pk, wanted, said_first, faster=error.last)
    except (review.ReviewRefused, merging.MergeRefused) as error:
        return _refused(request, pk, wanted, str(error))
    leads_back = next((one for one in said if one.flag_id == pk), said[-1])
    told = {"count": len(said), "title": said[0].canonical}
    counted = ngettext(
        "%(count)s decided together: “%(title)s” stays.",
        "%(count)s decided together: “%(title)s” stays.",
        len(said),
    )
    messages.info(request, counted % told, extra_tags=f"undo-{leads_back.pk}")
    return redirect(f"{reverse('review_next')}?{wanted.query}")


def _decide(request: HtmxRequest, flag: Flag) -> list[Review]:
    """Do what the form says. A member whose version did not stand on the page is stale."""
    choices = numbered(request, "member-")
    same, out = ({pk for pk in choices if choices[pk] == wanted} for wanted in (SAME, OUT))
    chosen = whole_number(request.POST.get("canonical"))
    return cluster.decide(
        flag_ids={flag.pk, *numbers(request.POST.getlist("flag"), most=MOST_PAIRS)},
        same=same,
        out=out,
        canonical=chosen if chosen in same else None,
        by=request.user,
        seen=dict.fromkeys(same | out, 0) | all_seen_versions(request),
    )


def _refused(
    request: HtmxRequest, pk: int, wanted: queue.Filter, conflict: str, *,
    faster: Review | None = None,
) -> HttpResponse:  # fmt: skip
    flag = find(pk)
    given: dict[str, Any] = {"status": 409, "conflict": conflict, "faster": faster}
    found = cluster.around(flag)
    if found is None:
        return show_card(request, flag, wanted, **given)
    return _page(request, flag, found, wanted, **given)
