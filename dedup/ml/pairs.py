"""What the rest of the pipeline knows of a scorer: values in, values out."""

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


@dataclass(frozen=True)
class Judged:
    """Raw score of the cross-encoder, cosine of the embeddings, calibrated probability."""

    logit: float
    cosine: float
    probability: float


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
