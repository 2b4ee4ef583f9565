"""What waits for a reviewer, in which order, and who looks at what just now."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Self
from urllib.parse import urlencode

from django.db import transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.utils import timezone

from dedup.models import Flag, FlagQuerySet, Review
from support.models import Question, User

CLAIM = timedelta(minutes=5)
SKIP = timedelta(hours=12)
CHUNK = 20  # flags that are looked at together
AGES = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}
WHO = ("free", "mine", "unsure", "disputed")
BANDS = ("likely", "perhaps", "hardly")


@dataclass(frozen=True)
class Filter:
    """What a reviewer wants to see of the queue; it stands in the address. Empty: everything."""

    product: str = ""
    language: str = ""
    band: str = ""  # of BANDS
    age: str = ""  # of AGES: flagged within it
    who: str = ""  # of WHO

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Self:
        """Out of an address; what is not known there is left out."""
        known = {"band": BANDS, "age": AGES, "who": WHO}
        words = {name: given.get(name, "").strip()[:50] for name in asdict(cls())}
        return cls(**{k: v for k, v in words.items() if k not in known or v in known[k]})

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Names and values of what is wanted."""
        return [(name, value) for name, value in asdict(self).items() if value]

    @property
    def query(self) -> str:
        """As it stands in an address, without a question mark."""
        return urlencode(self.parts)

    def apply(self, flags: FlagQuerySet, reviewer: User, *, now: datetime) -> FlagQuerySet:
        """Those of the flags that are wanted."""
        if self.product:
            ends = Q(older__product__slug=self.product) | Q(newer__product__slug=self.product)
            flags = flags.filter(ends)
        if self.language:
            flags = flags.filter(
                Q(older__language=self.language) | Q(newer__language=self.language)
            )
        if self.age:
            flags = flags.filter(flagged_at__gte=now - AGES[self.age])
        return self._of_whom(self._in_band(flags), reviewer, now=now)

    def _in_band(self, flags: FlagQuerySet) -> FlagQuerySet:
        is_likely = Q(probability__gte=F("release__sure_threshold"))
        is_flagged = Q(probability__gte=F("release__threshold"))
        bands = {"likely": is_likely, "perhaps": is_flagged & ~is_likely, "hardly": ~is_flagged}
        return flags.filter(bands[self.band]) if self.band else flags

    def _of_whom(self, flags: FlagQuerySet, reviewer: User, *, now: datetime) -> FlagQuerySet:
        if self.who == "free":
            return free_for(reviewer, flags, now=now)
        if self.who == "mine":
            return flags.filter(claimed_by=reviewer, claimed_until__gte=now)
        if self.who == "unsure":
            return flags.filter(unsure_at__isnull=False)
        return flags.filter(disputed_at__isnull=False) if self.who == "disputed" else flags


def queue(
    reviewer: User, wanted: Filter = Filter(), *, now: datetime | None = None
) -> FlagQuerySet:
    """Open flags in queue order: one for each two live threads, without those that sleep, that
    `reviewer` skipped or passed to somebody else, or that were drawn to be asked blindly."""
    now = now or timezone.now()
    found = Flag.objects.one_per_threads()
    return wanted.apply(_for(reviewer, found, now=now), reviewer, now=now).in_queue_order()


def _for(reviewer: User, flags: FlagQuerySet, *, now: datetime) -> FlagQuerySet:
    skipped = Review.objects.standing().filter(
        flag=OuterRef("pk"),
        by=reviewer,
        verdict=Review.Verdict.SKIPPED,
        reviewed_at__gt=now - SKIP,
    )
    to_others = Q(unsure_by=reviewer, unsure_at__isnull=False)
    return flags.exclude(to_others).awake(now).filter(~Exists(skipped))


def free_for(reviewer: User, flags: FlagQuerySet, *, now: datetime) -> FlagQuerySet:
    """Flags that nobody else holds."""
    return flags.filter(Q(claimed_by=None) | Q(claimed_by=reviewer) | Q(claimed_until__lt=now))


def claim(*, flag: Flag, by: User, now: datetime | None = None) -> bool:
    """Hold a flag for five minutes; False where somebody else holds it."""
    now = now or timezone.now()
    free = free_for(by, Flag.objects.open().filter(pk=flag.pk), now=now)
    return bool(free.update(claimed_by=by, claimed_until=now + CLAIM))


def take_over(*, flag: Flag, by: User, now: datetime | None = None) -> bool:
    """Hold a flag whoever held it; False where it has been decided."""
    now = now or timezone.now()
    still_open = Flag.objects.open().filter(pk=flag.pk)
    return bool(still_open.update(claimed_by=by, claimed_until=now + CLAIM))


@transaction.atomic
def claim_next(
    reviewer: User,
    wanted: Filter = Filter(),
    *,
    count: int = 1,
    held: Collection[int] = (),
    now: datetime | None = None,
) -> list[Flag]:
    """Hold the likeliest flags that nobody else holds, at most `count`, but for those in `held`.

    Two people never get the same one: rows that another is just claiming are passed over.
    """
    now = now or timezone.now()
    free = free_for(reviewer, _wanted_of(reviewer, wanted, now=now), now=now)
    claimed: list[Flag] = []
    passed = set(held)
    while len(claimed) < count:
        picked = first_of(free.exclude(pk__in=passed), count - len(claimed))
        if not picked:
            break
        still = free_for(reviewer, Flag.objects.open().filter(pk__in=picked), now=now)
        rows = still.in_queue_order().select_for_update(of=["self"], skip_locked=True)
        claimed += rows
        passed |= set(picked)
    Flag.objects.filter(pk__in=[flag.pk for flag in claimed]).update(
        claimed_by=reviewer, claimed_until=now + CLAIM
    )
    return claimed


@transaction.atomic
def claim_blind(
    reviewer: User,
    wanted: Filter = Filter(),
    *,
    chance: Random,
    lane: str = Flag.Lane.SAMPLED,
    held: Collection[int] = (),
    now: datetime | None = None,
) -> Flag | None:
    """Hold one of the pairs of a lane without scores that nobody else holds, any as likely as
    another, but for those in `held` and those of merged questions: such a card shows no thread."""
    now = now or timezone.now()
    waiting = Flag.objects.open().between_single().filter(lane=lane)
    found = wanted.apply(_for(reviewer, waiting, now=now), reviewer, now=now)
    pks = list(free_for(reviewer, found.exclude(pk__in=held), now=now).values_list("pk", flat=True))
    for pk in chance.sample(pks, min(len(pks), CHUNK)):
        still = free_for(reviewer, Flag.objects.open().with_roots().filter(pk=pk), now=now)
        rows = still.in_queue_order().select_for_update(of=["self"], skip_locked=True)
        if flag := rows.first():
            claim(flag=flag, by=reviewer, now=now)
            return flag
    return None


def neighbours(
    reviewer: User, flag: Flag, wanted: Filter = Filter(), *, now: datetime | None = None
) -> tuple[int | None, int | None]:
    """Ids of the flags after and before this one in the reviewer's queue."""
    now = now or timezone.now()
    others = _wanted_of(reviewer, wanted, now=now).exclude(pk=flag.pk)
    same = Q(probability=flag.probability)
    behind = others.filter(Q(probability__lt=flag.probability) | same & Q(pk__gt=flag.pk))
    ahead = others.filter(Q(probability__gt=flag.probability) | same & Q(pk__lt=flag.pk))
    following = first_of(behind, 1)
    preceding = first_of(ahead.order_by("probability", "-pk"), 1)
    return next(iter(following), None), next(iter(preceding), None)


def _wanted_of(reviewer: User, wanted: Filter, *, now: datetime) -> FlagQuerySet:
    """As `queue`, but with all flags between two threads: the database need not rank them all."""
    found = _for(reviewer, Flag.objects.open().flagged().across_threads(), now=now)
    return wanted.apply(found, reviewer, now=now).in_queue_order()


def first_of(flags: FlagQuerySet, count: int) -> list[int]:
    """Ids of the first of these ordered flags, without those that stand back behind a likelier one
    between the same two threads."""
    ends = flags.values_list("pk", "low", "high")  # type: ignore[misc]
    found: list[int] = []
    begun = 0
    while len(found) < count and (rows := list(ends[begun : begun + CHUNK])):
        foremost = _foremost(rows)
        found += [pk for pk, *_ in rows if pk in foremost]
        begun += CHUNK
    return found[:count]


def _foremost(rows: Collection[tuple[int, int, int]]) -> set[int]:
    """Of these flags with their live threads, those that no likelier open flag joins the same
    threads with.

    Each disputed merge is a case of its own, though all its questions are in one thread. What is
    asked about blindly stands back behind what is not.
    """
    roots = {root for _, *ends in rows for root in ends}
    members = set(Question.objects.of_threads(*roots).values_list("pk", flat=True))
    if members == roots:
        return {
            pk for pk, *_ in rows
        }  # threads of one question each have but one flag between them
    rivals = Flag.objects.open().with_roots().filter(older__in=members, newer__in=members)
    best: dict[tuple[int, int], int] = {}
    is_last = Case(When(lane__in=Flag.BLIND, then=Value(1)), default=Value(0))
    in_order = rivals.order_by(is_last, "-probability", "pk")
    for pk, *ends in in_order.values_list("pk", "low", "high"):  # type: ignore[misc]
        best.setdefault((ends[0], ends[1]), pk)
    return {pk for pk, low, high in rows if low == high or best.get((low, high)) == pk}


@transaction.atomic
def hold(flag_ids: Collection[int], *, by: User, now: datetime | None = None) -> int:
    """The heartbeat of an open page: hold on to what `by` has before them, and what has become
    free of it; how many they hold."""
    now = now or timezone.now()
    free = free_for(by, Flag.objects.open().filter(pk__in=flag_ids), now=now).order_by("pk")
    rows = free.select_for_update(of=["self"], skip_locked=True).values_list("pk", flat=True)
    held = Flag.objects.filter(pk__in=list(rows))  # what somebody decides just now is passed over
    return held.update(claimed_by=by, claimed_until=now + CLAIM)


def let_go(flag_ids: Collection[int], *, by: User) -> None:
    """Leave what `by` holds to others."""
    Flag.objects.filter(pk__in=flag_ids, claimed_by=by).update(claimed_by=None, claimed_until=None)


def reviewers_now(*, now: datetime | None = None) -> list[User]:
    """Who has a pair before them, by name."""
    now = now or timezone.now()
    busy = Flag.objects.open().filter(claimed_until__gte=now).values("claimed_by")
    return list(User.objects.filter(pk__in=busy).order_by("username"))


@dataclass(frozen=True)
class Today:
    """How far the day has come."""

    mine: int  # decisions of one person
    all: int  # decisions of everybody
    left: int


def today(reviewer: User, *, left: int, now: datetime | None = None) -> Today:
    """Count decisions since midnight where the reviewer is; `left` is what waits for them."""
    now = now or timezone.now()
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    decided = Review.objects.standing().filter(
        verdict__in=Review.DECISIONS, reviewed_at__gte=midnight
    )
    return Today(
        mine=decided.filter(by=reviewer).count(),
        all=decided.count(),
        left=left,
    )
