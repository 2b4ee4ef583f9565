"""Whether a release's scores still look as they did when it was new: population stability.

The index sums (share now - share then) * ln(share now / share then) over ten parts that held
equally many scores at first (Siddiqi 2006, Credit Risk Scorecards; from there the bounds 0.1 and
0.25). Without any change it is, times a constant, distributed as chi-square with one degree of
freedom less than there are parts (Yurdakul and Naranjo 2020): what chance alone may well give is no
drift. For that each question counts once, not each of its scores, since those hang together.

Counted are scores whose newer question was asked within the time looked at: older ones that are
checked again would tell of the past.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils.translation import gettext as _

from dedup.ml.evaluation import psi
from dedup.models import Baseline, Release
from dedup.texts import LONG, SHORT
from support.models import Product

MOVED, STRONG = 0.1, 0.25
LATELY = timedelta(days=7)
BASELINE = timedelta(days=7)  # after its activation, or longer until there is enough
PARTS = 10
FEWEST_SCORES, FEWEST_QUESTIONS = 500, 30  # then and now, of each segment; else "too few"
BASELINE_SCORES, BASELINE_QUESTIONS = 2000, 100
Z = 1.644854  # of a normal distribution, 95 of 100 lie below

# The segments of a question `q` that was asked by `u`; "" is all of them.
SEGMENTS = f"""
LATERAL (VALUES
    (''),
    ('product:' || q.product_id),
    ('language:' || q.language),
    ('asker:' || CASE WHEN u.is_guest THEN 'guest' ELSE 'known' END),
    ('length:' || CASE WHEN length(q.title) + length(q.body) < {SHORT} THEN 'short'
                       WHEN length(q.title) + length(q.body) <= {LONG} THEN 'middle'
                       ELSE 'long' END)
) AS of_question (segment)
"""
LATELY_SCORED = """
FROM dedup_score s JOIN support_question asked ON asked.id = s.newer_id
WHERE s.release_id = %(release)s AND s.scored_at > %(since)s AND s.scored_at <= %(until)s
    AND asked.asked_at > %(since)s
"""
EDGES = (
    "SELECT percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY s.{measure}),"
    " count(*), count(DISTINCT s.newer_id) " + LATELY_SCORED
)
COUNTS = (
    "WITH judged AS (SELECT s.newer_id,"  # noqa: S608 - made of constants
    " width_bucket(s.{measure}, %(edges)s::float8[]) AS part, count(*) AS number "
    + LATELY_SCORED
    + "GROUP BY s.newer_id, part) "
    + "SELECT segment, part, sum(number), count(DISTINCT newer_id) FROM judged"
    + " JOIN support_question q ON q.id = judged.newer_id"
    + " JOIN support_user u ON u.id = q.asked_by_id, "
    + SEGMENTS
    + "GROUP BY GROUPING SETS ((segment, part), (segment))"
)


@dataclass(frozen=True)
class Parts:
    """How many scores lay in which part, by segment, and of how many questions they were."""

    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    questions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """How far one segment's scores have moved."""

    measure: str
    segment: str
    then: Sequence[int]  # scores in each part
    now: Sequence[int]
    questions_then: int
    questions_now: int

    @property
    def is_enough(self) -> bool:
        """Whether there are so many scores, then and now, that something can be said."""
        scores = min(sum(self.then), sum(self.now))
        questions = min(self.questions_then, self.questions_now)
        return scores >= FEWEST_SCORES and questions >= FEWEST_QUESTIONS

    @property
    def psi(self) -> float:
        return psi(self.then, self.now)

    @property
    def by_chance(self) -> float:
        """What it is at most in 95 of 100 such samples where nothing has changed."""
        size = 1 / max(self.questions_then, 1) + 1 / max(self.questions_now, 1)
        return chi_square_95(len(self.then) - 1) * size

    @property
    def state(self) -> str:
        """`few`, `steady`, `moved` or `strong`."""
        if not self.is_enough:
            return "few"
        if self.psi < MOVED or self.psi <= self.by_chance:
            return "steady"
        return "strong" if self.psi >= STRONG else "moved"

    @property
    def measure_label(self) -> str:
        return str(Baseline.Measure(self.measure).label)

    @property
    def scores_then(self) -> int:
        return sum(self.then)

    @property
    def scores_now(self) -> int:
        return sum(self.now)


def chi_square_95(freedom: int) -> float:
    """The 95 % point of chi-square (Wilson and Hilferty 1931; a few in 100 off for one degree)."""
    if freedom < 1:
        return 0.0
    spread = 2 / (9 * freedom)
    return freedom * float(1 - spread + Z * math.sqrt(spread)) ** 3


def keep_baselines(*, now: datetime) -> list[Baseline]:
    """Keep what the active release's first scores look like, once there are enough of them."""
    release = Release.objects.filter(is_active=True, activated_at__lte=now - BASELINE).first()
    if release is None:
        return []
    known = set(release.baselines.values_list("measure", flat=True))
    made = [_baseline(release, m, now) for m in Baseline.Measure.values if m not in known]
    return [one for one in made if one]


def _baseline(release: Release, measure: str, now: datetime) -> Baseline | None:
    since = release.activated_at
    assert since
    for until in (since + BASELINE, now):
        edges = _edges(release, measure, since, until)
        if edges:
            found = parts(release, measure, edges=edges, since=since, until=until)
            made, _new = Baseline.objects.get_or_create(
                release=release,
                measure=measure,
                defaults={
                    "edges": edges,
                    "counts": found.counts,
                    "questions": found.questions,
                    "begins_at": since,
                    "ends_at": until,
                },
            )
            return made
    return None


def _edges(release: Release, measure: str, since: datetime, until: datetime) -> list[float]:
    """What cuts these scores into ten parts of equal size; fewer where many are the same."""
    shares = [part / PARTS for part in range(1, PARTS)]
    given: dict[str, Any] = {"release": release.pk, "since": since, "until": until}
    given["shares"] = shares
    with connection.cursor() as cursor:
        cursor.execute(EDGES.format(measure=Baseline.Measure(measure).value), given)
        cuts, scores, questions = cursor.fetchone()
    if scores < BASELINE_SCORES or questions < BASELINE_QUESTIONS:
        return []
    return sorted(set(cuts))


def parts(
    release: Release, measure: str, *, edges: Sequence[float], since: datetime, until: datetime
) -> Parts:
    """How a release's scores of this time lie between these edges."""
    given: dict[str, Any] = {"release": release.pk, "since": since, "until": until}
    given["edges"] = list(edges)
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(edges) + 1))
    questions: dict[str, int] = {}
    with connection.cursor() as cursor:
        cursor.execute(COUNTS.format(measure=Baseline.Measure(measure).value), given)
        for segment, part, number, asked in cursor.fetchall():
            if part is None:
                questions[segment] = asked
            else:
                counts[segment][part] = int(number)
    return Parts(dict(counts), questions)


def drifts(release: Release, *, now: datetime, lately: timedelta = LATELY) -> list[Drift]:
    """By measure and segment, all first and then most questions first; [] without a baseline."""
    found = []
    for baseline in release.baselines.order_by("-measure"):
        since = max(now - lately, baseline.ends_at)
        current = parts(release, baseline.measure, edges=baseline.edges, since=since, until=now)
        segments = {"", *baseline.counts, *current.counts}
        none = [0] * (len(baseline.edges) + 1)
        of_measure = [
            Drift(
                baseline.measure,
                segment,
                baseline.counts.get(segment, none),
                current.counts.get(segment, none),
                baseline.questions.get(segment, 0),
                current.questions.get(segment, 0),
            )
            for segment in segments
        ]
        found += sorted(of_measure, key=lambda one: (one.segment != "", kind_of(one.segment),
                                                     -one.questions_now, one.segment))  # fmt: skip
    return found


def kind_of(segment: str) -> str:
    """`product`, `language`, `asker` or `length`; "" of all."""
    return segment.partition(":")[0]


def labels_of(segments: Iterable[str]) -> dict[str, str]:
    """Segments as people call them."""
    wanted = set(segments)
    keys = [one.partition(":")[2] for one in wanted if kind_of(one) == "product"]
    names = {f"product:{one.pk}": one.name for one in Product.objects.filter(pk__in=keys)}
    return {one: _label(one, names) for one in wanted}


def _label(segment: str, products: Mapping[str, str]) -> str:
    kind, _colon, value = segment.partition(":")
    if kind == "product":
        return _("Product: %(name)s") % {"name": products.get(segment, value)}
    if kind == "language":
        return _("Language: %(code)s") % {"code": value or _("not known")}
    return {
        "asker:guest": _("Asked by guests"),
        "asker:known": _("Asked by people with an account"),
        "length:short": _("Short questions"),
        "length:middle": _("Questions of middle length"),
        "length:long": _("Long questions"),
    }.get(segment, _("All questions"))
