"""Title-and-body pairs out of labelled titles, so that a portal's lengths are not strange."""

import random
from collections.abc import Sequence

from dedup.ml.data import Labelled
from dedup.ml.nearmisses import make_near_miss, make_positive

KINDS, WEIGHTS = ("same", "near_miss", "easy", "other"), (4, 4, 1, 2)


def compose(kept: Sequence[Labelled], count: int, rng: random.Random) -> list[Labelled]:
    """`count` pairs of two sentences each: a title and, as its body, another question.

    same: title and body both in other words, 1. near_miss: the title changed by a rule and the
    body in other words, 0. easy: one title, the body in other words, 1. other: a labelled
    negative as title and one body in other words, 0.
    """
    same = [row for row in kept if row.label == 1.0]
    other = [row for row in kept if row.label == 0.0]
    made: list[Labelled] = []
    while len(made) < count:
        kind = rng.choices(KINDS, WEIGHTS)[0]
        title, body = rng.choice(other if kind == "other" else same), rng.choice(same)
        second = _second_title(kind, title, rng)
        if second is not None:
            made.append(
                Labelled(
                    f"{title.first} {body.first}",
                    f"{second} {body.second}",
                    1.0 if kind in {"same", "easy"} else 0.0,
                )
            )
    return made


def _second_title(kind: str, title: Labelled, rng: random.Random) -> str | None:
    if kind == "near_miss":
        return make_near_miss(title.first, rng)
    return make_positive(title.first, rng) if kind == "easy" else title.second
