"""Two trained networks -> a release: interpolated, calibrated, measured, written down.

python -m dedup.ml.building --data F --base F --label F --imitate F --out F --name NAME
"""

import argparse
import json
import logging
import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from dedup.ml.artifact import MANIFEST, hash_files
from dedup.ml.biencoder import BiEncoder
from dedup.ml.calibration import Calibration, fit_calibration
from dedup.ml.card import model_card
from dedup.ml.crossencoder import MAX_TOKENS, CrossEncoder
from dedup.ml.data import Labelled, file_hash, labelled, rows
from dedup.ml.evaluation import average_precision, mean_average_precision
from dedup.ml.measuring import Measured, measure_all
from dedup.ml.pairs import Pair
from dedup.ml.text import model_input
from dedup.ml.thresholds import choose_threshold, measure

log = logging.getLogger(__name__)

PRIOR = 0.02
LOGIT_WEIGHTS = [0.0, 0.005, 0.01, 0.015, 0.02, 0.025]  # the cosine's is 1; more hurts strangers
WANTED = {"flag": 0.85, "suggest": 0.60, "sure": 0.92}
TRAINING_FILES = [
    "qqp_train", "rqe_train", "semeval_cqa_train_part1", "banking77_train", "clinc150_train",
    "hwu64_train", "bitext_customer_support_train",
]  # fmt: skip
FITTING_FILES = ["qqp_dev", "semeval_cqa_train_part2"]
LICENCES = {
    "base": "all-MiniLM-L6-v2, Apache-2.0",
    "qqp": "Quora Question Pairs: Quora's terms, non-commercial use of the text",
    "rqe": "CC BY 4.0", "semeval": "free for research", "banking77": "CC BY 4.0",
    "clinc150": "CC BY 3.0", "hwu64": "CC BY 4.0", "bitext": "CDLA-Sharing-1.0",
}  # fmt: skip


def interpolate(first: Path, second: Path, share: float, out: Path) -> None:
    """Writes `share` of the first network's weights and the rest of the second's, in fp16."""
    one = BertForSequenceClassification.from_pretrained(first, dtype=torch.float32)
    two = BertForSequenceClassification.from_pretrained(second, dtype=torch.float32).state_dict()
    one.load_state_dict(
        {
            k: share * v + (1 - share) * two[k] if v.is_floating_point() else v
            for k, v in one.state_dict().items()
        }
    )
    one.half().save_pretrained(out)
    save_tokenizer(first, out)


def save_tokenizer(source: Path, out: Path) -> None:
    """The tokenizer with the length that the release was trained for."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(out)


def write_bi_encoder(base: Path, out: Path) -> None:
    """The base as it is, in fp16."""
    BertModel.from_pretrained(base, dtype=torch.float32).half().save_pretrained(out)
    save_tokenizer(base, out)


def fitting_split(data: Path, count: int) -> tuple[list[Labelled], list[Labelled]]:
    """Rows of qqp_dev that calibration is fitted on, and as many that it is reported on."""
    found = labelled(data, "qqp_dev")
    random.Random(11).shuffle(found)  # noqa: S311 - no secret
    return found[:count], found[count : 2 * count]


def forum(data: Path, name: str) -> tuple[list[Labelled], list[str]]:
    """Pairs of forum questions with their query ids."""
    found = list(rows(data, name))
    pairs = [
        Labelled(
            model_input(r["q_title"], r["q_body"]),
            model_input(r["c_title"], r["c_body"]),
            float(r["label"]),
        )
        for r in found
    ]
    return pairs, [r["qid"] for r in found]


def choose_mixture(
    data: Path, bi: BiEncoder, label: Path, imitate: Path, fitting: list[Labelled],
    shares: Sequence[float], scratch: Path,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The label half's share and the logit's weight beside the cosine.

    Best Quora AP plus twice forum MAP among those that are not below the cosine alone on the
    forum: its labels trained nothing, so it stands for domains that are not Quora.
    """  # fmt: skip
    others, queries = forum(data, "semeval_cqa_train_part2")
    others, queries = others[:400], queries[:400]
    tried = []
    for share in shares:
        interpolate(label, imitate, share, scratch)
        cross = CrossEncoder(scratch)
        known, strange = (Measured.of(rows, bi, cross) for rows in (fitting, others))
        for weight in LOGIT_WEIGHTS:
            ap = average_precision(known.cosines + weight * known.logits, known.labels)
            mean = mean_average_precision(
                queries, list(strange.cosines + weight * strange.logits), list(strange.labels)
            )
            tried.append({"share": share, "weight": weight, "quora_ap": ap, "forum_map": mean})
            log.info("tried %s", tried[-1])
    cosine_alone = tried[0]["forum_map"]
    kept = [t for t in tried if t["forum_map"] >= cosine_alone]
    return max(kept, key=lambda t: t["quora_ap"] + 2 * t["forum_map"]), tried


def calibrate(fitted: Measured, weight: float) -> Calibration:
    """Scale and bias for a fixed weight of the logit beside the cosine."""
    mixed = fitted.cosines + weight * fitted.logits
    found = fit_calibration(np.zeros(len(mixed)), mixed, fitted.labels)
    return Calibration(found.bias, found.by_cosine * weight, found.by_cosine)


def thresholds(calibration: Calibration, fitted: Measured, held: Measured) -> dict[str, Any]:
    """Chosen on the fitting half, measured on the other: balanced, and carried to the prior."""
    p_fit, p_held = fitted.probabilities(calibration), held.probabilities(calibration)
    found = {}
    for name, wanted in WANTED.items():
        at = choose_threshold(list(p_fit), list(fitted.labels), wanted)
        at = 1.0 if at is None else at
        found[name] = {
            "probability": at,
            "wanted_precision": wanted,
            "balanced": measure(at, wanted, p_held, held.labels, 0.5).as_dict(),
            "at_prior": measure(at, wanted, p_held, held.labels, PRIOR).as_dict(),
            "how": "chosen for the wanted precision (Clopper-Pearson lower end) on the balanced "
            "half of qqp_dev that calibration was fitted on; at_prior carries the held half's "
            f"rates to {PRIOR} duplicates among the shortlisted pairs, taking the labelled "
            "negatives, which share words with their question, for shortlisted ones",
        }
    return found


def golden_pairs(
    held: list[Labelled], bi: BiEncoder, cross: CrossEncoder, calibration: Calibration
) -> list[dict[str, Any]]:
    """Twenty pairs of our own writing with what they must come out as, in fp32."""
    del held
    pairs = [Pair(a, b) for a in GOLDEN_TEXTS[:5] for b in GOLDEN_TEXTS[5:9]]
    measured = Measured.of([Labelled(p.older, p.newer, 0.0) for p in pairs], bi, cross)
    logits = cross.reference_scores(pairs)
    chances = calibration.probabilities(list(logits), list(measured.cosines))
    return [
        {"older": p.older, "newer": p.newer, "logit": float(a), "cosine": float(b),
         "probability": float(c)}
        for p, a, b, c in zip(pairs, logits, measured.cosines, chances, strict=True)
    ]  # fmt: skip


GOLDEN_TEXTS = [
    "How do I reset my password?",
    "Can I export my invoices as a spreadsheet?",
    "The app closes when I upload a photo.",
    "How do I add a colleague to our workspace?",
    "Why was I charged twice this month?",
    "I forgot my password, how can I get a new one?",
    "How do I remove a colleague from our workspace?",
    "Is there a way to download all invoices to Excel?",
    "There are two payments for one month on my card statement.",
]


def build(
    data: Path, base: Path, label: Path, imitate: Path, out: Path, name: str,
    shares: Sequence[float], count: int,
) -> None:
    """Writes the whole release folder, replacing what is there."""  # fmt: skip
    if out.exists():
        shutil.rmtree(out)
    write_bi_encoder(base, out / "bi-encoder")
    bi = BiEncoder(out / "bi-encoder")
    fitting, holding = fitting_split(data, count)
    mixture, tried = choose_mixture(
        data, bi, label, imitate, fitting, shares, out / "cross-encoder"
    )
    interpolate(label, imitate, mixture["share"], out / "cross-encoder")
    cross = CrossEncoder(out / "cross-encoder")
    fitted = Measured.of(fitting, bi, cross)
    calibration = calibrate(fitted, mixture["weight"])
    held = Measured.of(holding, bi, cross)
    chosen = thresholds(calibration, fitted, held)
    metrics = measure_all(data, bi, cross, calibration, held, chosen["flag"]["probability"])
    log.info("metrics %s", json.dumps(metrics))
    raw = {
        "name": name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": "sentence-transformers/all-MiniLM-L6-v2",
        "languages": ["en"],
        "licences": LICENCES,
        "data": {n: file_hash(data, n) for n in TRAINING_FILES + FITTING_FILES},
        "recipe": {"mixture": mixture, "mixtures_tried": tried,
                   **{p.name: json.loads((p / "recipe.json").read_text())
                      for p in (label, imitate) if (p / "recipe.json").exists()}},
        "metrics": metrics,
        "calibration": {"coefficients": calibration.__dict__, "rows": count},
        "thresholds": chosen,
        "golden": golden_pairs(holding, bi, cross, calibration),
    }  # fmt: skip
    (out / "README.md").write_text(model_card(raw), encoding="utf-8")
    raw["files"] = hash_files(out)
    (out / MANIFEST).write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Command line; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "base", "label", "imitate", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6])
    parser.add_argument("--count", type=int, default=5000, help="rows to calibrate on")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build(given.data, given.base, given.label, given.imitate, given.out, given.name,
          given.shares, given.count)  # fmt: skip


if __name__ == "__main__":
    main()
