"""Probabilities + threshold -> what to flag, and what to ask blindly. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from dedup.ml.pairs import SettledBy
from dedup.texts import Text

LEAST = 0.001  # pairs of a lower probability are asked about as often as those of this one


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with what the release said of the pair."""

    question_id: int
    root_id: int  # the live question that stands for it
    text_hash: str
    logit: float | None
    cosine: float
    probability: float
    settled_by: SettledBy = SettledBy.CROSS_ENCODER


def decide(
    scored: Sequence[ScoredCandidate], *, threshold: float, limit: int
) -> list[ScoredCandidate]:
    """Return up to `limit` to flag: at least `threshold`, likeliest first, one for each thread."""
    likely = sorted(
        (candidate for candidate in scored if candidate.probability >= threshold),
        key=lambda candidate: (-candidate.probability, candidate.question_id),
    )
    first_of_thread: dict[int, ScoredCandidate] = {}
    for candidate in likely:
        first_of_thread.setdefault(candidate.root_id, candidate)
    return list(first_of_thread.values())[:limit]


@dataclass(frozen=True)
class Sampled:
    """A pair from below the threshold that is asked about all the same."""

    candidate: ScoredCandidate
    share: float  # how probable it was that it is asked about


def sample(
    scored: Sequence[ScoredCandidate],
    *,
    threshold: float,
    per_question: float,
    draw: Callable[[ScoredCandidate], float],
) -> list[Sampled]:
    """Return pairs below `threshold` to ask about, on average at most `per_question` of them.

    One for each thread, its likeliest, and none of a thread of which one is at the threshold.
    Poisson sampling with permanent random numbers (Ohlsson 1995, "Coordination of samples using
    permanent random numbers"): a pair is asked where `draw`, in [0, 1) and for one pair always the
    same, lies below its share. So a second check draws the same pairs, and a later release mostly
    those that people have judged. Each share is as the root of the probability: of all shares with
    one sum, these estimate the number of duplicates (one / share for each found) most exactly.
    """
    likeliest: dict[int, ScoredCandidate] = {}
    for one in sorted(scored, key=lambda one: (-one.probability, one.question_id)):
        likeliest.setdefault(one.root_id, one)
    below = [one for one in likeliest.values() if one.probability < threshold]
    weights = [math.sqrt(max(one.probability, LEAST)) for one in below]
    each = per_question / math.fsum(weights) if weights else 0.0
    shares = [min(1.0, each * weight) for weight in weights]
    return [
        Sampled(one, share) for one, share in zip(below, shares, strict=True) if draw(one) < share
    ]


def permanent_number(one: Text, other: Text) -> float:
    """The pair's own number in [0, 1): in either order the same, until one of the texts changes."""
    ends = sorted(f"{text.question_id}:{text.hash}" for text in (one, other))
    digest = sha256(" ".join(ends).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53
