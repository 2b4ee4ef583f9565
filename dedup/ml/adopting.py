"""A cross-encoder that others trained -> a release: calibrated, measured, written down."""

import logging
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dedup.ml.artifact import read_manifest
from dedup.ml.biencoder import BiEncoder
from dedup.ml.building import golden_pairs, making, thresholds, write_down
from dedup.ml.calibration import fit_calibration
from dedup.ml.card import adopted_card
from dedup.ml.clusters import CHOOSING, portal_shortlisted, shortlisted
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled
from dedup.ml.measuring import Measured, Reported
from dedup.ml.refitting import Asked, Tell, refit

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
    if out.exists():
        raise CheckpointRefused(f"there is a release {out.name} already")
    with making(out) as folder:
        shutil.copytree(release / "bi-encoder", folder / "bi-encoder")
        cross = _write_cross_encoder(checkpoint, folder / "cross-encoder")
        raw = _described(checkpoint, release, labels, folder, cross)
        raw["languages"] = languages
        write_down(folder, raw, adopted_card(raw))
    return raw


def adopt_here(
    checkpoint: str, release: Path, judged: Sequence[Asked], hold: Sequence[Asked], out: Path,
    languages: list[str], *, wanted: Mapping[str, float], before_at: Mapping[str, float],
    progress: Tell = lambda done, total, step, left: None,
) -> dict[str, Any]:  # fmt: skip
    """The same, calibrated on what people decided on a portal's own pairs; see `refit`.

    Raises CheckpointRefused, and RefitRefused; then nothing is written.
    """
    before = read_manifest(release).raw
    about = {
        "base": checkpoint,
        "languages": languages,
        "licences": {"cross-encoder": f"as {checkpoint} says", "bi-encoder": before["base"]},
        "recipe": {"adopted": checkpoint, "bi_encoder_of": before["name"]},
    }
    return refit(
        write=partial(_write_cross_encoder, checkpoint), parent=release, tune=judged, hold=hold,
        wanted=wanted, before_at=before_at, about=about, out=out, card=adopted_card,
        is_correction=False, progress=progress,
    )  # fmt: skip


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
    is_enough = enough(labels)
    if is_enough:
        mixed = random.Random(1).sample(list(labels), len(labels))  # noqa: S311 - no secret
        fitted = Measured.of(mixed[::2], bi, cross)
        chosen_on = Measured.of(mixed[1::2], bi, cross)
    else:
        chosen_on = Measured.of(portal_shortlisted(bi.embed).pairs, bi, cross)
        fitted = chosen_on.beside(Measured.of(shortlisted(CHOOSING, bi.embed).pairs, bi, cross))
    calibration = fit_calibration(fitted.logits, fitted.cosines, fitted.labels)
    reported = Reported.of(bi, cross)
    chosen = thresholds(calibration, chosen_on, reported.measured)
    before = read_manifest(release).raw
    return {
        "name": folder.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": checkpoint,
        "licences": {"cross-encoder": f"as {checkpoint} says", "bi-encoder": before["base"]},
        "data": {},
        "recipe": {"adopted": checkpoint, "bi_encoder_of": before["name"]},
        "metrics": {"shortlists": reported.told_apart(calibration)},
        "calibration": {
            "coefficients": asdict(calibration),
            "rows": len(fitted.labels),
            "on": OWN if is_enough else WRITTEN,
            "thresholds_on": "the other half of them" if is_enough else "the demo's portal",
        },
        "thresholds": chosen,
        "golden": golden_pairs(bi, cross, calibration),
    }


def enough(labels: Sequence[Labelled]) -> bool:
    """Whether labels can carry a calibration and thresholds."""
    duplicates = int(np.sum([pair.label for pair in labels]))
    return len(labels) >= ENOUGH and FEWEST <= duplicates <= len(labels) - FEWEST
