"""Which pairs to ask about so that a network learns most: uncertain ones, unlike each other and
unlike what is labelled already. Imports without torch.

One after the other that pair is taken whose worth times its distance to the nearest pair that is
labelled or taken (greedy k-centre: Sener and Savarese 2018) is largest; its worth is the entropy of
its probability (uncertainty sampling: Lewis and Gale 1994), or what the caller makes of it. Neither
alone will do: the most uncertain pairs are often alike, and the farthest ones clear (Ash et al.
2020).
"""

from collections.abc import Hashable, Sequence

import numpy as np

from dedup.ml.pairs import Values


def pair_points(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, 2 * dimensions) pairs as points of unit length, out of the vectors of their texts: what
    both are about, and how they differ, in either order the same (as in Sentence-BERT: Reimers and
    Gurevych 2019)."""
    points = np.concatenate([(ones + others) / 2, np.abs(ones - others)], axis=1)
    return np.asarray(points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9))


def entropy(probabilities: Values) -> np.ndarray:
    """(n,) of each answer in bits: 1 where nobody knows, 0 where it is clear."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def pick(
    points: np.ndarray,
    worth: Values,
    known: np.ndarray,
    count: int,
    ends: Sequence[tuple[Hashable, Hashable]],
) -> list[int]:
    """Row numbers of at most `count` pairs, what teaches most first, no question (`ends`) twice.

    `known` are the points of pairs that are labelled.
    """
    if not len(points):
        return []
    left, nearest = np.array(worth, np.float64), distances(points, known)
    rows_of: dict[Hashable, list[int]] = {}
    for row, both in enumerate(ends):
        for end in both:
            rows_of.setdefault(end, []).append(row)
    chosen: list[int] = []
    while len(chosen) < count and (gain := left * nearest).max() > 0:
        row = int(gain.argmax())
        chosen.append(row)
        nearest = np.minimum(nearest, distances(points, points[[row]]))
        left[[taken for end in ends[row] for taken in rows_of[end]]] = 0
    return chosen


def distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) how far each point lies from the nearest of the others; 2 where there are none."""
    if not len(others):
        return np.full(len(points), 2.0)
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * (points @ others.T).max(axis=1))))
