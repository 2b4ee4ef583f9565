"""Vectors of two texts' words -> the pairs of words that mean each other.

Two words are partners where each is the other's nearest (SimAlign: Jalili Sabet et al. 2020) and
is nearer to it than words usually are to their nearest few (CSLS: Conneau et al. 2018), so that a
word that is near to everything is nobody's partner.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dedup.ml.pairs import AlignedWords
from dedup.ml.words import is_plain

NEIGHBOURS = 10  # the nearest few
USUAL = 0.3  # cosine of a word and its nearest few, on average; stands for those that are missing
FLOOR = 0.19  # how much nearer than that partners are, at least
MOST = 40  # pairs of words; the surest where there are more


@dataclass(frozen=True)
class ReadText:
    """The words of a text in order, with a vector of unit length for each."""

    words: list[str]
    vectors: np.ndarray  # (n, dimensions)


def aligned(newer: ReadText, older: ReadText) -> list[AlignedWords]:
    """Pairs of words that mean each other, as the newer text has them in order.

    Words that mean nothing by themselves are nobody's partner; they still count as neighbours.
    """
    cosines = newer.vectors @ older.vectors.T
    surplus = cosines - (_usual(cosines)[:, None] + _usual(cosines.T)[None, :]) / 2
    surplus[[is_plain(word) for word in newer.words]] = -np.inf
    surplus[:, [is_plain(word) for word in older.words]] = -np.inf
    if not surplus.size:
        return []
    back = surplus.argmax(0)
    found = [
        (i, int(j))
        for i, j in enumerate(surplus.argmax(1))
        if back[j] == i and surplus[i, j] >= FLOOR
    ]
    surest = sorted(found, key=lambda at: -surplus[at])[:MOST]
    ours, theirs = _places(newer.words), _places(older.words)
    return [
        AlignedWords(newer.words[i], ours[i], older.words[j], theirs[j], float(cosines[i, j]))
        for i, j in sorted(surest)
    ]


def _usual(cosines: np.ndarray) -> np.ndarray:
    """Mean of each row's largest few, as if it had at least so many."""
    nearest = -np.sort(-cosines, axis=1)[:, :NEIGHBOURS]
    missing = NEIGHBOURS - nearest.shape[1]
    return (nearest.sum(1) + missing * USUAL) / NEIGHBOURS


def _places(words: Sequence[str]) -> list[int]:
    """For each word, how often the same one stands before it."""
    seen: Counter[str] = Counter()
    places = []
    for word in words:
        places.append(seen[word])
        seen[word] += 1
    return places
