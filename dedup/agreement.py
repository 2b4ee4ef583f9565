"""How far people agree: with what had been decided, and with each other beyond chance.

Two classes, duplicate or not: they decide whether questions are merged and what the network learns;
"related" and "not a duplicate" differ in neither. Only blind answers are compared, with the
decision that stood and among themselves: who can see another's verdict does not judge alone.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from dedup.ml import estimation
from dedup.models import BlindItem, Review
from support.models import User

FEWEST = 10  # answers; of fewer nothing is said
STOOD, SAID = Q(expected=Review.Verdict.CONFIRMED), Q(verdict=Review.Verdict.CONFIRMED)
AGREED = Count("pk", filter=(STOOD & SAID) | (~STOOD & ~SAID))


@dataclass(frozen=True)
class Rate:
    """How many of some answers agree with what stood."""

    agreed: int
    asked: int

    @property
    def percent(self) -> int:
        return round(100 * self.agreed / self.asked)

    @property
    def low(self) -> float:
        return wilson(self.agreed, self.asked)[0]

    @property
    def high(self) -> float:
        return wilson(self.agreed, self.asked)[1]

    @property
    def low_percent(self) -> int:
        return round(100 * self.low)

    @property
    def high_percent(self) -> int:
        return round(100 * self.high)

    @property
    def is_enough(self) -> bool:
        return self.asked >= FEWEST


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    return estimation.wilson(hits / of, of)


def kappa(said: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement of two people beyond chance (Cohen 1960), from what both said of the same cases.

    None of fewer than ten cases, and where both always said the same one thing.
    """
    if len(said) < FEWEST:
        return None
    ones, others = Counter(one for one, _ in said), Counter(other for _, other in said)
    observed = sum(one == other for one, other in said) / len(said)
    by_chance = sum(ones[what] * others[what] for what in ones) / len(said) ** 2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def rate(person: User) -> Rate:
    """How often a person said of known cases what had been decided."""
    return Rate(**_answered().filter(by=person).aggregate(agreed=AGREED, asked=Count("pk")))


def rates() -> list[tuple[User, Rate]]:
    """The same of everybody who was asked, most answers first."""
    rows = _answered().values("by").annotate(agreed=AGREED, asked=Count("pk"))
    people = User.objects.in_bulk([row["by"] for row in rows])
    found = [(people[row["by"]], Rate(row["agreed"], row["asked"])) for row in rows]
    return sorted(found, key=lambda row: (-row[1].asked, row[0].username))


def _answered() -> QuerySet[BlindItem]:
    return BlindItem.objects.filter(verdict__in=Review.DECISIONS)


@dataclass(frozen=True)
class Agreement:
    """How far two people agree on pairs that both judged."""

    one: User
    other: User
    count: int
    kappa: float | None


def kappas() -> list[Agreement]:
    """Of any two people who judged enough of the same pairs: those with most pairs first."""
    together: dict[tuple[int, int], list[tuple[bool, bool]]] = defaultdict(list)
    for case in _cases():
        for one, other in combinations(sorted(case), 2):
            together[one, other].append((case[one], case[other]))
    enough = {pair: said for pair, said in together.items() if len(said) >= FEWEST}
    people = User.objects.in_bulk({pk for pair in enough for pk in pair})
    return [
        Agreement(people[one], people[other], len(said), kappa(said))
        for (one, other), said in sorted(enough.items(), key=lambda row: (-len(row[1]), row[0]))
    ]


def _cases() -> list[dict[int, bool]]:
    """Of each decision that others judged blindly: whether it is a duplicate, by person."""
    stood = Review.objects.standing().filter(
        flag=OuterRef("flag"), verdict=OuterRef("expected"), reviewed_at__lte=OuterRef("drawn_at")
    )
    newest = stood.order_by("-reviewed_at", "-pk").values("pk")[:1]
    by = Review.objects.filter(pk=OuterRef("first")).values("by")
    rows = _answered().annotate(first=Subquery(newest)).annotate(first_by=Subquery(by))
    cases: dict[int, dict[int, bool]] = {}
    for row in rows.exclude(first=None).values("first", "first_by", "by", "expected", "verdict"):
        case = cases.setdefault(row["first"], {})
        case[row["first_by"]] = row["expected"] == Review.Verdict.CONFIRMED
        case[row["by"]] = row["verdict"] == Review.Verdict.CONFIRMED
    return list(cases.values())
