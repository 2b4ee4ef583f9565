"""Opened releases whose networks are told what to say."""

from dedup.ml.artifact import read_manifest
from dedup.ml.calibration import Calibration
from dedup.ml.release import ReleaseScorer
from tests.fakes import FakeScorer


class Said:
    """A cross-encoder that says of each pair what its newer text has as its last word."""

    tokens_per_batch = 2_000

    def __init__(self, by=1.0):
        self.by, self.read = by, []

    def scores(self, pairs):
        self.read += pairs
        return [self.by * float(pair.newer.split()[-1]) for pair in pairs]


def reader(folder, *, by=1.0, low=0.4):
    """The release of a folder; its probability is 0.5 where both a logit and a cosine are zero."""
    calibration = Calibration(0.0, 1.0, 0.0, low=low, high=low + 0.1)
    return ReleaseScorer(read_manifest(folder), FakeScorer(), Said(by), calibration)
