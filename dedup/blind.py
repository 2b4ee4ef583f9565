"""Cards without a score: known cases, which tell how far people agree, pairs drawn from below the
threshold, which tell what the machine overlooks, and pairs that were chosen to learn from. All look
alike.

What is said of a known case changes no flag, no merge and no count. Beside what was decided it is a
second opinion for those who learn from it (dedup.feedback).
"""

import random
from collections import deque
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from dedup import queue
from dedup.models import BlindItem, Flag, FlagQuerySet, Review
from dedup.queue import Filter
from dedup.review import NotYours, ReviewRefused
from support.models import User

KNOWN_SHARE = 2 / 50  # of all cards
SAMPLED_SHARE = 1 / 25  # of all cards, while such pairs wait
CHOSEN_SHARE = 1 / 25  # of all cards, while such pairs wait
NEWEST = 1000  # decided pairs among which one is drawn
CHANCE: random.Random = random.SystemRandom()
EVERYTHING = Filter()


class AnsweredAlready(ReviewRefused):
    """A known case is asked once."""

    code = "answered_already"


def deal(
    reviewer: User,
    wanted: Filter = EVERYTHING,
    *,
    count: int = 1,
    held: Collection[int] = (),
    chance: random.Random | None = None,
    now: datetime | None = None,
) -> list[Flag]:
    """The next cards, at most `count`, held for the reviewer: of the queue, but now and then one
    without its score in between. None that is in `held`.

    A filter by more than product and language would tell of a pair what is not to be known.
    """
    now, chance = now or timezone.now(), chance or CHANCE
    dealt: list[Flag] = []
    waiting = deque(queue.claim_next(reviewer, wanted, count=count, held=held, now=now))
    is_by_subject = replace(wanted, product="", language="") == EVERYTHING
    while waiting and len(dealt) < count:
        passed = {*held, *(flag.pk for flag in dealt)}
        blind = is_by_subject and _blindly(reviewer, wanted, passed, chance, now)
        dealt.append(blind or waiting.popleft())
    queue.let_go([flag.pk for flag in waiting], by=reviewer)
    return dealt


def _blindly(
    reviewer: User, wanted: Filter, held: Collection[int], chance: random.Random, now: datetime
) -> Flag | None:
    """By chance, the pair that is to be shown without its score instead of the next one."""
    thrown = chance.random()
    if thrown < KNOWN_SHARE:
        item = draw(reviewer, wanted, held=held, chance=chance, now=now)
        return item.flag if item else None
    lanes = {Flag.Lane.SAMPLED: SAMPLED_SHARE, Flag.Lane.CHOSEN: CHOSEN_SHARE}
    thrown -= KNOWN_SHARE
    for lane, share in lanes.items():
        if thrown < share:
            return queue.claim_blind(reviewer, wanted, lane=lane, held=held, chance=chance, now=now)
        thrown -= share
    return None


def draw(
    reviewer: User,
    wanted: Filter = EVERYTHING,
    *,
    held: Collection[int] = (),
    chance: random.Random,
    now: datetime,
) -> BlindItem | None:
    """A pair that others decided, for this person to judge anew: one they did not answer yet, or
    else a new one, any of the newest as likely as another."""
    flags = wanted.apply(Flag.objects.filter(_as_decided()), reviewer, now=now)
    unanswered = _items(reviewer).filter(verdict="", flag__in=flags).exclude(flag__in=held)
    if item := unanswered.order_by("pk").first():
        return item
    known = _unknown_to(reviewer, flags).exclude(pk__in=held).order_by("-pk")
    pairs = list(known.values_list("pk", "status")[:NEWEST])
    if not pairs:
        return None
    flag_id, stands = chance.choice(pairs)
    given = {"asked_share": KNOWN_SHARE / len(pairs), "expected": stands, "drawn_at": now}
    return BlindItem.objects.get_or_create(flag_id=flag_id, by=reviewer, defaults=given)[0]


def _unknown_to(reviewer: User, flags: FlagQuerySet) -> FlagQuerySet:
    """Those whose standing decision others took, and of which the reviewer has seen nothing."""
    said = Review.objects.filter(flag=OuterRef("pk"))
    stands = said.standing().filter(verdict=OuterRef("status"), reviewed_at=OuterRef("decided_at"))
    theirs = said.filter(Q(by=reviewer) | Q(merge__merged_by=reviewer))
    shown = BlindItem.objects.filter(flag=OuterRef("pk"), by=reviewer)
    return flags.filter(Exists(stands), ~Exists(theirs), ~Exists(shown))


def _as_decided(flag: str = "") -> Q:
    """Decided, never disputed, and neither text edited since."""
    decided = {f"{flag}status__in": Review.DECISIONS, f"{flag}disputed_at": None}
    unedited = Q(**decided)
    for end in ("older", "newer"):
        edited_at = f"{flag}{end}__edited_at"
        unedited &= Q(**{edited_at: None}) | Q(**{f"{edited_at}__lte": F(f"{flag}decided_at")})
    return unedited


def _items(reviewer: User) -> QuerySet[BlindItem]:
    """What this person was asked, where the decision still stands."""
    still = _as_decided("flag__")
    return BlindItem.objects.filter(
        still, by=reviewer, flag__status=F("expected"), flag__decided_at__lte=F("drawn_at")
    )


def item_of(flag: Flag, reviewer: User) -> BlindItem | None:
    """The known case that this pair is to the reviewer, answered or not."""
    if flag.status not in Review.DECISIONS:
        return None
    return _items(reviewer).filter(flag=flag).select_related("flag").first()


def answer(*, item: BlindItem, verdict: str, by: User, now: datetime | None = None) -> BlindItem:
    """Store what `by` says of a known case, and nothing else. Raises NotYours, AnsweredAlready."""
    if item.by_id != by.pk:
        raise NotYours(_("Only who was asked can answer."))
    open_item = BlindItem.objects.filter(pk=item.pk, verdict="")
    if not open_item.update(verdict=verdict, decided_at=now or timezone.now()):
        raise AnsweredAlready(_("You have said already what you think of this pair."))
    item.refresh_from_db()
    return item
