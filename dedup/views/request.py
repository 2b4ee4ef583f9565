"""What pages of the desk read out of a request, and addresses that they share."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.decorators import permission_required
from django.urls import reverse
from django.utils import timezone

from dedup.queue import Filter
from dedup.review import LONGEST_SNOOZE
from support.http import HtmxRequest

reviewers_only = permission_required("dedup.review_flag", raise_exception=True)

DESK = "X-Desk"  # a header: the page's script asks, and wants a part of a page
SNOOZES = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
MORE = "more"  # as a snooze: until a few more of its questions' flags have come
MORE_FLAGS = 3


def whole_number(text: str | None) -> int:
    """The number that a text is, or 0."""
    return int(text) if text and text.isdecimal() and len(text) < 18 else 0


def numbers(texts: Iterable[str], *, most: int = 100) -> set[int]:
    """The numbers among the first `most` texts."""
    return {number for text in list(texts)[:most] if (number := whole_number(text))}


def seen_versions(request: HtmxRequest, *question_ids: int) -> dict[int, int]:
    """The versions of the questions that stood on the page from which somebody decides."""
    names = {pk: f"version-{pk}" for pk in question_ids}
    given = {pk: request.POST[name] for pk, name in names.items() if name in request.POST}
    return {pk: whole_number(version) for pk, version in given.items()}


def all_seen_versions(request: HtmxRequest) -> dict[int, int]:
    """The versions of all questions that stood in a preview."""
    given = numbered(request, "version-")
    return {pk: whole_number(version) for pk, version in given.items()}


def numbered(request: HtmxRequest, prefix: str) -> dict[int, str]:
    """What a form says under names that are this prefix and a number."""
    fields = [name for name in request.POST if name.startswith(prefix)]
    pairs = ((whole_number(name.removeprefix(prefix)), request.POST[name]) for name in fields)
    return {number: value for number, value in pairs if number}


def snooze_time(text: str) -> tuple[datetime, int | None]:
    """Until when to snooze, and after how many more flags it ends earlier; a day by default."""
    now = timezone.now()
    if text == MORE:
        return now + LONGEST_SNOOZE, MORE_FLAGS
    return now + SNOOZES.get(text, SNOOZES["day"]), None


def card_url(pk: int, wanted: Filter) -> str:
    """The address of a card in a filtered queue."""
    return _with(reverse("review_card", args=[pk]), wanted)


def queue_url(wanted: Filter) -> str:
    """The address of a filtered queue."""
    return _with(reverse("review_queue"), wanted)


def _with(address: str, wanted: Filter) -> str:
    return f"{address}?{wanted.query}" if wanted.query else address
