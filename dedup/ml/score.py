"""Scores pairs from standard input by a release's own code.

python -m dedup.ml.score FOLDER < pairs.jsonl   (q1, q2, and body1, body2 if given)
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from dedup.ml.biencoder import pair_cosines
from dedup.ml.pairs import Pair
from dedup.ml.release import ReleaseScorer, open_release
from dedup.ml.text import model_input

ROWS_PER_BATCH = 512


def score_lines(scorer: ReleaseScorer, lines: Iterable[str]) -> Iterator[str]:
    """One JSON line with logit, cosine and probability for each line given."""
    waiting = (json.loads(line) for line in lines if line.strip())
    while chosen := list(islice(waiting, ROWS_PER_BATCH)):
        pairs = [
            Pair(
                model_input(row["q1"], row.get("body1") or ""),
                model_input(row["q2"], row.get("body2") or ""),
            )
            for row in chosen
        ]
        for judged in scorer.judge(pairs, list(pair_cosines(scorer.embed, pairs))):
            yield json.dumps(judged.__dict__)


def main() -> None:
    """Command line; progress on standard error."""
    scorer = open_release(Path(sys.argv[1]))
    for done, line in enumerate(score_lines(scorer, sys.stdin), 1):
        sys.stdout.write(line + "\n")
        if done % 1000 == 0:
            sys.stderr.write(f"{done} pairs\n")


if __name__ == "__main__":
    main()
