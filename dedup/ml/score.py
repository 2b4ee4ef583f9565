"""Scores pairs from standard input by a release's own code.

    python -m dedup.ml.score FOLDER < pairs.jsonl > scores.jsonl

Each line has `q1` and `q2`, and `body1` and `body2` where there are bodies; each gives a line with
`logit`, `cosine` and `probability`, in order. A line that cannot be read stops it with its number
and exit status 2; what was written before it stands.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dedup.ml.artifact import ArtifactRefused
from dedup.ml.biencoder import pair_cosines
from dedup.ml.pairs import Pair
from dedup.ml.release import ReleaseScorer, open_release
from dedup.ml.text import model_input

ROWS_PER_BATCH = 2_048
KEPT_VECTORS = 200_000  # 0.3 GB


class BadLine(ValueError):
    """A line that is no pair; the text says which and why."""


class Remembered:
    """Embeds each text once, as long as it is remembered."""

    def __init__(self, scorer: ReleaseScorer) -> None:
        self.scorer = scorer
        self.known: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As the release does: (n, dimensions) float32, unit length."""
        if len(self.known) > KEPT_VECTORS:
            self.known.clear()
        missing = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(missing, self.scorer.embed(missing), strict=True))
        return np.stack([self.known[text] for text in texts])


def score_lines(scorer: ReleaseScorer, lines: Iterable[str]) -> Iterator[str]:
    """One JSON line with logit, cosine and probability for each line given.

    Raises BadLine; all lines before it are given first.
    """
    remembered = Remembered(scorer)
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chosen := list(islice(numbered, ROWS_PER_BATCH)):
        pairs: list[Pair] = []
        bad = None
        for number, line in chosen:
            try:
                pairs.append(read_pair(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                bad = BadLine(f"line {number}: {type(error).__name__}: {error}")
                break
        if pairs:
            cosines = list(pair_cosines(remembered.embed, pairs))
            for said in scorer.judge(pairs, cosines, reads_all=True):
                row = {"logit": said.logit, "cosine": said.cosine, "probability": said.probability}
                yield json.dumps(row)
        if bad:
            raise bad


def read_pair(line: str) -> Pair:
    """Raises ValueError, TypeError, KeyError or AttributeError where the line is no pair."""
    row = json.loads(line)
    return Pair(
        model_input(row["q1"], row.get("body1") or ""),
        model_input(row["q2"], row.get("body2") or ""),
    )


def main() -> int:
    """Command line; progress on standard error. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a release's folder")
    parser.add_argument(
        "--even-odds", action="store_true",
        help="probabilities for pairs of which half are duplicates, not for shortlisted ones",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    begun, done = time.monotonic(), 0
    try:
        scorer = open_release(given.folder, threads=given.threads)
        scorer = scorer.at_even_odds() if given.even_odds else scorer
        for done, line in enumerate(score_lines(scorer, sys.stdin), 1):
            sys.stdout.write(line + "\n")
            if done % ROWS_PER_BATCH == 0:
                rate = done / (time.monotonic() - begun)
                sys.stderr.write(f"{done} pairs, {rate:.0f} a second\n")
    except (ArtifactRefused, BadLine) as error:
        sys.stdout.flush()
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write(f"{done} pairs in {time.monotonic() - begun:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
