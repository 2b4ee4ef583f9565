"""How many duplicates the machine finds, and how many of its flags are right, by what people said.

Flagged pairs alone cannot tell what was overlooked: of them every release finds all. So pairs drawn
from below the threshold are asked about too, each with a known chance, and count for one over it.

- Measured with are only pairs that a check asked about: flagged (chance 1) and drawn. Never those
  that were chosen to learn from, nor those that people asked about themselves.
- What is asked but not judged yet is made up for by what is: of drawn pairs any is judged as likely
  as another; flags are judged likeliest first, so each stands for those of about its probability.
- Of what was said before a release was made, only what it was held back from speaks of it.
- Each pair counts with what the release now in question says of it, not the one that asked.

Recall is of the duplicates that checks met on their shortlists; what no shortlist holds, nobody
asks about.
"""

import math
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone

from dedup import feedback, flagging, releases
from dedup.feedback import Label
from dedup.ml import estimation
from dedup.ml.estimation import Estimate, Sample
from dedup.ml.pairs import Scorer
from dedup.ml.text import text_hash
from dedup.models import Flag, Release, Score
from support import outbox

PER_STRATUM = 20  # judged flags of about one probability, which stand for those not judged yet
SCORED_TOGETHER = 64  # then somebody who waits for a check comes first


@dataclass(frozen=True)
class Quality:
    """What people's verdicts say of a release at one threshold; None where they are too few."""

    threshold: float
    recall: Estimate | None
    precision: Estimate | None
    judged: int  # pairs that it was measured with
    drawn: int  # of these, from below the threshold of a check


@dataclass(frozen=True)
class Cases:
    """The pairs that one release can be measured with."""

    release: Release
    labels: list[Label]
    sample: Sample
    waiting: int  # asked, but not judged yet
    unscored: int  # judged, but this release has said nothing of them yet: see `score_labels`

    def quality(self, threshold: float | None = None) -> Quality:
        """At any threshold; by default, at the release's own."""
        return self._quality(np.full(len(self.labels), True), threshold)

    def by_segment(self, threshold: float | None = None) -> dict[str, dict[str, Quality]]:
        """The same by segment and its value, those with most pairs first."""
        rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, label in enumerate(self.labels):
            for name, value in label.segments.items():
                rows[name][value].append(row)
        return {
            name: {
                value: self._quality(_mask(which, len(self.labels)), threshold)
                for value, which in sorted(values.items(), key=lambda item: -len(item[1]))
            }
            for name, values in rows.items()
        }

    def _quality(self, wanted: np.ndarray, threshold: float | None) -> Quality:
        at = self.release.threshold if threshold is None else threshold
        some = self.sample.where(wanted)
        return Quality(
            threshold=at,
            recall=estimation.recall(some, at),
            precision=estimation.precision(some, at),
            judged=len(some.labels),
            drawn=sum(label.lane == Flag.Lane.SAMPLED for label in _those(self.labels, wanted)),
        )


def cases(
    release: Release | None = None,
    *,
    labels: Sequence[Label] | None = None,
    until: datetime | None = None,
) -> Cases:
    """What `release`, by default the one in service, can be measured with. `labels` are all there
    are, where somebody has them at hand. Raises releases.NoRelease."""
    release = release or releases.active()
    known = feedback.labels(until=until) if labels is None else labels
    measured = [one for one in known if is_measured(one)]
    said = _said_of(measured, release)
    scored = [one for one in measured if _ends(one) in said]
    waiting = _waiting(release)
    found = chances([(said[_ends(one)], one.share or 1.0) for one in scored], [*waiting.values()])
    kept = [row for row, one in enumerate(scored) if is_unseen(one, release)]
    held = [scored[row] for row in kept]
    return Cases(
        release=release,
        labels=held,
        sample=Sample.of(
            [said[_ends(one)] for one in held],
            [one.label for one in held],
            [found[row] for row in kept],
        ),
        waiting=len(waiting),
        unscored=len(measured) - len(scored),
    )


def is_measured(label: Label) -> bool:
    """Whether a check asked about this pair, with a known chance."""
    return label.share is not None and label.lane in feedback.MEASURED


def is_unseen(label: Label, release: Release) -> bool:
    """Whether a release cannot have learned from it."""
    return label.first_said_at >= release.added_at or label.part == "hold"


def chances(
    judged: Sequence[tuple[float, float]], waiting: Sequence[tuple[float, float]]
) -> list[float]:
    """How probable it was of each judged pair, given as (probability, share), that it is asked
    about and judged by now, by what waits beside it."""
    drawn, drawn_waiting = (sum(share < 1 for _, share in rows) for rows in (judged, waiting))
    by_flag = _judged_shares(
        [p for p, share in judged if share >= 1], [p for p, share in waiting if share >= 1]
    )
    left = iter(by_flag)
    share_of_drawn = drawn / max(1, drawn + drawn_waiting)
    return [share * share_of_drawn if share < 1 else next(left) for _, share in judged]


def _judged_shares(judged: Sequence[float], waiting: Sequence[float]) -> list[float]:
    """For each judged flag, how many of those of about its probability are judged."""
    rows = sorted([(-p, row) for row, p in enumerate(judged)] + [(-p, -1) for p in waiting])
    found = [1.0] * len(judged)
    left = len(judged)
    stratum: list[int] = []
    for place, (_, row) in enumerate(rows):
        stratum.append(row)
        those = [row for row in stratum if row >= 0]
        is_last = place == len(rows) - 1
        if is_last or (len(those) >= PER_STRATUM and left - len(those) >= PER_STRATUM):
            for one in those:
                found[one] = len(those) / len(stratum)
            left -= len(those)
            stratum = []
    return found


def _ends(label: Label) -> tuple[int, int]:
    return label.older_id, label.newer_id


def _mask(rows: Collection[int], size: int) -> np.ndarray:
    wanted = np.full(size, False)
    wanted[list(rows)] = True
    return wanted


def _those(labels: Sequence[Label], wanted: np.ndarray) -> list[Label]:
    return [label for label, is_wanted in zip(labels, wanted, strict=True) if is_wanted]


def _said_of(labels: Collection[Label], release: Release) -> dict[tuple[int, int], float]:
    """The probability that a release gave each of these pairs, where it read the same texts."""
    said = {
        _ends(one): one.probability
        for one in labels
        if one.release == release.name and one.probability is not None
    }
    ids = {pk for one in labels if _ends(one) not in said for pk in _ends(one)}
    kept = {
        (score.older_id, score.newer_id): score
        for score in Score.objects.filter(release=release, older__in=ids, newer__in=ids)
    }
    for one in labels:
        score = kept.get(_ends(one))
        if score and (score.older_hash, score.newer_hash) == _hashes(one):
            said[_ends(one)] = score.probability
    return said


def _hashes(label: Label) -> tuple[str, str]:
    return text_hash(label.pair.older), text_hash(label.pair.newer)


def _waiting(release: Release) -> dict[int, tuple[float, float]]:
    """Probability and share of each pair that a check asked about and nobody has judged: open, or
    withdrawn because a later release thought less of it. By flag."""
    unedited = feedback.unedited_since("flagged_at", ("older", "newer"))
    asked = (
        Flag.objects.across_threads()
        .filter(lane__in=feedback.MEASURED, asked_share__isnull=False, disputed_at=None)
        .filter(Q(status=Flag.Status.OPEN) | Q(unedited, status=Flag.Status.WITHDRAWN))
    )
    rows = asked.annotate(now=_now_says(release)).values_list(
        "pk", "now", "probability", "asked_share"
    )
    return {
        pk: (p if now is None else now, share) for pk, now, p, share in rows if share is not None
    }


def _now_says(release: Release) -> Subquery:
    """What a release said of a flag's pair as its texts were then."""
    return Subquery(
        Score.objects.filter(
            older=OuterRef("older"), newer=OuterRef("newer"), release=release,
            older_hash=OuterRef("older_hash"), newer_hash=OuterRef("newer_hash"),
        ).values("probability")
    )  # fmt: skip


def score_labels(
    release: Release,
    scorer: Scorer,
    *,
    seconds: float = math.inf,
    now: datetime | None = None,
) -> int:
    """Keep what a release says of judged pairs that it never met, merged ones above all: without
    them it could only be measured with what was said since it came. How many; stops after
    `seconds`, or where a question waits for its check, and goes on there when called again."""
    deadline = time.monotonic() + seconds
    known = [one for one in feedback.labels() if is_measured(one)]
    said = _said_of(known, release)
    missing = [one for one in known if _ends(one) not in said]
    done = 0
    while done < len(missing) and time.monotonic() < deadline:
        if outbox.has_live_waiting(timezone.now()):
            break
        some = missing[done : done + SCORED_TOGETHER]
        _keep(some, release, scorer, now or timezone.now())
        done += len(some)
    return done


def _keep(labels: Sequence[Label], release: Release, scorer: Scorer, now: datetime) -> None:
    pairs = [one.pair for one in labels]
    older, newer = (scorer.embed([getattr(p, end) for p in pairs]) for end in ("older", "newer"))
    judged = scorer.judge(pairs, np.einsum("ij,ij->i", older, newer).tolist())
    flagging.keep_scores(
        [
            Score(
                older_id=one.older_id, newer_id=one.newer_id, release=release,
                older_hash=_hashes(one)[0], newer_hash=_hashes(one)[1], logit=said.logit,
                cosine=said.cosine, probability=said.probability, settled_by=said.settled_by,
                scored_at=now,
            )
            for one, said in zip(labels, judged, strict=True)
        ]
    )  # fmt: skip
