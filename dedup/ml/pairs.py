"""What the rest of the pipeline knows of a scorer: values in, values out."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Values = Sequence[float] | np.ndarray  # (n,) numbers, one for each pair


@dataclass(frozen=True)
class Pair:
    """Two model inputs, the older question's first."""

    older: str
    newer: str


class SettledBy(enum.StrEnum):
    """Who a probability is from.

    The release's cross-encoder; a smaller one, which would have been followed by it had the two
    texts been likelier one; or the cosine alone, where no logit can matter.
    """

    CROSS_ENCODER = "cross-encoder"
    STUDENT = "student"
    COSINE = "cosine"


@dataclass(frozen=True)
class Judged:
    """Raw score of the cross-encoder, None where it did not read the pair; cosine of the
    embeddings, calibrated probability, and who that is from."""

    logit: float | None
    cosine: float
    probability: float
    settled_by: SettledBy = SettledBy.CROSS_ENCODER


@dataclass(frozen=True)
class AlignedWords:
    """A word of each of two texts that means the other, as it stands there.

    A place is how often the same word stands before it in its text.
    """

    newer: str
    newer_place: int
    older: str
    older_place: int
    cosine: float


class Scorer(Protocol):
    """A release in service."""

    name: str
    fingerprint: str
    embedding_fingerprint: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length."""
        ...

    def judge(self, pairs: Sequence[Pair], cosines: Sequence[float]) -> list[Judged]:
        """One judgement for each pair, in order; the order inside a pair does not matter."""
        ...

    def align(self, pairs: Sequence[Pair]) -> list[list[AlignedWords]]:
        """Words that mean each other, for each pair, as its newer text has them in order."""
        ...
