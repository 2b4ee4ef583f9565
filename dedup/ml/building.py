"""A trained network -> a release: calibrated, measured, written down."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from dedup.ml.artifact import MANIFEST, hash_files
from dedup.ml.biencoder import BiEncoder
from dedup.ml.calibration import Calibration, fit_calibration, trust
from dedup.ml.card import model_card
from dedup.ml.clusters import (
    CHOOSING,
    REPORTING,
    Shortlisted,
    portal_shortlisted,
    shortlisted,
    training_names,
    written_hash,
)
from dedup.ml.crossencoder import MAX_TOKENS, CrossEncoder
from dedup.ml.data import Labelled, file_hash, forum_rows, labelled, rows
from dedup.ml.evaluation import average_precision, mean_average_precision
from dedup.ml.fitting import SCALE
from dedup.ml.measuring import FITTED_EVEN, Measured, Measuring, Reported, random_halves
from dedup.ml.mixture import TRAINING_FILES
from dedup.ml.pairs import Pair
from dedup.ml.plots import precision_recall, reliability
from dedup.ml.thresholds import choose_threshold, measure
from dedup.ml.training import DONE

log = logging.getLogger(__name__)

SHARES = [0.9, 0.93]
LOGIT_WEIGHTS = [0.0, 0.75, 0.8]
TRUSTED = [(0.42, 0.72)]  # cosines between which the logit begins to count
TITLES_LOSS = 0.003  # of average precision on titles: what support questions may cost
WANTED = {"flag": 0.40, "suggest": 0.05, "sure": 0.50}
FOREIGN_LOSS = 0.0005  # of mean average precision on forum questions: less than one swap
FOREIGN = "semeval_cqa_train_part2"  # stands for texts of other kinds when weights are chosen
LICENCES = {
    "base": "all-MiniLM-L6-v2, Apache-2.0",
    "teacher": "all-mpnet-base-v2, Apache-2.0; nothing of it is in the release",
    "qqp": "Quora Question Pairs: Quora's terms, non-commercial use of the text",
    "rqe": "CC BY 4.0", "semeval": "free for research", "banking77": "CC BY 4.0",
    "clinc150": "CC BY 3.0", "hwu64": "CC BY 4.0",
    "stackexchange": "CC BY-SA, texts without labels",
}  # fmt: skip


def write_cross_encoder(base: Path, trained: Path, share: float, out: Path) -> None:
    """The network `share` of the way from the base to the trained one, in fp16.

    Weights in between keep what the base knows of texts of other kinds and most of what was
    learned (WiSE-FT: Wortsman et al. 2022b). The head begins at zero, so `share` of it is kept.
    """
    network = BertForSequenceClassification.from_pretrained(trained, dtype=torch.float32)
    before = BertModel.from_pretrained(base, dtype=torch.float32).state_dict()
    between = {
        name: torch.lerp(before.get(name.removeprefix("bert."), torch.zeros_like(w)), w, share)
        for name, w in network.state_dict().items()
    }
    network.load_state_dict(between)
    network.half().save_pretrained(out)
    save_tokenizer(trained, out)


def save_tokenizer(source: Path, out: Path) -> None:
    """The tokenizer with the length that the release was trained for."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(out)


def write_bi_encoder(base: Path, out: Path) -> None:
    """The base as it is, in fp16."""
    BertModel.from_pretrained(base, dtype=torch.float32).half().save_pretrained(out)
    save_tokenizer(base, out)


@dataclass(frozen=True)
class Blend:
    """How far the network goes from the base, its logit's weight beside SCALE times the cosine,
    and from which cosine on it counts (see `Calibration`).

    `support_ap` is on support questions, the mean of two kinds; `titles_ap` on Quora's development
    pairs; `forum_map` on forum questions, whose labels trained nothing.
    """

    share: float
    weight: float
    low: float
    high: float
    support_ap: float
    titles_ap: float
    forum_map: float


def choose_blend(data: Path, base: Path, trained: Path, bi: BiEncoder) -> tuple[Blend, list[Blend]]:
    """The best blend on support questions of those that are about the best on titles and lose
    next to nothing on forum questions, which stand for texts of other kinds; and all that were
    tried."""
    support = [thinned(shortlisted(CHOOSING, bi.embed)), portal_shortlisted(bi.embed).pairs]
    titles, forum = labelled(data, "qqp_dev"), forum_rows(data, FOREIGN)
    queries, tried = [str(row["qid"]) for row in rows(data, FOREIGN)], []
    for share in SHARES:
        with TemporaryDirectory() as folder:
            write_cross_encoder(base, trained, share, Path(folder))
            cross = CrossEncoder(Path(folder))
        *known, quora, strange = [
            Measured.of(pairs, bi, cross) for pairs in (*support, titles, forum)
        ]
        for weight, (low, high) in product(LOGIT_WEIGHTS, TRUSTED):
            ranked = partial(mixed, weight=weight, low=low, high=high)
            blend = Blend(
                share, weight, low, high,
                float(np.mean([average_precision(ranked(m), m.labels) for m in known])),
                average_precision(ranked(quora), quora.labels),
                mean_average_precision(queries, ranked(strange), strange.labels),
            )  # fmt: skip
            tried.append(blend)
            log.info("tried %s", blend)
    cosine_alone = tried[0].forum_map  # a weight of zero
    kept = [t for t in tried if t.forum_map >= cosine_alone - FOREIGN_LOSS]
    best = max(t.titles_ap for t in kept)
    return max((t for t in kept if t.titles_ap >= best - TITLES_LOSS), key=_support), tried


def _support(blend: Blend) -> float:
    return blend.support_ap


def mixed(measured: Measured, weight: float, low: float, high: float) -> np.ndarray:
    """(n,) what pairs are ranked by: SCALE times the cosine, and the logit where it is trusted."""
    heard = trust(measured.cosines, low, high) * measured.logits
    return np.asarray(SCALE * measured.cosines + weight * heard)


def thinned(found: Shortlisted) -> list[Labelled]:
    """All duplicates and near misses, and each fourth of the others: enough to compare by."""
    return [
        pair
        for i, (pair, difference) in enumerate(zip(found.pairs, found.differences, strict=True))
        if pair.label or difference or i % 4 == 0
    ]


def calibrate(fitted: Measured, blend: Blend) -> Calibration:
    """Scale and bias for a fixed weight of the logit beside SCALE times the cosine."""
    ranked = mixed(fitted, blend.weight, blend.low, blend.high) / SCALE
    found = fit_calibration(np.zeros(len(ranked)), ranked, fitted.labels)
    by_logit = found.by_cosine * blend.weight / SCALE
    return Calibration(
        found.bias, by_logit, found.by_cosine, found.prior, low=blend.low, high=blend.high
    )


def thresholds(calibration: Calibration, fitted: Measured, held: Measured) -> dict[str, Any]:
    """Chosen for the wanted precision on the demo's portal; measured there and on held trades."""
    p_fit, p_held = fitted.probabilities(calibration), held.probabilities(calibration)
    found = {}
    for name, wanted in WANTED.items():
        at = choose_threshold(p_fit, fitted.labels, wanted)
        at = 1.0 if at is None else at
        found[name] = {
            "probability": at,
            "chosen": measure(at, wanted, p_fit, fitted.labels).as_dict(),
            "held": measure(at, wanted, p_held, held.labels).as_dict(),
        }
    return found


def golden_pairs(
    bi: BiEncoder, cross: CrossEncoder, calibration: Calibration
) -> list[dict[str, Any]]:
    """Twenty pairs of our own writing with what they must come out as, in fp32."""
    pairs = [Pair(a, b) for a in GOLDEN_TEXTS[:5] for b in GOLDEN_TEXTS[5:9]]
    measured = Measured.of([Labelled(p.older, p.newer, 0.0) for p in pairs], bi, cross)
    logits = cross.reference_scores(pairs)
    chances = calibration.probabilities(logits, measured.cosines)
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


def build(data: Path, base: Path, trained: Path, out: Path, recipe: Path) -> None:
    """Writes the whole release folder, named as `out`, replacing what is there."""
    if out.exists():
        shutil.rmtree(out)
    write_bi_encoder(base, out / "bi-encoder")
    bi = BiEncoder(out / "bi-encoder")
    blend, tried = choose_blend(data, base, trained, bi)
    write_cross_encoder(base, trained, blend.share, out / "cross-encoder")
    cross = CrossEncoder(out / "cross-encoder")
    portal = Measured.of(portal_shortlisted(bi.embed).pairs, bi, cross)
    fitted = portal.beside(Measured.of(shortlisted(CHOOSING, bi.embed).pairs, bi, cross))
    reported = Reported.of(bi, cross)
    calibration = calibrate(fitted, blend)
    chosen = thresholds(calibration, portal, reported.measured)
    flag = chosen["flag"]["probability"]
    titles = labelled(data, FITTED_EVEN)
    half = [titles[i] for i in random_halves(len(titles))[0]]
    even = calibrate(Measured.of(half, bi, cross), blend)
    metrics = Measuring(data, bi, cross, calibration, even, flag).all(reported)
    log.info("metrics %s", json.dumps(metrics))
    raw = {
        "name": out.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": "sentence-transformers/all-MiniLM-L6-v2",
        "languages": ["en"],
        "licences": LICENCES,
        "data": {n: file_hash(data, n) for n in (*TRAINING_FILES, FOREIGN)},
        "written": {n: written_hash(n) for n in (*training_names(), *CHOOSING, *REPORTING)},
        "recipe": {
            **json.loads(recipe.read_text(encoding="utf-8")),
            "ran": stages_of(trained),
            "blend": asdict(blend),
            "blends_tried": [asdict(t) for t in tried],
        },
        "metrics": metrics,
        "calibration": {
            "coefficients": asdict(calibration),
            "rows": len(fitted.labels),
            "on": "shortlists of the demo's questions and of two trades",
            "even_odds": asdict(even),
            "thresholds_on": "shortlists of the demo's portal, 300 questions, untrained on,",
        },
        "thresholds": chosen,
        "golden": golden_pairs(bi, cross, calibration),
    }
    write_down(out, raw, model_card(raw), pictures(calibration, reported.measured))


def write_down(
    folder: Path, raw: dict[str, Any], card: str, drawn: Mapping[str, str] | None = None
) -> None:
    """Writes card, pictures and, last of all, the manifest with the hashes of all other files."""
    for name, picture in (drawn or {}).items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    raw["files"] = hash_files(folder)
    (folder / MANIFEST).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


@contextmanager
def making(out: Path) -> Iterator[Path]:
    """A folder of the same name, which becomes `out` at the end, or is gone where that fails."""
    with TemporaryDirectory(dir=out.parent, prefix=".making-") as made:
        folder = Path(made) / out.name
        folder.mkdir()
        yield folder
        folder.rename(out)


def pictures(
    calibration: Calibration, held: Measured, where: str = "on held trades"
) -> dict[str, str]:
    """SVG by name, over pairs that nothing was fitted on."""
    p = held.probabilities(calibration)
    curves = [("release", p), ("cosine alone", held.cosines)]
    return {
        "reliability": reliability(p, held.labels, f"Calibration {where}"),
        "precision-recall": precision_recall(curves, held.labels, f"Ranking {where}"),
    }


def stages_of(trained: Path) -> list[dict[str, Any]]:
    """What the stages beside this network did, in order."""
    notes = sorted(trained.parent.glob(f"*/{DONE}"))
    return [json.loads(note.read_text(encoding="utf-8")) for note in notes]
