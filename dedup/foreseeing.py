"""What would come of a threshold, before anybody moves it: by what people said, by the last thirty
days, and by what is open now."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
from django.core.cache import cache

from dedup import estimating, moving, replaying
from dedup.estimating import Cases, Quality
from dedup.ml.estimation import Estimate
from dedup.ml.pairs import Pair
from dedup.ml.thresholds import fewest_pairs, promised_threshold
from dedup.models import Release
from dedup.moving import Effects, Which
from dedup.replaying import Replay
from dedup.suggesting import UNFINISHED
from support.models import Product

KEPT_SECONDS = 60.0  # while somebody moves a slider, labels are not read anew
WANTED = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of precision, to choose from
CONFIDENCES = (0.8, 0.9, 0.95, 0.99)
THOUSAND = 1_000


@dataclass(frozen=True)
class Side:
    """What a threshold makes of the last days; what people's verdicts say of it, where enough."""

    threshold: float
    quality: Quality
    by_day: list[int]  # cards, or similar questions shown
    checked: int

    @property
    def total(self) -> int:
        return sum(self.by_day)

    @property
    def a_day(self) -> float:
        return self.total / replaying.DAYS

    @property
    def for_each(self) -> float:
        """For each question, on average."""
        return self.total / self.checked if self.checked else 0.0

    @property
    def wrong(self) -> tuple[float, float, float] | None:
        """Wrong ones in a thousand checked questions, with the interval of the precision."""
        found = self.quality.precision
        if found is None or not self.checked:
            return None
        each = THOUSAND * self.for_each
        return each * (1 - found.value), each * (1 - found.high), each * (1 - found.low)


@dataclass(frozen=True)
class Part:
    """The same for the questions about a product, or in a language."""

    name: str
    checked: int
    now: int
    then: int
    precision: Estimate | None  # at the new threshold


@dataclass(frozen=True)
class Consequences:
    """A threshold where it stands, and where it might."""

    which: Which
    now: Side
    then: Side
    days: list[date]
    products: list[Part]
    languages: list[Part]
    effects: Effects
    helped: tuple[float, float] | None  # of suggestions: questions that are shown any, now and then

    @property
    def difference(self) -> int:
        return self.then.total - self.now.total


@dataclass(frozen=True)
class Promise:
    """The lowest threshold for a wanted precision, with the confidence; None: none can be
    promised. `fewest` is how many judged pairs, all of them right, that would take."""

    wanted: float
    confidence: float
    threshold: float | None
    judged: int
    fewest: int

    @property
    def slide(self) -> str:
        """The first place of the slider that keeps it, in percent."""
        at = math.ceil(THOUSAND * (self.threshold or 1.0) - 1e-9) / THOUSAND
        return f"{100 * max(at, moving.LOWEST):.1f}"


def known(release: Release) -> Cases:
    """What the release can be measured with, without any text; kept for a minute."""
    key = f"cases:{release.pk}"
    found: Cases | None = cache.get(key)
    if found is None:
        found = estimating.cases(release)
        bare = [replace(label, pair=Pair("", "")) for label in found.labels]
        found = replace(found, labels=bare)
        cache.set(key, found, KEPT_SECONDS)
    return found


def foresee(*, release: Release, which: Which, threshold: float, now: datetime) -> Consequences:
    """What would come of moving it there."""
    replay, cases = replaying.last_days(release, now=now), known(release)
    at = moving.value_of(release, which)
    before, after = _counted(replay, which, at), _counted(replay, which, threshold)
    return Consequences(
        which=which,
        now=_side(cases, which, at, before, replay),
        then=_side(cases, which, threshold, after, replay),
        days=list(replay.days),
        products=list(_products(cases, which, threshold, replay, before, after)),
        languages=list(_languages(cases, which, threshold, replay, before, after)),
        effects=moving.effects(release=release, which=which, after=threshold, now=now),
        helped=_helped(replay, at, threshold) if which == Which.SUGGEST else None,
    )


def promise(*, release: Release, wanted: float, confidence: float) -> Promise:
    """The threshold that this release's verdicts can promise it with."""
    sample = known(release).sample
    return Promise(
        wanted,
        confidence,
        promised_threshold(
            sample.probabilities, sample.labels, wanted, confidence=confidence,
            shares=sample.chances,
        ),
        len(sample.labels),
        fewest_pairs(wanted, confidence),
    )  # fmt: skip


def _counted(replay: Replay, which: Which, threshold: float) -> np.ndarray:
    return replay.shown(threshold) if which == Which.SUGGEST else replay.opened(threshold)


def _applied(which: Which, threshold: float) -> float:
    """From which probability on something is seen: see `suggesting.UNFINISHED`."""
    return UNFINISHED * threshold if which == Which.SUGGEST else threshold


def _side(
    cases: Cases, which: Which, threshold: float, counted: np.ndarray, replay: Replay
) -> Side:
    return Side(
        threshold,
        cases.quality(_applied(which, threshold)),
        counted.sum(axis=1).tolist(),
        int(replay.checked.sum()),
    )


def _helped(replay: Replay, at: float, threshold: float) -> tuple[float, float] | None:
    checked = int(replay.checked.sum())
    if not checked:
        return None
    now, then = (int(replay.with_any(one).sum()) / checked for one in (at, threshold))
    return now, then


def _products(
    cases: Cases, which: Which, threshold: float, replay: Replay, before: np.ndarray,
    after: np.ndarray,
) -> Iterator[Part]:  # fmt: skip
    quality = cases.by_segment(_applied(which, threshold)).get("product", {})
    products = Product.objects.in_bulk([product for product, _ in replay.segments])
    for pk, product in sorted(products.items(), key=lambda item: item[1].name):
        chosen = np.asarray([one == pk for one, _ in replay.segments])
        yield _part(product.name, chosen, replay, before, after, quality.get(product.slug))


def _languages(
    cases: Cases, which: Which, threshold: float, replay: Replay, before: np.ndarray,
    after: np.ndarray,
) -> Iterator[Part]:  # fmt: skip
    quality = cases.by_segment(_applied(which, threshold)).get("language", {})
    for language in sorted({language for _, language in replay.segments}):
        chosen = np.asarray([one == language for _, one in replay.segments])
        yield _part(language, chosen, replay, before, after, quality.get(language))


def _part(
    name: str, chosen: np.ndarray, replay: Replay, before: np.ndarray, after: np.ndarray,
    quality: Quality | None,
) -> Part:  # fmt: skip
    checked, now, then = (
        int(counts[:, chosen].sum()) for counts in (replay.checked, before, after)
    )
    return Part(name, checked, now, then, quality.precision if quality else None)
