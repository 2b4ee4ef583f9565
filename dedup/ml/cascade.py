"""Two readers: a student settles what its teacher would hardly flag (Viola and Jones 2001)."""

from collections.abc import Sequence

import numpy as np

from dedup.ml.pairs import AlignedWords, Judged, Pair, SettledBy
from dedup.ml.release import ReleaseScorer


class Cascade:
    """A release whose student reads first; see `dedup.ml.pairs.Scorer`.

    Where the student's probability lies below `floor` it stands; the teacher reads the rest. To all
    else this is the teacher.
    """

    def __init__(self, teacher: ReleaseScorer, student: ReleaseScorer, floor: float) -> None:
        self.teacher, self.student, self.floor = teacher, student, floor
        self.name, self.fingerprint = teacher.name, teacher.fingerprint
        self.embedding_fingerprint = teacher.embedding_fingerprint
        self.dimensions = teacher.dimensions

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length."""
        return self.teacher.embed(texts)

    def judge(self, pairs: Sequence[Pair], cosines: Sequence[float]) -> list[Judged]:
        """One judgement for each pair, by whom it says. Raises as `ReleaseScorer.judge` does."""
        asked = np.flatnonzero(self.teacher.calibration.hears(cosines)).tolist()
        first = self.student.judge([pairs[i] for i in asked], [cosines[i] for i in asked])
        settled = {
            i: Judged(None, said.cosine, said.probability, SettledBy.STUDENT)
            for i, said in zip(asked, first, strict=True)
            if said.probability < self.floor
        }
        rest = [i for i in range(len(pairs)) if i not in settled]
        read = self.teacher.judge([pairs[i] for i in rest], [cosines[i] for i in rest])
        found = settled | dict(zip(rest, read, strict=True))
        return [found[i] for i in range(len(pairs))]

    def align(self, pairs: Sequence[Pair]) -> list[list[AlignedWords]]:
        """Words that mean each other, for each pair, by the bi-encoder that both share."""
        return self.teacher.align(pairs)
