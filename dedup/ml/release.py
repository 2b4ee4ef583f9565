"""Opens a release: checks its files, loads its networks, proves its golden pairs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dedup.ml.alignment import aligned
from dedup.ml.artifact import COEFFICIENTS, OPTIONAL_COEFFICIENTS, ArtifactRefused, Manifest, verify
from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.calibration import Calibration
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.pairs import AlignedWords, Judged, Pair, SettledBy

log = logging.getLogger(__name__)

GOLDEN_TOLERANCE = 1e-3


class ReleaseScorer:
    """A release in service; see `dedup.ml.pairs.Scorer`."""

    def __init__(
        self, manifest: Manifest, bi: BiEncoder, cross: CrossEncoder, calibration: Calibration
    ) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.fingerprint = manifest.fingerprint
        self.embedding_fingerprint = manifest.embedding_fingerprint
        self.dimensions = bi.dimensions
        self.bi, self.cross, self.calibration = bi, cross, calibration
        self.even = _even(manifest, calibration)

    def at_even_odds(self) -> "ReleaseScorer":
        """The same for pairs of which half are duplicates, as in labelled sets."""
        return ReleaseScorer(self.manifest, self.bi, self.cross, self.even)

    @property
    def runs_on(self) -> dict[str, Any]:
        """How many threads it may use, and in which precision it multiplies."""
        precision = str(self.cross.dtype).removeprefix("torch.")
        return {"threads": torch.get_num_threads(), "precision": precision}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length."""
        return self.bi.embed(texts)

    def judge(
        self, pairs: Sequence[Pair], cosines: Sequence[float], *, reads_all: bool = False
    ) -> list[Judged]:
        """One judgement for each pair. The cross-encoder reads those of which the calibration
        hears it, or all: the probabilities are the same.

        Raises ValueError for unequal lengths, FloatingPointError where a score is not finite.
        """
        if len(pairs) != len(cosines):
            raise ValueError(f"{len(pairs)} pairs and {len(cosines)} cosines")
        is_read = self.calibration.hears(cosines) | reads_all
        logits = np.zeros(len(pairs))
        logits[is_read] = self.cross.scores([pairs[i] for i in np.flatnonzero(is_read).tolist()])
        probabilities = self.calibration.probabilities(logits, cosines)
        return [
            Judged(logit, float(cosine), probability)
            if read
            else Judged(None, float(cosine), probability, SettledBy.COSINE)
            for read, logit, cosine, probability in zip(
                is_read, logits.tolist(), cosines, probabilities.tolist(), strict=True
            )
        ]

    def feed(self, *, tokens: int, threads: int) -> None:
        """Give the cross-encoder batches of so many tokens, on so many threads."""
        self.cross.tokens_per_batch = tokens
        torch.set_num_threads(threads)

    def align(self, pairs: Sequence[Pair]) -> list[list[AlignedWords]]:
        """Words that mean each other, for each pair; every distinct text is read once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.newer, pair.older)))
        read = dict(zip(texts, self.bi.read(texts), strict=True))
        return [aligned(read[pair.newer], read[pair.older]) for pair in pairs]


def open_release(
    folder: Path, *, threads: int | None = None, beside: ReleaseScorer | None = None
) -> ReleaseScorer:
    """Verifies, loads and proves a release. Raises ArtifactRefused.

    Where it has the same bi-encoder as one that is open, both share it.
    """
    folder = Path(folder)
    manifest = verify(folder)
    if threads:
        torch.set_num_threads(threads)
    try:
        is_shared = beside and beside.embedding_fingerprint == manifest.embedding_fingerprint
        bi = beside.bi if beside and is_shared else BiEncoder(folder / "bi-encoder")
        cross = CrossEncoder(folder / "cross-encoder")
    except Exception as error:  # whatever a loader raises, the release is not usable
        raise ArtifactRefused(f"the networks cannot be loaded: {error}") from error
    calibration = _calibration(manifest)
    scorer = ReleaseScorer(manifest, bi, cross, calibration)
    check_golden(scorer)
    log.info("release %s opened: %s on %s", scorer.name, cross.dtype, cross.device)
    return scorer


def _calibration(manifest: Manifest) -> Calibration:
    return _fitted(manifest.raw["calibration"]["coefficients"])


def _even(manifest: Manifest, calibration: Calibration) -> Calibration:
    given = manifest.raw["calibration"].get("even_odds")
    return _fitted(given) if given else calibration.at_prior(0.5)


def _fitted(given: dict[str, float]) -> Calibration:
    names = [*COEFFICIENTS, *(name for name in OPTIONAL_COEFFICIENTS if name in given)]
    try:
        return Calibration(**{name: float(given[name]) for name in names})
    except (TypeError, ValueError) as error:
        raise ArtifactRefused(f"the calibration is malformed: {error}") from error


def check_golden(scorer: ReleaseScorer) -> None:
    """Raises ArtifactRefused unless each golden pair comes out, in fp32, as written."""
    golden = scorer.manifest.raw["golden"]
    pairs = [Pair(g["older"], g["newer"]) for g in golden]
    try:
        cosines = pair_cosines(scorer.embed, pairs)
        logits = scorer.cross.reference_scores(pairs)
        probabilities = scorer.calibration.probabilities(logits, cosines)
    except FloatingPointError as error:
        raise ArtifactRefused(str(error)) from error
    found = np.stack([logits, cosines, probabilities], axis=1)
    wanted = np.asarray([[g["logit"], g["cosine"], g["probability"]] for g in golden])
    if not golden or not (np.abs(found - wanted) <= GOLDEN_TOLERANCE).all():
        raise ArtifactRefused("a golden pair does not come out as the manifest says")
