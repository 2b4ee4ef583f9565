import hashlib
import random
from typing import ClassVar

import numpy as np

from dedup.ml.pairs import AlignedWords, Judged
from dedup.models import DIMENSIONS


class FakeScorer:
    """Texts are alike as far as they share words. Says it in the shapes of a real scorer."""

    name = "fake"
    fingerprint = "f" * 64
    embedding_fingerprint = "e" * 64
    dimensions = DIMENSIONS
    runs_on: ClassVar = {"threads": 1, "precision": "float32"}

    def __init__(self):
        self.judged = 0
        self.aligned = 0
        self.broken_by = None  # a text that makes it fail

    def embed(self, texts):
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            if self.broken_by and self.broken_by in text:
                raise FloatingPointError("not finite")
            for word in text.lower().split():
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSIONS] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def judge(self, pairs, cosines, *, reads_all=False):
        self.judged += len(pairs)
        return [self._judge(pair, cosine) for pair, cosine in zip(pairs, cosines, strict=True)]

    def _judge(self, pair, cosine):
        one, other = set(pair.older.lower().split()), set(pair.newer.lower().split())
        share = len(one & other) / len(one | other)
        return Judged(logit=10 * share - 5, cosine=cosine, probability=share)

    def align(self, pairs):
        self.aligned += len(pairs)
        return [self._align(pair) for pair in pairs]

    def _align(self, pair):
        older = pair.older.split()
        return [
            AlignedWords(word, 0, word, 0, 1.0)
            for word in dict.fromkeys(pair.newer.split())
            if word in older
        ]


class Dice(random.Random):
    """Chance that throws what it is told, then what comes last for ever; it chooses by a seed."""

    def __init__(self, *thrown):
        super().__init__(1)
        self.thrown = list(thrown)

    def random(self):
        return self.thrown.pop(0) if len(self.thrown) > 1 else self.thrown[0]

    def getrandbits(self, k):
        """What is chosen among rows throws no dice."""
        return super().getrandbits(k)


KNOWN, SAMPLED, CHOSEN, NEITHER = 0.0, 0.05, 0.1, 0.99  # what dice say of the next card
