"""Lowest probability that keeps a wanted precision: promised with a stated confidence."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from dedup.ml.pairs import Values

# Of the fewest pairs that can carry a promise: where a chain of tests begins. Chosen by measured
# power, `bench promise`.
STARTS = (1.0, 2.0, 4.0, 8.0)
GROWTH = 1.1  # each test speaks of a tenth more pairs than the one before
BOLDEST = 0.99  # of the largest bet that cannot lose everything
SEED = 17


@dataclass(frozen=True)
class Threshold:
    """A probability, what was wanted of it and what was measured there.

    `low` to `high` is the exact 95 % interval of the precision; `prior` the share of duplicates
    among the measured pairs, `flagged` how many of them reach the probability.
    """

    probability: float
    wanted_precision: float
    precision: float
    low: float
    high: float
    recall: float
    flagged: int
    prior: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def clopper_pearson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a share (Clopper and Pearson 1934); (0, 1) for no rows."""
    if total == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if right == 0 else _solve(lambda p: 1 - _below(right - 1, total, p) - tail)
    high = 1.0 if right == total else _solve(lambda p: tail - _below(right, total, p))
    return low, high


def promised_threshold(
    probabilities: Values, labels: Values, wanted: float, *, confidence: float = 0.95,
    shares: Values | None = None,
) -> float | None:  # fmt: skip
    """Lowest probability such that, with `confidence`, the precision of all pairs at or above it,
    seen or not, is at least `wanted`; None where nothing can be promised.

    `shares` says how probable it was that each of these pairs is asked about; the smallest of a
    test is taken for the smallest that there can be.

    Learn-then-Test (Angelopoulos, Bates, Candès, Jordan and Lei 2021): sets of pairs, from the
    likeliest on, each of a tenth more than the one before, are tested in this order until one
    fails, so that no correction for their number is needed. The sets are fixed by their sizes, no
    label is looked at. A chain that begins with few pairs may end by bad luck, so there are some,
    which share the error; one that reaches the start of the next hands its part on (fallback
    procedure: Wiens and Dmitrienko 2005). Holds in finite samples where precision does not rise as
    the threshold falls; near misses at the very top that break this cost next to nothing.
    """
    p, right = np.asarray(probabilities, float), np.asarray(labels) > 0.5
    asked = np.ones(len(p)) if shares is None else np.asarray(shares, float)
    mixed = np.random.default_rng(SEED).permutation(len(p))  # no order of rows is to be exploited
    order = mixed[np.argsort(-p[mixed], kind="stable")]
    p, right, asked = p[order], right[order], asked[order]
    fewest = fewest_pairs(wanted, confidence)
    starts = [math.ceil(times * fewest) for times in STARTS]
    part, level, found = (1 - confidence) / len(STARTS), 0.0, None
    for end in _ends(p, fewest):
        while starts and starts[0] <= end:
            level += part
            starts.pop(0)
        if level and _is_shown(right[:end], asked[:end], wanted, level):
            found = float(p[end - 1])
        else:
            level = 0.0
    return found


def fewest_pairs(wanted: float, confidence: float = 0.95) -> int:
    """How many pairs, all of them right, it takes to promise this precision.

    Raises ValueError unless both are between 0 and 1.
    """
    if not (0 < wanted < 1 and 0 < confidence < 1):
        raise ValueError(f"{wanted} and {confidence} are not both between 0 and 1")
    return math.ceil(math.log(1 - confidence) / math.log(wanted))


def _ends(p: np.ndarray, fewest: int) -> Iterator[int]:
    """Sizes of the sets to test, of probabilities in falling order: none parts what is tied."""
    end, size = 0, float(fewest)
    while end < len(p) and size <= len(p):
        end = int(np.searchsorted(-p, -p[math.ceil(size) - 1], side="right"))
        yield end
        size = max(size * GROWTH, end + 1.0)
    if fewest <= len(p) and end < len(p):
        yield len(p)


def _is_shown(right: np.ndarray, shares: np.ndarray, wanted: float, level: float) -> bool:
    """Whether pairs of this precision or a lower one look like this with at most `level`."""
    if (shares == shares[0]).all():
        return 1 - _below(int(right.sum()) - 1, len(right), wanted) <= level
    weights = shares.min() / shares
    payoffs = weights * (right - wanted)
    mixed = np.random.default_rng(SEED).permutation(len(payoffs))
    return wins(payoffs[mixed].tolist(), least=-wanted, level=level)


def wins(payoffs: Sequence[float], *, least: float, level: float) -> bool:
    """Whether betting on payoffs, none below `least`, multiplies what is staked by 1 / level.

    Where they have no positive mean that happens with a chance of `level` at most, whatever is
    staked on each before it is seen (Ville 1939; Waudby-Smith and Ramdas 2024). What is staked aims
    at the goal by the last payoff, as a normal test would: with the part of the goal that is
    reached, the payoffs that are left and how they varied so far, the bet is the one under which
    the wealth follows the chance of reaching it (target recalculating bets: Voráček and Orabona
    2025). So nearly as much is shown as by a test that knew their distribution.
    """
    normal, boldest = NormalDist(), BOLDEST / -least
    wealth, squares = level, least * least / 4  # as part of the goal; as of a payoff seen before
    for seen, payoff in enumerate(payoffs):
        if wealth >= 1:
            return True
        if wealth < 1e-12:
            return False
        deviation = math.sqrt(squares / (seen + 1) * (len(payoffs) - seen))
        bet = normal.pdf(normal.inv_cdf(wealth)) / (wealth * deviation)
        wealth *= 1 + min(bet, boldest) * payoff
        squares += payoff * payoff
    return wealth >= 1


def choose_threshold(probabilities: Values, labels: Values, wanted: float) -> float | None:
    """Lowest probability at and above which the interval of these very rows reaches `wanted`.

    The luckiest of many looks: of other rows it promises less than it seems to (`bench promise`
    says how often). The thresholds of the release that ships were chosen so; a new one's are
    promised.
    """
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    sorted_p, right = np.asarray(probabilities)[order], np.cumsum(np.asarray(labels)[order])
    for last in range(len(order) - 1, -1, -1):
        is_tied = last + 1 < len(order) and sorted_p[last + 1] == sorted_p[last]
        if is_tied or right[last] / (last + 1) < wanted:
            continue
        if 1 - _below(int(right[last]) - 1, last + 1, wanted) <= 0.025:  # as clopper_pearson
            return float(sorted_p[last])
    return None


def measure(probability: float, wanted: float, probabilities: Values, labels: Values) -> Threshold:
    """What a threshold does on labelled pairs that it was not chosen on."""
    found, duplicates = np.asarray(probabilities) >= probability, np.asarray(labels) > 0.5
    right, total = int((found & duplicates).sum()), int(found.sum())
    low, high = clopper_pearson(right, total)
    return Threshold(
        probability=probability,
        wanted_precision=wanted,
        precision=right / max(1, total),
        low=low,
        high=high,
        recall=float(right / max(1, duplicates.sum())),
        flagged=total,
        prior=float(duplicates.mean()),
    )


def _below(right: int, total: int, p: float) -> float:
    """P(X <= right) for a binomial; summed in logs so that large totals work."""
    if right < 0:
        return 0.0
    if p <= 0 or right >= total:
        return 1.0
    if p >= 1:
        return 0.0
    k = np.arange(0, right + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    ways = factorials[total] - factorials[k] - factorials[total - k]
    terms = ways + k * math.log(p) + (total - k) * math.log1p(-p)
    top = terms.max()
    return float(min(1.0, math.exp(top) * np.exp(terms - top).sum()))


def _solve(rising) -> float:  # type: ignore[no-untyped-def]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
