"""A network that learned from people's labels -> a release.

It is calibrated on labels that it did not learn from, and measured on others again. Pairs were
asked about with unlike chances: all that were flagged, few of those below the threshold. Each label
stands for as many pairs as its share says, so that probabilities speak of the portal's own pairs,
most of which are no duplicates (inverse probability weighting: Horvitz and Thompson 1952).
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertForSequenceClassification

from dedup.ml.building import WANTED, golden_pairs, making, pictures, save_tokenizer, write_down
from dedup.ml.calibration import ENOUGH, Calibration, fit_calibration, trust
from dedup.ml.calibration import enough as are_enough
from dedup.ml.card import refitted_card
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.data import Labelled
from dedup.ml.estimation import wilson
from dedup.ml.evaluation import average_precision, effective_rows, precision, recall
from dedup.ml.measuring import Measured, Reported
from dedup.ml.release import ReleaseScorer, open_release
from dedup.ml.thresholds import promised_threshold

HALVED = 2 * ENOUGH  # from so many on, thresholds are chosen on labels that calibrated nothing
CONFIDENCE = 0.95
SEED = 17
EVERYWHERE = (Calibration.low, Calibration.high)
PROMISED, AS_BEFORE = "promised", "as before"

Tell = Callable[[int, int, str, float | None], None]  # done, total, step in words, seconds left


class RefitRefused(Exception):
    """No release can be made of it; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Asked:
    """A pair that people judged: with what chance it was asked about, how much its label counts."""

    first: str
    second: str
    label: float
    share: float = 1.0
    weight: float = 1.0

    @property
    def stands_for(self) -> float:
        """For how many pairs."""
        return self.weight / self.share


@dataclass(frozen=True)
class Judged:
    """Labelled pairs, read by two networks: the new one and the one before it."""

    rows: tuple[Asked, ...]
    new: Measured
    before: np.ndarray  # (n,) probabilities of the release before

    @classmethod
    def of(cls, rows: Sequence[Asked], cross: CrossEncoder, parent: ReleaseScorer) -> "Judged":
        """Runs both over the rows."""
        labelled = [Labelled(row.first, row.second, row.label) for row in rows]
        new = Measured.of(labelled, parent.bi, cross)
        logits = parent.cross.scores(new.pairs) if rows else np.zeros(0)
        return cls(tuple(rows), new, parent.calibration.probabilities(logits, new.cosines))

    def part(self, chosen: Sequence[int]) -> "Judged":
        """Some of the rows."""
        m, at = self.new, list(chosen)
        part = Measured([m.pairs[i] for i in at], m.logits[at], m.cosines[at], m.labels[at])
        return Judged(tuple(self.rows[i] for i in at), part, self.before[at])

    @property
    def stands_for(self) -> np.ndarray:
        """(n,) for how many pairs each row stands."""
        return np.asarray([row.stands_for for row in self.rows])

    @property
    def has_sampled(self) -> bool:
        """Whether pairs below the threshold were asked about too."""
        return any(row.share < 1 for row in self.rows)


def enough(rows: Sequence[Asked]) -> bool:
    """Whether labels can carry a calibration."""
    return are_enough([row.label for row in rows])


def can_go_on(release: Path) -> bool:
    """Whether the cross-encoder of a release is a network as ours, which training can go on from:
    a BERT that reads the same tokens as the bi-encoder."""

    def read(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((release / name).read_text(encoding="utf-8"))
        return found

    if read("cross-encoder/config.json").get("model_type") != "bert":
        return False
    one, other = (read(f"{part}-encoder/tokenizer.json") for part in ("bi", "cross"))
    return bool(one["model"] == other["model"])


def refit(
    *,
    write: Callable[[Path], CrossEncoder],
    parent: Path,
    tune: Sequence[Asked],
    hold: Sequence[Asked],
    wanted: Mapping[str, float],
    before_at: Mapping[str, float],
    about: Mapping[str, Any],
    out: Path,
    card: Callable[[dict[str, Any]], str] = refitted_card,
    is_correction: bool = True,
    progress: Tell = lambda done, total, step, left: None,
) -> dict[str, Any]:
    """Writes the release folder `out` with the cross-encoder that `write` writes; its manifest.

    Bi-encoder and languages are those of `parent`, the release that it came from, and so are the
    cosines from which on the logit counts, where it `is_correction` of them. `wanted` are
    precisions by threshold, `before_at` the thresholds in service; `about` is written into the
    manifest. Raises RefitRefused, and writes nothing, where labels are too few or what was learned
    tells nothing on labels that it was not learned from; ArtifactRefused where `parent` is not
    whole.
    """
    if not enough(tune):
        raise RefitRefused("too_few")
    if out.exists():
        raise RefitRefused("name_taken")
    before = open_release(parent)
    with making(out) as folder:
        shutil.copytree(parent / "bi-encoder", folder / "bi-encoder")
        cross = write(folder / "cross-encoder")
        progress(0, 0, "calibrating", None)
        judged, held = Judged.of(tune, cross, before), Judged.of(hold, cross, before)
        fitted, chosen_on = halves(judged)
        calibration = calibrate(fitted, before.calibration if is_correction else None)
        chosen = thresholds(calibration, chosen_on, held, before_at, wanted)
        progress(0, 0, "measuring on other texts", None)
        others = Reported.of(before.bi, cross)
        raw = {
            **_inherited(before),
            "name": folder.name,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": {
                "shortlists": {
                    **others.told_apart(calibration),
                    "before": before.manifest.raw["metrics"].get("shortlists", {}).get("release"),
                },
                "portal": on_labels(calibration, held),
            },
            "calibration": _fit(calibration, fitted, judged),
            "thresholds": chosen,
            "golden": golden_pairs(before.bi, cross, calibration),
            **about,
        }
        drawn = pictures(calibration, held.new, "on held labels")
        write_down(folder, raw, card(raw), drawn)
    return raw


def halves(tune: Judged) -> tuple[Judged, Judged]:
    """What is calibrated on and what thresholds are chosen on: the same where labels are few.

    Each half has about as many of each kind and of each share; which, chance says once for all.
    """
    rows = tune.rows
    if len(rows) < HALVED:
        return tune, tune
    chance = np.random.default_rng(SEED).random(len(rows))
    order = sorted(range(len(rows)), key=lambda i: (rows[i].label, rows[i].share, chance[i]))
    return tune.part(order[::2]), tune.part(order[1::2])


def _inherited(before: ReleaseScorer) -> dict[str, Any]:
    raw = before.manifest.raw
    return {
        "base": raw["base"],
        "languages": raw["languages"],
        "licences": {**raw["licences"], "labels": "verdicts on this portal's own questions"},
        "data": {},
    }


def _fit(calibration: Calibration, fitted: Judged, tune: Judged) -> dict[str, Any]:
    is_halved = len(fitted.rows) < len(tune.rows)
    return {
        "coefficients": asdict(calibration),
        "rows": len(fitted.rows),
        "stands_for": float(fitted.stands_for.sum()),
        "is_of_flagged_alone": not tune.has_sampled,
        "on": "verdicts of this portal that it did not learn from",
        "thresholds_on": "other such verdicts" if is_halved else "the same verdicts",
    }


def write_trained(trained: Path, out: Path) -> CrossEncoder:
    """The network as it was trained, in fp16."""
    network = BertForSequenceClassification.from_pretrained(trained, dtype=torch.float32)
    network.half().save_pretrained(out)
    save_tokenizer(trained, out)
    return CrossEncoder(out)


def calibrate(fitted: Judged, before: Calibration | None) -> Calibration:
    """Fitted where each label stands for its pairs; the logit counts from the same cosines on as
    in the calibration before, or everywhere. Raises RefitRefused where the logit tells nothing, or
    the wrong way."""
    low, high = (before.low, before.high) if before else EVERYWHERE
    heard = trust(fitted.new.cosines, low, high) * fitted.new.logits
    found = fit_calibration(heard, fitted.new.cosines, fitted.new.labels, weights=fitted.stands_for)
    if found.by_logit <= 0:
        raise RefitRefused("tells_nothing")
    return replace(found, low=low, high=high)


def thresholds(
    calibration: Calibration,
    chosen_on: Judged,
    hold: Judged,
    before: Mapping[str, float],
    wanted: Mapping[str, float],
) -> dict[str, Any]:
    """For each threshold the lowest probability that promises its precision, else the one that is
    as precise, by what is expected, as the threshold of the release before."""
    p, p_hold = (judged.new.probabilities(calibration) for judged in (chosen_on, hold))
    at = {name: _chosen(name, p, chosen_on, before, wanted) for name in WANTED}
    flag = at["flag"][0]
    at["suggest"] = (min(at["suggest"][0], flag), at["suggest"][1])
    at["sure"] = (max(at["sure"][0], flag), at["sure"][1])
    return {
        name: {
            "probability": probability,
            "basis": basis,
            "confidence": CONFIDENCE,
            "chosen": measured_at(probability, wanted[name], p, chosen_on),
            "held": measured_at(probability, wanted[name], p_hold, hold),
        }
        for name, (probability, basis) in at.items()
    }


def _chosen(
    name: str, p: np.ndarray, judged: Judged, before: Mapping[str, float],
    wanted: Mapping[str, float],
) -> tuple[float, str]:  # fmt: skip
    # Of pairs that the release before did not flag nothing is known where none was asked about.
    promised = promise(p, judged, wanted[name]) if judged.has_sampled else None
    if promised is not None:
        return promised, PROMISED
    return as_precise(p, judged.before, before[name], judged.stands_for), AS_BEFORE


def promise(p: np.ndarray, judged: Judged, wanted: float) -> float | None:
    """The lowest probability that keeps the wanted precision with `CONFIDENCE`; None if none."""
    shares = [row.share for row in judged.rows]
    return promised_threshold(p, judged.new.labels, wanted, confidence=CONFIDENCE, shares=shares)


def as_precise(
    new: np.ndarray, before: np.ndarray, threshold: float, stands_for: np.ndarray
) -> float:
    """The lowest of the new probabilities at and above which the mean of them is what it is for the
    pairs that the release before had at or above its `threshold`.

    One ruler for both: the new probabilities. Where it had none there, its threshold stays.
    """
    above = before >= threshold
    if not above.any():
        return float(threshold)
    expected = np.average(new[above], weights=stands_for[above])
    order = np.argsort(-new, kind="stable")
    counted = stands_for[order]
    running = np.cumsum(new[order] * counted) / np.cumsum(counted)
    last = int(np.flatnonzero(running >= expected - 1e-12)[-1])
    return float(np.clip(new[order][last], 1e-6, 1.0))


def measured_at(
    probability: float, wanted: float, p: np.ndarray, judged: Judged
) -> dict[str, float]:
    """What a threshold does on labelled pairs, each counted as often as it stands for pairs."""
    counted, labels = judged.stands_for, judged.new.labels
    found = p >= probability
    right = precision(p, labels, counted, at=probability)
    low, high = wilson(right, effective_rows(counted[found]))
    return {
        "probability": probability, "wanted_precision": wanted, "precision": right, "low": low,
        "high": high, "recall": recall(p, labels, counted, at=probability),
        "flagged": int(found.sum()),
        "prior": float(np.average(labels, weights=counted)) if len(labels) else 0.0,
    }  # fmt: skip


def on_labels(calibration: Calibration, hold: Judged) -> dict[str, Any]:
    """How well the new release, the one before and the cosine alone tell the held labels apart."""
    new, labels, counted = hold.new.probabilities(calibration), hold.new.labels, hold.stands_for
    return {
        "rows": len(hold.rows),
        "duplicates": int(labels.sum()),
        "metric": "AP",
        "release": average_precision(new, labels, counted),
        "before": average_precision(hold.before, labels, counted),
        "cosine": average_precision(hold.new.cosines, labels, counted),
        "log_loss": _log_loss(new, labels, counted),
        "log_loss_before": _log_loss(hold.before, labels, counted),
    }


def _log_loss(p: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> float | None:
    if not len(p):
        return None
    sure = np.clip(p, 1e-9, 1 - 1e-9)
    costs = -np.where(labels > 0.5, np.log(sure), np.log1p(-sure))
    return float(np.average(costs, weights=counted))
