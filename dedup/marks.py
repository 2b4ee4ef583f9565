"""What people have said between two threads: marks, merges taken back, merges that are disputed."""

from collections.abc import Collection, Iterable

from django.db.models import Exists, F, OuterRef, Q

from dedup.models import Flag, Review
from support.merging import UNDO
from support.models import Merge, Question


def disputed_edge(flag: Flag) -> Merge | None:
    """The merge in force that a disputed flag is about."""
    found = disputed_edges([flag]) if flag.disputed_at else []
    return found[0][1] if found else None


def disputed_edges(flags: Iterable[Flag]) -> list[tuple[Flag, Merge]]:
    """Disputed flags, each with the merge in force that it is about."""
    rows = list(flags)
    ids = {pk for flag in rows for pk in flag.question_ids}
    edges = Merge.objects.in_force().filter(duplicate__in=ids, canonical__in=ids)
    known = {
        frozenset((edge.duplicate_id, edge.canonical_id)): edge
        for edge in edges.select_related("duplicate", "canonical")
    }
    pairs = ((flag, known.get(frozenset(flag.question_ids))) for flag in rows)
    return [(flag, edge) for flag, edge in pairs if edge]


def is_marked(one: Question, other: Question) -> bool:
    """Whether people said of any pair between these two threads that it is not a duplicate."""
    members = (
        Question.objects.of_threads(each.pk).values_list("pk", flat=True) for each in (one, other)
    )
    return is_marked_between(*(set(ids) for ids in members))


def is_marked_between(some: Collection[int], others: Collection[int]) -> bool:
    """The same of two sets of questions."""
    pairs = Q(older__in=some, newer__in=others) | Q(older__in=others, newer__in=some)
    apart = (Flag.Status.DISMISSED, Flag.Status.RELATED)
    if Flag.objects.filter(pairs, status__in=apart).exists():
        return True
    return any(len(pair & set(some)) == 1 for pair in parted({*some, *others}))


def across(one: Question, other: Question) -> Q:
    """Which flags join these two threads."""
    members = Question.objects.of_threads(one.pk).values("pk")
    others = Question.objects.of_threads(other.pk).values("pk")
    return Q(older__in=members, newer__in=others) | Q(older__in=others, newer__in=members)


def pair_of(one: int, other: int) -> Q:
    return Q(older=one, newer=other) | Q(older=other, newer=one)


def was_parted(one: int, other: int) -> bool:
    """Whether people merged this pair, later took it back, and neither text has changed since."""
    return bool(parted([one, other]))


def parted(question_ids: Collection[int]) -> set[frozenset[int]]:
    """Which pairs of these people merged and later took back, without a change of text since.

    What was taken back at once was a slip, and says nothing; nor does a merge that went with the
    decision that had led to it: what was said instead stands on the flag.
    """
    edges = Merge.objects.filter(
        duplicate__in=question_ids,
        canonical__in=question_ids,
        undone_at__gt=F("merged_at") + UNDO,
    )
    unchanged = (
        Q(**{f"{end}__edited_at__isnull": True}) | Q(**{f"{end}__edited_at__lte": F("undone_at")})
        for end in ("duplicate", "canonical")
    )
    undone = Review.objects.filter(merge=OuterRef("pk"), undone_at=OuterRef("undone_at"))
    kept = edges.filter(*unchanged).exclude(Exists(undone))
    return {frozenset([e.duplicate_id, e.canonical_id]) for e in kept}
