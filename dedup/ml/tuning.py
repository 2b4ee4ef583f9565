"""How the cross-encoder is fed quickest on this machine: tokens in a batch, threads.

Each way is timed right beside the usual one, on made-up texts, so that whatever else the machine
does slows both alike. The usual way is left only for one that was quicker each time.
"""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from dedup.ml.packing import TOKENS_PER_BATCH
from dedup.ml.pairs import Pair
from dedup.ml.release import ReleaseScorer

BUDGETS = (500, 1_000, 2_000, 4_000)  # tokens of a batch
ROUNDS = 2
MARGIN = 0.05  # quicker by less than this is noise
SHORT, LONG = (40, 9), (16, 50)  # pairs, and words of each of their texts
WORDS = """the printer prints no page since an update how can we change our account mail address
when does it close why is this invoice twice where do I find my order again and what was paid"""


@dataclass(frozen=True)
class Way:
    """Tokens in a batch, and threads."""

    tokens: int
    threads: int


@dataclass
class Trial:
    """Ways that are timed, one step at a time; `threads` is the most that may be used."""

    threads: int
    ratios: dict[Way, list[float]] = field(default_factory=dict)

    @property
    def usual(self) -> Way:
        return Way(TOKENS_PER_BATCH, self.threads)

    @property
    def ways(self) -> list[Way]:
        """All but the usual one."""
        fewer = [2**n for n in range(self.threads.bit_length()) if 2**n < self.threads]
        ways = [Way(tokens, self.threads) for tokens in BUDGETS]
        ways += [Way(TOKENS_PER_BATCH, threads) for threads in fewer]
        return [way for way in ways if way != self.usual]

    @property
    def is_done(self) -> bool:
        return all(len(self.ratios.get(way, [])) >= ROUNDS for way in self.ways)

    def step(self, scorer: ReleaseScorer) -> None:
        """Time the next way beside the usual one, about a second; leaves the scorer at that."""
        way = min(self.ways, key=lambda way: len(self.ratios.get(way, [])))
        tried = self.ratios.setdefault(way, [])
        order = [way, self.usual] if len(tried) % 2 else [self.usual, way]
        spent = {each: seconds(scorer, each) for each in order}
        scorer.feed(tokens=self.usual.tokens, threads=self.usual.threads)
        tried.append(spent[way] / spent[self.usual])

    def best(self) -> tuple[Way, float]:
        """The way that is left at, and how long it takes beside the usual one, which is 1."""
        sure = {
            way: statistics.mean(tried)
            for way, tried in self.ratios.items()
            if len(tried) >= ROUNDS and max(tried) <= 1 - MARGIN
        }
        way = min(sure, key=lambda way: sure[way], default=self.usual)
        return way, sure.get(way, 1.0)


def seconds(scorer: ReleaseScorer, way: Way) -> float:
    """What a shortlist of short and one of long texts take; mean of both logarithms."""
    scorer.feed(tokens=way.tokens, threads=way.threads)
    spent = []
    for pairs in made_up():
        begun = time.perf_counter()
        scorer.cross.scores(pairs)
        spent.append(time.perf_counter() - begun)
    return statistics.geometric_mean(spent)


def made_up() -> Iterator[list[Pair]]:
    """One question beside others, short and long; always the same."""
    rng = random.Random(1)  # noqa: S311 - no secret
    for count, length in (SHORT, LONG):
        texts = [
            " ".join(rng.choices(WORDS.split(), k=rng.randint(length // 2, 3 * length // 2)))
            for _ in range(count + 1)
        ]
        yield [Pair(texts[0], other) for other in texts[1:]]
