"""A cross-encoder that others trained -> a release: calibrated, measured, written down."""

import json
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dedup.ml.artifact import MANIFEST, hash_files, read_manifest
from dedup.ml.biencoder import BiEncoder
from dedup.ml.building import golden_pairs, thresholds
from dedup.ml.calibration import fit_calibration
from dedup.ml.card import adopted_card
from dedup.ml.clusters import CHOOSING, portal_shortlisted, shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled
from dedup.ml.measuring import Measured, Measuring, Reported

log = logging.getLogger(__name__)

ENOUGH = 100  # labels, and a fifth of them of each kind; fewer say next to nothing of a threshold
FEWEST = 20
OWN = "the labels given"
WRITTEN = "shortlists of questions written for this project, since too few labels were given"


class CheckpointRefused(Exception):
    """The checkpoint cannot become a release; the text says why."""


def adopt(
    checkpoint: str, release: Path, labels: Sequence[Labelled], out: Path, languages: list[str]
) -> dict[str, Any]:
    """Writes `checkpoint` (a folder or a hub's name) as the release folder `out`; its manifest.

    The bi-encoder is that of `release`. Calibration and thresholds come from `labels`, half each,
    where they are enough, else from shortlists of our own writing. Raises CheckpointRefused; then
    nothing is written.
    """
    with new_release(out) as folder:
        shutil.copytree(release / "bi-encoder", folder / "bi-encoder")
        cross = _write_cross_encoder(checkpoint, folder / "cross-encoder")
        raw = _described(checkpoint, release, labels, folder, cross)
        raw["languages"] = languages
        sign(folder, raw, adopted_card(raw))
    return raw


@contextmanager
def new_release(out: Path) -> Iterator[Path]:
    """A folder named as `out` to write a release into; it is put in place where nothing fails.

    Raises CheckpointRefused where there is one of this name already.
    """
    if out.exists():
        raise CheckpointRefused(f"there is a release {out.name} already")
    with TemporaryDirectory(dir=out.parent, prefix=".adding-") as made:
        folder = Path(made) / out.name
        yield folder
        folder.rename(out)


def sign(folder: Path, raw: dict[str, Any], card: str) -> None:
    """Write the card and, last, the manifest with the hash of every file."""
    (folder / "README.md").write_text(card, encoding="utf-8")
    raw["files"] = hash_files(folder)
    (folder / MANIFEST).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def _write_cross_encoder(checkpoint: str, out: Path) -> CrossEncoder:
    try:
        network = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
        network.save_pretrained(out)
        AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False).save_pretrained(out)
        return CrossEncoder(out)
    except (OSError, ValueError, FloatingPointError, KeyError, ImportError) as error:
        raise CheckpointRefused(f"{checkpoint}: {error}") from error


def _described(
    checkpoint: str, release: Path, labels: Sequence[Labelled], folder: Path, cross: CrossEncoder
) -> dict[str, Any]:
    bi = BiEncoder(folder / "bi-encoder")
    ground = Ground.of(labels, bi, cross)
    fitted = ground.fitted
    calibration = fit_calibration(fitted.logits, fitted.cosines, fitted.labels)
    reported = Reported.of(bi, cross)
    chosen = thresholds(calibration, ground.chosen_on, reported.measured)
    flag = chosen["flag"]["probability"]
    before = read_manifest(release).raw
    return {
        "name": folder.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": checkpoint,
        "licences": {"cross-encoder": f"as {checkpoint} says", "bi-encoder": before["base"]},
        "data": {},
        "recipe": {"adopted": checkpoint, "bi_encoder_of": before["name"]},
        "metrics": {
            "shortlists": Measuring(
                Path(), bi, cross, calibration, calibration.at_prior(0.5), flag
            ).shortlists(reported)
        },
        "calibration": {
            "coefficients": asdict(calibration),
            **ground.described(),
        },
        "thresholds": chosen,
        "golden": golden_pairs(bi, cross, calibration),
    }


@dataclass(frozen=True)
class Ground:
    """Pairs that a calibration is fitted on, and those that thresholds are chosen on."""

    fitted: Measured
    chosen_on: Measured
    is_own: bool  # labels of this portal

    @classmethod
    def of(cls, labels: Sequence[Labelled], bi: BiEncoder, cross: CrossEncoder) -> "Ground":
        """Half of the labels each where they are enough, else shortlists of our own writing."""
        if enough(labels):
            mixed = random.Random(1).sample(list(labels), len(labels))  # noqa: S311 - no secret
            halves = [Measured.of(half, bi, cross) for half in (mixed[::2], mixed[1::2])]
            return cls(*halves, is_own=True)
        portal = Measured.of(portal_shortlisted(bi.embed).pairs, bi, cross)
        choosing = Measured.of(shortlisted(CHOOSING, bi.embed).pairs, bi, cross)
        return cls(portal.beside(choosing), portal, is_own=False)

    def described(self) -> dict[str, Any]:
        """As a manifest says it."""
        return {
            "rows": len(self.fitted.labels),
            "on": OWN if self.is_own else WRITTEN,
            "thresholds_on": "the other half of them" if self.is_own else "the demo's portal",
        }


def enough(labels: Sequence[Labelled]) -> bool:
    """Whether labels can carry a calibration and thresholds."""
    duplicates = int(np.sum([pair.label for pair in labels]))
    return len(labels) >= ENOUGH and FEWEST <= duplicates <= len(labels) - FEWEST
