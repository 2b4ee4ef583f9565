"""Probabilities + threshold -> what to flag. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with what the release said of the pair."""

    question_id: int
    root_id: int  # the live question that stands for it
    text_hash: str
    logit: float
    cosine: float
    probability: float


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
