"""A report of made-up pairs, in the shape of a real one."""

import functools

import numpy as np

from dedup.ml import reporting
from dedup.ml.pairs import Pair
from dedup.ml.reporting import Held, Said


@functools.cache
def figures(count=240):
    """What a report of made-up pairs says; the other release knows less."""
    rng = np.random.default_rng(1)
    labels = (rng.random(count) < 0.3).astype(float)
    segments = [
        {"product": "fan" if i % 3 else "lamp", "language": "de" if i < 3 else "en",
         "length": "short", "account": "new", "asker": "guest"}
        for i in range(count)
    ]  # fmt: skip
    pairs = [Pair("a", "b")] * count
    held = Held(pairs, labels, np.ones(count), list(range(count)), segments)
    mine, other = (
        Said(name, np.clip(0.4 * labels + rng.random(count) * noise, 0, 1), 0.4)
        for name, noise in (("lamps-1", 0.6), ("lamps-0", 1.5))
    )
    speed = {
        "candidates": 50, "milliseconds_median": 140.4, "pairs_a_second": 360.0,
        "cpu_seconds_per_1000": 141.0, "processor": "A chip", "precision": "bfloat16",
    }  # fmt: skip
    own = reporting.on_own_pairs(held, mine, 0.5, other)
    return {"release": "lamps-1", "own": own, "speed": speed}
