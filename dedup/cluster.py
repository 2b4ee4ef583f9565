"""More than two questions that are one: one case, its weakest edge, one decision on all of them.

Locks: questions in id order, then flags; everywhere the same, so that nobody waits in a circle.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from dedup import marks, review
from dedup.models import Flag, FlagQuerySet, Release, Review, Score
from dedup.texts import text_of
from support import merging
from support.merging import Evidence
from support.models import Merge, Question, User

MOST_MEMBERS = 12  # what a person can still look at together
MOST_EDGES = 200  # looked at in one step: hundreds may resemble the same question


class NotOfCluster(review.ReviewRefused):
    """Fewer than two that are the same, or questions that no pair of the cluster joins."""

    code = "not_of_cluster"


@dataclass(frozen=True)
class Cluster:
    """Live questions that open flags hold together."""

    members: list[Question]  # oldest first
    edges: list[Flag]  # likeliest first
    weakest: Flag  # the least likely of those without which it falls apart
    loose: set[int]  # ids of members that only the weakest edge, or a weaker one, joins to the rest
    parted: list[tuple[Question, Question]]  # people said of them that they are not duplicates
    is_cut: bool  # there are more: they come when these are decided

    def ends(self, edge: Flag) -> list[Question]:
        """The two members that an edge joins, oldest first."""
        return [member for member in self.members if member.pk in ends(edge)]

    def likeliest(self, member: Question) -> Flag:
        """What joins a member to the rest most surely."""
        return next(edge for edge in self.edges if member.pk in ends(edge))


def more(flag: Flag, *, roots: Mapping[int, int], now: datetime | None = None) -> int:
    """How many other live questions likely flags join with the two of this one; 0 where this one is
    closed, sleeps, is asked blindly or is about a merge. `roots` are of all in its threads."""
    leading = _leading(roots, flag, now=now or timezone.now())
    edges = list(leading.values_list("pk", "low", "high")[:MOST_EDGES])  # type: ignore[misc]
    if flag.pk not in {pk for pk, *_ in edges}:
        return 0
    return len({pk for _flag, *pair in edges for pk in pair} - set(roots.values()))


def around(flag: Flag, *, now: datetime | None = None) -> Cluster | None:
    """What likely flags join with the two threads of this one, step by step, at most MOST_MEMBERS.

    None where there is nothing but the two, or `more` finds nothing.
    """
    now = now or timezone.now()
    members = list(ends(flag))
    roots: dict[int, int] = {}
    edges: dict[int, Flag] = {}
    frontier = members
    while frontier:
        thread_roots, beside = _beside(frontier, flag, now=now)
        roots |= thread_roots
        edges |= {edge.pk: edge for edge in beside}
        if flag.pk not in edges:
            return None
        reached = dict.fromkeys(pk for edge in beside for pk in ends(edge) if pk not in members)
        frontier = list(reached)[: MOST_MEMBERS - len(members)]
        members = members + frontier
    return _assembled(members, list(edges.values()), roots) if len(members) > 2 else None


def ends(flag: Flag) -> set[int]:
    """Ids of the live questions of its two threads; one where they are merged."""
    return {flag.older.root_id, flag.newer.root_id}


def _beside(
    thread_ids: Iterable[int], flag: Flag, *, now: datetime
) -> tuple[dict[int, int], list[Flag]]:
    """All questions of these live threads with their roots, and the open flags that lead from them
    to any other thread, likeliest first."""
    rows = Question.objects.of_threads(*thread_ids).values_list("pk", "canonical_id")
    roots = {pk: canonical_id or pk for pk, canonical_id in rows}
    return roots, list(_leading(roots, flag, now=now).in_queue_order()[:MOST_EDGES])


def _leading(question_ids: Collection[int], flag: Flag, *, now: datetime) -> FlagQuerySet:
    """Open flags that lead from these questions to another thread: this one, and likely ones. Less
    likely ones chain together what has little to do with each other."""
    ids = list(question_ids)
    is_likely = Q(probability__gte=F("release__sure_threshold")) | Q(pk=flag.pk)
    flags = Flag.objects.open().awake(now).filter(Q(older__in=ids) | Q(newer__in=ids), is_likely)
    across = flags.filter(lane=Flag.Lane.FLAGGED).with_roots().filter(~Q(low=F("high")))
    return across.order_by("-probability", "pk")


def _assembled(ids: Collection[int], edges: list[Flag], roots: Mapping[int, int]) -> Cluster:
    rows = Question.objects.filter(pk__in=ids).select_related("product", "asked_by")
    members = sorted(rows, key=lambda question: question.order)
    within = _likeliest_first(edge for edge in edges if ends(edge) <= set(ids))
    tree = _tree(members[0].pk, within)
    weakest = _likeliest_first(tree.values())[-1]
    return Cluster(
        members=members,
        edges=within,
        weakest=weakest,
        loose=_smaller_side(members[0].pk, tree, weakest),
        parted=_parted(members, roots),
        is_cut=len(within) < len(edges),
    )


def _likeliest_first(flags: Iterable[Flag]) -> list[Flag]:
    return sorted(flags, key=lambda flag: (-flag.probability, flag.pk))


def _tree(start: int, flags: Sequence[Flag]) -> dict[int, Flag]:
    """For each question that flags, likeliest first, lead to from `start`: the one over which it is
    reached. Together they are the likeliest that reach all (Prim's tree)."""
    reached, tree = {start}, {}
    while step := next((flag for flag in flags if len(ends(flag) & reached) == 1), None):
        (onward,) = ends(step) - reached
        reached.add(onward)
        tree[onward] = step
    return tree


def _smaller_side(start: int, tree: Mapping[int, Flag], weakest: Flag) -> set[int]:
    """Of the two parts into which a tree falls without its weakest edge, the smaller one."""
    kept = [flag for flag in tree.values() if flag.pk != weakest.pk]
    near = {start, *_tree(start, kept)}
    far = set(tree) - near
    return near if len(near) < len(far) else far


def _parted(members: list[Question], roots: Mapping[int, int]) -> list[tuple[Question, Question]]:
    said = Flag.objects.filter(
        older__in=roots, newer__in=roots, status__in=[Flag.Status.DISMISSED, Flag.Status.RELATED]
    )
    apart = {frozenset(pair) for pair in said.values_list("older", "newer")}
    apart |= marks.parted(roots)
    found = {frozenset(roots[pk] for pk in pair) for pair in apart}
    return [
        (one, other)
        for place, one in enumerate(members)
        for other in members[place + 1 :]
        if frozenset([one.pk, other.pk]) in found
    ]


def proposed(members: Collection[Question]) -> Question:
    """The one that stays where nobody chooses otherwise: of those that most share their readers
    with, as only these can be merged, the oldest answered one, or else the oldest."""
    readers = {q.pk: (q.audience, q.asked_by_id if q.is_private else None) for q in members}
    most = max(Counter(readers.values()).values())
    common = [key for key, count in Counter(readers.values()).items() if count == most]
    return merging.choose_canonical(q for q in members if readers[q.pk] in common)


@merging.retried
def decide(
    *,
    flag_ids: Collection[int],
    same: Collection[int],
    out: Collection[int] = (),
    canonical: int | None = None,
    by: User,
    seen: Mapping[int, int] | None = None,
    now: datetime | None = None,
) -> list[Review]:
    """Say that live questions are all one, and that others (`out`) are none of them.

    `flag_ids` are the pairs that stood before `by`; all must still be open. Every open pair of two
    that are the same is confirmed, every pair of one of these and one that is out is dismissed;
    what is in neither list stays open. The same are merged into `canonical`, by default the one
    that is proposed, where `by` may merge and the readers are the same; otherwise it waits, as
    after `review.confirm`. One `review.undo` of any of the reviews takes all of it back.
    Raises FlagClosed, NotOfCluster, merging.MergeRefused (Stale where `seen` is not the newest).
    """
    now, batch = now or timezone.now(), uuid.uuid4()
    shown = Flag.objects.filter(pk__in=flag_ids).values_list("older", "newer")
    threads = merging.lock_threads(*{pk for pair in shown for pk in pair})
    flags = _locked(threads)
    _refuse_closed(flags, flag_ids)
    merging.refuse_stale(threads, seen or {})
    _refuse_strangers(threads, same, out, canonical)
    group = sorted((threads[pk] for pk in same), key=lambda question: question.order)
    stays = threads[canonical] if canonical else proposed(group)
    asked = (flag for flag in flags if flag.status == Flag.Status.OPEN and not flag.is_blind)
    is_open = [flag for flag in asked if len(ends(flag)) == 2]
    kept = [flag for flag in is_open if ends(flag) <= set(same)]
    kept += _bridges(group, stays, kept, flags, now=now)
    let_out = [flag for flag in is_open if ends(flag) & set(same) and ends(flag) & set(out)]
    let_out += _farther(out, stays, let_out, flags, threads, now=now)
    confirmed = [
        review.record(flag, Review.Verdict.CONFIRMED, by=by, now=now, canonical=stays)
        for flag in kept
    ]
    said = [
        *confirmed,
        *(review.record(flag, Review.Verdict.DISMISSED, by=by, now=now) for flag in let_out),
    ]
    _merge(group, stays, confirmed, by=by, now=now)
    for one in said:
        one.batch = batch
    Review.objects.bulk_update(said, ["batch", "merge"])
    return said


def _locked(threads: Mapping[int, Question]) -> list[Flag]:
    """All flags between these locked questions, whatever was said of them; locked, in id order."""
    rows = Flag.objects.filter(older__in=threads, newer__in=threads).order_by("pk")
    flags = list(rows.select_for_update(of=["self"]).select_related("release"))
    for flag in flags:
        flag.older, flag.newer = threads[flag.older_id], threads[flag.newer_id]
    return flags


def _refuse_closed(flags: Sequence[Flag], flag_ids: Collection[int]) -> None:
    for flag in flags:
        if flag.pk in flag_ids and flag.status != Flag.Status.OPEN:
            raise review.FlagClosed(flag)


def _refuse_strangers(
    threads: Mapping[int, Question],
    same: Collection[int],
    out: Collection[int],
    canonical: int | None,
) -> None:
    if len(set(same)) < 2:
        raise NotOfCluster(_("Choose two or more that are the same."))
    if not {*same, *out} <= set(threads) or set(same) & set(out):
        raise NotOfCluster(_("These questions do not belong together."))
    if canonical and canonical not in same:
        raise NotOfCluster(_("The question that is to stay is not one of those that are the same."))
    for pk in (*same, *out):
        if threads[pk].canonical_id:
            raise merging.NotLive(
                _("One of these questions is merged already."),
                question=pk,
                canonical=threads[pk].canonical_id,
            )


def _bridges(
    group: Sequence[Question],
    stays: Question,
    kept: Sequence[Flag],
    flags: Sequence[Flag],
    *,
    now: datetime,
) -> list[Flag]:
    """Flags for what no kept flag joins to the rest, as all that joined it is out: each merge is to
    hang on a review, so that undoing that takes the merge back.

    Until somebody says so nobody asked for these pairs: `review.undo` closes them again.
    """
    built: list[Flag] = []
    for question in group:
        near = {stays.pk, *_tree(stays.pk, [*kept, *built])}
        if question.pk not in near:
            built.append(_bridge(question, stays, flags, now=now))
    return built


def _farther(
    out: Collection[int],
    stays: Question,
    let_out: Sequence[Flag],
    flags: Sequence[Flag],
    threads: Mapping[int, Question],
    *,
    now: datetime,
) -> list[Flag]:
    """Flags for what is out although no open flag joins it to any that are the same, so that it is
    remembered: with the one that stays, where nothing is said of the two yet."""
    near = {pk for flag in let_out for pk in ends(flag)}
    farther = [threads[pk] for pk in sorted(out) if pk not in near]
    pairs = [_bridge(question, stays, flags, now=now) for question in farther]
    return [flag for flag in pairs if flag.status not in Review.DECISIONS]


def _bridge(one: Question, other: Question, flags: Sequence[Flag], *, now: datetime) -> Flag:
    pair = {one.pk, other.pk}
    known = next((flag for flag in flags if set(flag.question_ids) == pair), None)
    if known:
        known.flagged_at = now
        return known
    older, newer = sorted([one, other], key=lambda question: question.order)
    scores = Score.objects.filter(
        older=older, newer=newer, older_hash=text_of(older).hash, newer_hash=text_of(newer).hash
    )
    score = scores.order_by("-scored_at").select_related("release").first()
    release: Release = score.release if score else flags[-1].release
    probability = score.probability if score else 0.0
    return Flag(
        older=older, newer=newer, probability=probability, asked_share=None, release=release,
        flagged_at=now,
    )  # fmt: skip


def _merge(
    group: Sequence[Question],
    stays: Question,
    confirmed: Sequence[Review],
    *,
    by: User,
    now: datetime,
) -> None:
    """Merge what may be merged, each with the likeliest pair that joins it as evidence. Each review
    points at the merge of that one of its two questions that it joined, or else of the newer."""
    flags = _likeliest_first(said.flag for said in confirmed)
    tree = _tree(stays.pk, flags)
    merges: dict[int, Merge] = {}
    for question in group:
        is_other = question.pk != stays.pk and stays.has_same_readers_as(question)
        if is_other and merging.may_merge(by, question, stays):
            flag = tree[question.pk]
            evidence = Evidence(flag.known_probability or None, flag.release.name)
            merges[question.pk] = merging.merge(
                duplicate=question, canonical=stays, by=by, evidence=evidence, now=now
            )
    joined = {flag.pk: pk for pk, flag in tree.items()}
    by_age = [question.pk for question in group if question.pk != stays.pk]
    for said in confirmed:
        newer = max(ends(said.flag) - {stays.pk}, key=by_age.index)
        said.merge = merges.get(joined.get(said.flag_id, newer))
