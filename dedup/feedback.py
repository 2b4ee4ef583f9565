"""What people said of pairs -> labelled pairs, with who said it, when, and how it came to be asked.

The rules, in the order in which they hold:

- Only what people said is a label. A pair of which nobody said anything is no negative.
- What was taken back (an undone review, a merge undone within 30 s) does not count.
- A verdict speaks of the texts as they were read: where one was edited or erased since, it is out.
- Of decisions (reviews on the desk, merges made by hand, merges taken back later) the newest
  counts: who decides anew knows what was decided, and overrules it. "Related" is not a duplicate.
- An open "mine is different" takes its pair out, until an agent has decided on it.
- Answers to known cases are second opinions: one for each person, beside the decision. The label is
  what most of them say, its weight their share of all; where as many say the one as the other, the
  pair is out.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONObject

from dedup.ml.pairs import Pair
from dedup.models import BlindItem, Flag, Review, Score
from dedup.texts import LONG, SHORT, Text, text_of
from support.merging import UNDO
from support.models import Merge, Question

PARTS = (("train", 0.70), ("tune", 0.15), ("hold", 0.15))
LARGEST_GROUP = 50  # questions that pairs which are no duplicates may hold together
NEW_ACCOUNT = timedelta(days=30)
MEASURED = (Flag.Lane.FLAGGED.value, Flag.Lane.SAMPLED.value)

Ends = frozenset[int]


@dataclass(frozen=True)
class Label:
    """A pair that people judged, with who said so, and how it came to be asked about."""

    older_id: int
    newer_id: int
    pair: Pair
    cosine: float | None  # what the release that asked had said; None: unknown
    logit: float | None
    label: float  # 1.0 duplicate, 0.0 not
    weight: float  # how much it counts in training: (0, 1], less where people disagree
    share: float | None  # how probable it was that it is asked; None: never measured with
    lane: str  # flagged, sampled, chosen; people joined, parted or disputed them unasked:
    #            merged, unmerged, disputed
    release: str  # name of the release that had asked; "" for none
    probability: float | None  # what that release had said
    by: tuple[int, ...]  # ids of the people, first verdict first
    said_at: datetime  # the newest verdict that counts
    first_said_at: datetime  # any verdict on these texts: from then on it may have been learned
    part: str  # train, tune, hold; "" where its two questions stand on different sides
    segments: dict[str, str]  # of the newer question


@dataclass(frozen=True)
class _Said:
    """One verdict on a pair."""

    is_same: bool
    by: int
    at: datetime
    source: str  # review, merged, unmerged, blind
    read: frozenset[tuple[int, str]] | None = None  # questions with their hashes, where kept


def labels(*, until: datetime | None = None) -> list[Label]:
    """All labelled pairs, in the order in which they became known; with `until`, only what was said
    by then, as far as it still stands. A fixed number of queries, whatever there is."""
    said = _all_said(until)
    flags = {frozenset(flag.question_ids): flag for flag in _flags()}
    questions = _questions({pk for ends in said for pk in ends})
    texts = {pk: text_of(question) for pk, question in questions.items()}
    found = [
        label
        for ends, verdicts in said.items()
        if ends <= questions.keys()
        and (label := _label(verdicts, ends, flags.get(ends), questions, texts))
    ]
    found.sort(key=lambda label: (label.said_at, label.older_id, label.newer_id))
    in_force = Merge.objects.in_force().filter(*([Q(merged_at__lte=until)] if until else []))
    edges = [(edge.merged_at, edge.duplicate_id, edge.canonical_id) for edge in in_force]
    return _in_parts(found, edges)


def measurable(known: Iterable[Label], part: str) -> list[Label]:
    """The labels of a part that can be measured with: asked about by a known chance."""
    return [
        label for label in known if label.part == part and label.lane in MEASURED and label.share
    ]


def _all_said(until: datetime | None) -> dict[Ends, list[_Said]]:
    """Verdicts by pair: of each, decisions and second opinions on its texts."""
    said: dict[Ends, list[_Said]] = defaultdict(list)
    for ends, verdict in (*_reviews(), *_merges(), *_second_opinions()):
        if until is None or verdict.at <= until:
            said[ends].append(verdict)
    return said


def _reviews() -> Iterator[tuple[Ends, _Said]]:
    rows = Review.objects.standing().filter(verdict__in=Review.DECISIONS).order_by("pk")
    ends = ("flag__older", "flag__newer", "older_hash", "newer_hash")
    for verdict, by, at, older, newer, older_hash, newer_hash in rows.values_list(
        "verdict", "by", "reviewed_at", *ends
    ):
        is_same = verdict == Review.Verdict.CONFIRMED
        read = frozenset({(older, older_hash), (newer, newer_hash)})
        yield frozenset((older, newer)), _Said(is_same, by, at, "review", read)


def _merges() -> Iterator[tuple[Ends, _Said]]:
    """Merges made by hand, and any that were taken back later (see `marks.parted`), where neither
    text was edited since."""
    asked = Review.objects.filter(merge=OuterRef("pk"), verdict=Review.Verdict.CONFIRMED)
    went_along = Review.objects.filter(merge=OuterRef("pk"), undone_at=OuterRef("undone_at"))
    by_hand = Q(undone_at=None) & ~Exists(asked) & unedited_since("merged_at")
    back = Q(undone_at__gt=F("merged_at") + UNDO) & ~Exists(went_along)
    edges = Merge.objects.filter(by_hand | back & unedited_since("undone_at")).order_by("pk")
    for edge in edges:
        ends = frozenset((edge.duplicate_id, edge.canonical_id))
        if edge.undone_at and edge.undone_by_id:
            yield ends, _Said(False, edge.undone_by_id, edge.undone_at, "unmerged")
        else:
            yield ends, _Said(True, edge.merged_by_id, edge.merged_at, "merged")


def unedited_since(time: str, ends: Collection[str] = ("duplicate", "canonical")) -> Q:
    """Rows of whose questions neither text was edited after that time."""
    unedited = Q()
    for end in ends:
        edited_at = f"{end}__edited_at"
        unedited &= Q(**{edited_at: None}) | Q(**{f"{edited_at}__lte": F(time)})
    return unedited


def _second_opinions() -> Iterator[tuple[Ends, _Said]]:
    """Answers to known cases whose texts are still those that were shown."""
    rows = BlindItem.objects.filter(
        unedited_since("drawn_at", ("flag__older", "flag__newer")), verdict__in=Review.DECISIONS
    ).order_by("pk")
    for verdict, by, at, older, newer in rows.values_list(
        "verdict", "by", "decided_at", "flag__older", "flag__newer"
    ):
        if at is not None:  # as the rows promise where there is a verdict
            is_same = verdict == Review.Verdict.CONFIRMED
            yield frozenset((older, newer)), _Said(is_same, by, at, "blind")


def _flags() -> QuerySet[Flag]:
    """Flags of which something may have been said, with what their release said of the texts."""
    score = Score.objects.filter(
        older=OuterRef("older"), newer=OuterRef("newer"), release=OuterRef("release"),
        older_hash=OuterRef("older_hash"), newer_hash=OuterRef("newer_hash"),
    ).values(said=JSONObject(cosine="cosine", logit="logit"))  # fmt: skip
    merges = [
        Merge.objects.filter(duplicate=OuterRef(one), canonical=OuterRef(other))
        for one, other in (("older", "newer"), ("newer", "older"))
    ]
    decided = Exists(Review.objects.standing().filter(flag=OuterRef("pk")))
    return (
        Flag.objects.filter(decided | Exists(merges[0]) | Exists(merges[1]))
        .annotate(said=Subquery(score))
        .select_related("release")
        .defer("alignment", "release__manifest")
    )


def _questions(ids: Collection[int]) -> dict[int, Question]:
    written = Question.objects.written().select_related("product", "asked_by").defer("words")
    return written.in_bulk(ids)


def _label(
    verdicts: Collection[_Said],
    ends: Ends,
    flag: Flag | None,
    questions: Mapping[int, Question],
    texts: Mapping[int, Text],
) -> Label | None:
    """What was said of one pair, or None where it is out."""
    older, newer = sorted((texts[pk] for pk in ends), key=lambda text: text.order)
    as_now = frozenset((text.question_id, text.hash) for text in (older, newer))
    fresh = [verdict for verdict in verdicts if verdict.read in (as_now, None)]
    is_disputed = flag and flag.disputed_at and flag.status == Flag.Status.OPEN
    counted = [] if is_disputed else _counted(fresh)
    for_it = sum(verdict.is_same for verdict in counted)
    most = max(for_it, len(counted) - for_it)
    if not counted or 2 * most == len(counted):
        return None
    asked = _asked(flag, next(v for v in counted if v.source != "blind"))
    return Label(
        older_id=older.question_id,
        newer_id=newer.question_id,
        pair=Pair(older.input, newer.input),
        label=float(2 * for_it > len(counted)),
        weight=most / len(counted),
        by=tuple(dict.fromkeys(verdict.by for verdict in counted)),
        said_at=max(verdict.at for verdict in counted),
        first_said_at=min(verdict.at for verdict in fresh),
        part="",
        segments=segments(questions[newer.question_id], newer),
        **asked,
    )


def _counted(verdicts: Iterable[_Said]) -> list[_Said]:
    """The newest decision and the last second opinion of each other person, first one first; none
    where nothing is decided."""
    in_order = sorted(verdicts, key=lambda verdict: verdict.at)
    decisions = [verdict for verdict in in_order if verdict.source != "blind"]
    if not decisions:
        return []
    opinions = {verdict.by: verdict for verdict in in_order if verdict.source == "blind"}
    opinions[decisions[-1].by] = decisions[-1]
    return sorted(opinions.values(), key=lambda verdict: verdict.at)


def _asked(flag: Flag | None, decision: _Said) -> dict[str, Any]:
    """How a pair came to be asked about, and what the release that asked had said."""
    lane = _lane(flag, decision)
    if flag is None or lane in ("merged", "unmerged", "disputed"):
        unknown = {"cosine": None, "logit": None, "probability": None}
        return {"lane": lane, "share": None, "release": "", **unknown}
    said = flag.said or {}  # type: ignore[attr-defined]  # annotated
    return {
        "lane": lane,
        "share": flag.asked_share,
        "release": flag.release.name,
        "probability": flag.probability,
        "cosine": said.get("cosine"),
        "logit": said.get("logit"),
    }


def _lane(flag: Flag | None, decision: _Said) -> str:
    """How a pair came to be asked about, also where all see its score since."""
    if flag is None or (flag.asked_share is None and flag.lane == Flag.Lane.FLAGGED):
        if flag and flag.disputed_at:
            return "disputed"
        return "merged" if decision.is_same else "unmerged"
    is_drawn = flag.asked_share is not None and flag.asked_share < 1
    return Flag.Lane.SAMPLED.value if is_drawn else flag.lane


def segments(question: Question, text: Text) -> dict[str, str]:
    """To which parts of all questions this one belongs, by what figures are told apart."""
    size = len(text.input)
    is_new = question.asked_at - question.asked_by.date_joined < NEW_ACCOUNT
    return {
        "product": question.product.slug,
        "language": question.language,
        "length": "short" if size < SHORT else "long" if size > LONG else "middle",
        "account": "new" if is_new else "old",
        "asker": "guest" if question.asked_by.is_guest else "known",
    }


def part_of(question_id: int) -> str:
    """The side of a group of questions that is named by this one: always the same."""
    place = int.from_bytes(sha256(f"part:{question_id}".encode()).digest()[:8]) / 2**64
    for name, share in PARTS:
        if (place := place - share) < 0:
            return name
    return PARTS[-1][0]


def _in_parts(found: list[Label], merged: Iterable[tuple[datetime, int, int]]) -> list[Label]:
    """The same with their sides.

    Duplicates, and what is merged, stand on one side always. Then pairs that are no duplicates join
    their groups in the order of time, as long as these stay small: all such pairs together would
    chain most questions into one group. What joins two groups on different sides has none.
    """
    same = [(one.said_at, one.older_id, one.newer_id) for one in found if one.label]
    other = [(one.said_at, one.older_id, one.newer_id) for one in found if not one.label]
    groups = Groups()
    for _at, *ends in sorted([*same, *merged]):
        groups.join(*ends, most=None)
    for _at, *ends in sorted(other):
        groups.join(*ends, most=LARGEST_GROUP)
    sides = [
        (part_of(groups.name_of(label.older_id)), part_of(groups.name_of(label.newer_id)))
        for label in found
    ]
    return [
        replace(label, part=one if one == other else "")
        for label, (one, other) in zip(found, sides, strict=True)
    ]


class Groups:
    """Questions that stand on one side of a split, as pairs join them (union-find)."""

    def __init__(self) -> None:
        self.above: dict[int, int] = {}
        self.size: dict[int, int] = {}

    def name_of(self, question_id: int) -> int:
        """The question that a group is named by."""
        while (above := self.above.get(question_id, question_id)) != question_id:
            self.above[question_id] = self.above.get(above, above)
            question_id = above
        return question_id

    def join(self, one: int, other: int, *, most: int | None) -> None:
        """Have two stand together, unless their group then had more than so many questions."""
        first, second = self.name_of(one), self.name_of(other)
        sizes = {pk: self.size.get(pk, 1) for pk in (first, second)}
        if first == second or (most is not None and sum(sizes.values()) > most):
            return
        stays, goes = sorted(sizes, key=lambda pk: (-sizes[pk], pk))
        self.above[goes] = stays
        self.size[stays] = sum(sizes.values())
