"""What came of similar questions that were shown to somebody who was asking: written, counted,
dropped after a year. No text is kept, and no address."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Greatest

from dedup.agreement import Rate
from dedup.models import Deflection
from support.models import Product, Question, User

ANYWAY = timedelta(hours=24)  # who asks so soon after "this solved it" was not helped, perhaps
KEPT = timedelta(days=365)
PERIODS = (7, 30, 90)  # days


def note_shown(
    *, asking: uuid.UUID | None, count: int, product: Product | None, by: User | None, now: datetime
) -> uuid.UUID:
    """Note that so many similar questions were shown; returns the id of this time of asking.

    `asking` is the id that was returned for the text before, if there was one.
    """
    changes = {"shown": Greatest("shown", count)} | ({"product": product} if product else {})
    if asking and _of(asking).update(**changes):
        return asking
    return Deflection.objects.create(shown=count, product=product, asker=by, begun_at=now).pk


def note_opened(*, asking: uuid.UUID | None, now: datetime) -> None:
    """Note that one of them was opened; the first time counts."""
    _of(asking).filter(opened_at=None).update(opened_at=now)


def note_solved(
    *, asking: uuid.UUID | None, question: Question, by: User | None, now: datetime
) -> uuid.UUID:
    """Note which of them solved it; returns the id of this time of asking.

    One that is not known any more is begun anew: somebody was shown a suggestion, after all.
    """
    if asking is None or not _of(asking).exists():
        asking = note_shown(asking=None, count=1, product=question.product, by=by, now=now)
    _of(asking).update(solved_at=now, solved_question=question, product=question.product)
    return asking


def note_asked(
    *,
    asking: uuid.UUID | None,
    solved: Collection[uuid.UUID],
    question: Question | None,
    by: User | None,
    now: datetime,
) -> None:
    """Note that the question was asked in spite of what was shown; a guest's is not stored yet.

    `solved` are times of asking that ended with "this solved it", known from the same session;
    a person's own are known anyway. Those of the last day count as asked in spite of it.
    """
    mine = Q(pk__in=solved) | Q(asker=by) if by else Q(pk__in=solved)
    lately = Q(solved_at__gt=now - ANYWAY, solved_at__lte=now)
    changes = {"product": question.product} if question else {}
    _of(asking).update(asked_at=now, asked_question=question, **changes)
    ended = Deflection.objects.filter(mine & lately, asked_at=None)
    ended.update(asked_at=now, asked_question=question)


def _of(asking: uuid.UUID | None) -> QuerySet[Deflection]:
    return Deflection.objects.filter(pk=asking) if asking else Deflection.objects.none()


def forget_old(*, now: datetime) -> int:
    """Drop what is older than a year; returns how many there were."""
    return Deflection.objects.filter(begun_at__lt=now - KEPT).delete()[0]


@dataclass(frozen=True)
class Figures:
    """How many times somebody was shown something while asking, and how many ended how."""

    shown: int = 0
    opened: int = 0
    solved: int = 0
    asked: int = 0  # without having said that something solved it
    anyway: int = 0  # said so, and asked within a day

    @property
    def silent(self) -> int:
        """Those who neither said that it was solved nor asked: nobody knows why."""
        return self.shown - self.solved - self.asked

    @property
    def opened_rate(self) -> Rate:
        return Rate(self.opened, self.shown)

    @property
    def solved_rate(self) -> Rate:
        return Rate(self.solved, self.shown)

    @property
    def asked_rate(self) -> Rate:
        return Rate(self.asked, self.shown)

    @property
    def silent_rate(self) -> Rate:
        return Rate(self.silent, self.shown)

    @property
    def anyway_rate(self) -> Rate:
        """Of those that were said to be solved."""
        return Rate(self.anyway, self.solved)


ENDS = {
    "shown": Count("pk"),
    "opened": Count("pk", filter=Q(opened_at__isnull=False)),
    "solved": Count("pk", filter=Q(solved_at__isnull=False)),
    "asked": Count("pk", filter=Q(asked_at__isnull=False, solved_at=None)),
    "anyway": Count("pk", filter=Q(asked_at__lte=F("solved_at") + ANYWAY)),
}


def figures(*, days: int, now: datetime, product: Product | None = None) -> Figures:
    """What came of the last so many days, about one product or all."""
    rows = _since(days, now)
    if product:
        rows = rows.filter(product=product)
    return Figures(**rows.aggregate(**ENDS))


def by_product(*, days: int, now: datetime) -> Sequence[tuple[Product | None, Figures]]:
    """The same for each product of which something was shown, most first; None: not chosen yet."""
    rows = _since(days, now).values("product").annotate(**ENDS).values_list("product", *ENDS)
    products = Product.objects.in_bulk([pk for pk, *_ in rows if pk])
    found = [(products.get(pk), Figures(*counts)) for pk, *counts in rows]
    return sorted(found, key=lambda row: (-row[1].shown, row[0] is None, str(row[0])))


def _since(days: int, now: datetime) -> QuerySet[Deflection]:
    return Deflection.objects.filter(begun_at__gt=now - timedelta(days=days), begun_at__lte=now)
