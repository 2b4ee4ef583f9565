"""A release's cross-encoder with fewer layers, which says nearly the same in less time.

The student begins as some of the teacher's layers (Sanh et al. 2019, "DistilBERT") and learns the
teacher's own logits on pairs that nobody need have judged (Hinton et al. 2015; Ba and Caruana
2014). The loop is that of `fitting`. An error counts as much as the calibration hears the logit.
"""

import hashlib
import json
import logging
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml import fitting
from dedup.ml.adopting import written
from dedup.ml.biencoder import pair_cosines
from dedup.ml.building import golden_pairs, making, thresholds, write_down
from dedup.ml.calibration import Calibration, fit_calibration, trust
from dedup.ml.card import student_card
from dedup.ml.clusters import Embed, read_clusters, training_names
from dedup.ml.crossencoder import MAX_TOKENS, CrossEncoder
from dedup.ml.data import file_hash, forum_rows, labelled
from dedup.ml.fitting import UNKNOWN, Course, Example
from dedup.ml.measuring import Measured, Reported
from dedup.ml.mixture import TRAINING_FILES, neighbours, strange_texts
from dedup.ml.packing import cut
from dedup.ml.pairs import Pair
from dedup.ml.refitting import Asked, Tell, enough, refit, write_trained
from dedup.ml.release import ReleaseScorer
from dedup.ml.score import Remembered

log = logging.getLogger(__name__)

NOTE = "distilled.json"  # written last: what made the network beside it
READ = "read.npz"  # what the teacher said, so that it need not say it again after a kill
READ_AT_ONCE = 1_000  # pairs
KEPT_EVERY = 60.0  # seconds between two checkpoints
TOKENS = 4_000  # of one batch that is only read
HELD = 0.1  # of all pairs: they judge, and the floor is chosen on them
MOST_LOST = 0.01  # of what the teacher flags, in a cascade
NEAR = 20  # neighbours of a text that it is paired with some of
FEWEST = 1_000  # pairs; fewer teach a network next to nothing

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Plan(Course):
    """How a student is made; see `Course`."""

    seed: int = 1
    layers: int = 3
    epochs: int = 4
    rate: float = 2e-4
    max_tokens: int = MAX_TOKENS  # as many as the teacher reads: else they speak of other texts
    stranger_weight: float = 1.0
    patience: int = 2
    threads: int = 1


@dataclass(frozen=True)
class Distilled:
    """A student network, and how it came about."""

    folder: Path
    layers: list[int]  # of the teacher, that it began as
    pairs: int
    steps: int
    seconds: float
    errors: list[float]  # mean squared, of the logit as it is heard, after each epoch


def distil(
    *,
    teacher: ReleaseScorer,
    pairs: Sequence[Pair],
    out: Path,
    plan: Plan,
    progress: Tell = lambda done, total, step, left: None,
) -> Distilled:
    """Write a student of the release's cross-encoder as the Hugging Face folder `out`.

    `pairs` are any of which the release hears its cross-encoder; those of `held_out` are only
    judged by. It goes on from the checkpoint in `out` where one is; what is finished there is not
    run again. Raises ValueError where there are too few pairs or layers, FloatingPointError where a
    loss is not finite; whatever `progress` raises ends it.
    """
    if (out / NOTE).exists():
        return _read_note(out)
    if len(pairs) < FEWEST:
        raise ValueError(f"{len(pairs)} pairs are too few to learn from: {FEWEST} are needed")
    torch.set_num_threads(plan.threads)
    out.mkdir(parents=True, exist_ok=True)
    logits, cosines = read_by(teacher, pairs, out / READ, progress)
    tokenizer = teacher.cross.tokenizer
    calibration = teacher.calibration
    heard = trust(cosines, calibration.low, calibration.high)
    examples = [
        Example(ids, 0.0, UNKNOWN, wanted=float(logit), weight=float(weight**2))
        for ids, logit, weight in zip(
            fitting.encode(pairs, tokenizer, plan.max_tokens), logits, heard, strict=True
        )
    ]
    is_held = held_out(pairs)
    kept = write_start(teacher.cross.network, plan.layers, out / "start")
    network = fitting.start_network(out / "start", plan.seed, plan.dropout, is_fresh=False)
    done = fitting.descend(
        network, tokenizer, [e for e, held in zip(examples, is_held, strict=True) if not held],
        out, plan, plan.seed, progress=_told(progress), keep_every=KEPT_EVERY,
        judge=_judge([e for e, held in zip(examples, is_held, strict=True) if held], tokenizer),
    )  # fmt: skip
    network.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.rmtree(out / "start")
    made = Distilled(out, kept, len(pairs), done.step, done.spent, done.judged)
    (out / NOTE).write_text(json.dumps({**asdict(made), "folder": out.name}), encoding="utf-8")
    fitting.finished(out)
    return made


def read_by(
    teacher: ReleaseScorer, pairs: Sequence[Pair], memory: Path, progress: Tell
) -> tuple[np.ndarray, np.ndarray]:
    """What the teacher's cross-encoder and bi-encoder say: logits and cosines, each (n,).

    What stands in `memory` of these very pairs is not read again.
    """
    key = hashlib.sha256("\0".join(p.older + "\0" + p.newer for p in pairs).encode()).hexdigest()
    key += teacher.fingerprint
    logits = np.zeros(0)
    if memory.exists():
        with np.load(memory, allow_pickle=False) as kept:
            logits = kept["logits"] if str(kept["key"]) == key else logits
    while len(logits) < len(pairs):
        begun = len(logits)
        progress(begun, len(pairs), "the teacher reads the pairs", None)
        read = teacher.cross.scores(pairs[begun : begun + READ_AT_ONCE])
        logits = np.concatenate([logits, read])
        part = memory.with_suffix(".part.npz")
        np.savez(part, key=np.asarray(key), logits=logits)
        part.replace(memory)
    return logits, pair_cosines(teacher.embed, pairs)


def held_out(pairs: Sequence[Pair]) -> np.ndarray:
    """(n,) which pairs nothing is learned from: by the hash of one of their texts.

    The text that comes first in the order that the networks read them in, so that a question's
    pairs mostly stand on one side.
    """
    digests = [hashlib.sha256(min(p.older, p.newer).encode()).digest() for p in pairs]
    return np.asarray([int.from_bytes(digest[:4]) < HELD * 2**32 for digest in digests])


def kept_layers(depth: int, count: int) -> list[int]:
    """Which of the teacher's layers the student begins as: the first, the last, evenly between."""
    if not 1 <= count <= depth:
        raise ValueError(f"a student of {depth} layers has 1 to {depth}, not {count}")
    return [round(at) for at in np.linspace(depth - 1, 0, count)[::-1]]


def write_start(teacher: BertForSequenceClassification, count: int, out: Path) -> list[int]:
    """The student before it has learned anything, as the folder `out`; the layers that it has."""
    kept = kept_layers(teacher.config.num_hidden_layers, count)
    config = type(teacher.config).from_dict(
        {**teacher.config.to_dict(), "num_hidden_layers": count}
    )
    student = BertForSequenceClassification(config)
    weights = teacher.state_dict()
    for place, layer in enumerate(kept):
        for name in [n for n in weights if f".layer.{layer}." in n]:
            student.state_dict()[name.replace(f".layer.{layer}.", f".layer.{place}.")].copy_(
                weights[name]
            )
    others = {name: weight for name, weight in weights.items() if ".layer." not in name}
    student.load_state_dict(others, strict=False)
    student.save_pretrained(out)
    return kept


def _judge(examples: Sequence[Example], tokenizer: AutoTokenizer) -> fitting.Judge:
    """The mean squared error of a network's logits on pairs that it does not learn from."""
    wanted = torch.tensor([e.wanted for e in examples], dtype=torch.float32)
    weight = torch.tensor([e.weight for e in examples], dtype=torch.float32)

    def judge(network: BertForSequenceClassification) -> float:
        logits = torch.zeros(len(examples))
        for chosen in cut([len(e.ids) for e in examples], TOKENS):
            ids = [examples[i].ids for i in chosen]
            logits[chosen] = fitting.logits_of(network, tokenizer, ids)
        return float((weight * (logits - wanted).square()).sum() / weight.sum())

    return judge


def _told(progress: Tell) -> fitting.Progress:
    def tell(step: int, steps: int, loss: float, seconds_left: float) -> None:
        left = None if math.isnan(seconds_left) else seconds_left
        progress(step, steps, f"training, loss {loss:.3f}", left)

    return tell


def _read_note(out: Path) -> Distilled:
    raw = json.loads((out / NOTE).read_text(encoding="utf-8"))
    return Distilled(**{**raw, "folder": out})


def release_of(
    made: Distilled,
    pairs: Sequence[Pair],
    teacher: ReleaseScorer,
    folder: Path,
    out: Path,
    *,
    at: Mapping[str, float],
    wanted: Mapping[str, float],
    tune: Sequence[Asked] = (),
    hold: Sequence[Asked] = (),
    data: Mapping[str, str] | None = None,
    progress: Tell = lambda done, total, step, left: None,
) -> dict[str, Any]:
    """Write the student as the release folder `out`; its manifest.

    `folder` is the teacher's, `at` its thresholds in service. Calibration and thresholds come from
    the labels `tune` where they are enough (see `refit`), else from shortlists of our own writing.
    Raises RefitRefused where nothing can be made of the labels.
    """
    cross = CrossEncoder(made.folder)
    about = {
        "teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint},
        "recipe": {"distilled": {**asdict(made), "folder": made.folder.name}},
        "data": dict(data or {}),
    }

    def card(raw: dict[str, Any]) -> str:
        # Only now is it known what its probabilities are.
        raw["cascade"] = _cascade(made, pairs, teacher, _calibration_of(raw), cross, at["flag"])
        return student_card(raw)

    if enough(tune):
        return refit(
            write=lambda place: write_trained(made.folder, place), parent=folder, tune=tune,
            hold=hold, wanted=wanted, before_at=at, about=about, out=out, card=card,
            progress=progress,
        )  # fmt: skip
    with making(out) as beside:
        progress(0, 0, "calibrating", None)
        shutil.copytree(folder / "bi-encoder", beside / "bi-encoder")
        cross = write_trained(made.folder, beside / "cross-encoder")
        raw = {"name": out.name, **_described(teacher, cross), **about}
        write_down(beside, raw, card(raw))
    return raw


def _calibration_of(raw: dict[str, Any]) -> Calibration:
    return Calibration(**raw["calibration"]["coefficients"])


def _described(teacher: ReleaseScorer, cross: CrossEncoder) -> dict[str, Any]:
    """A manifest's part that is measured on texts of our own writing."""
    fitted, chosen_on = written(teacher.bi, cross)
    calibration = calibrated_like(teacher.calibration, fitted)
    reported = Reported.of(teacher.bi, cross)
    given = teacher.manifest.raw
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": given["base"],
        "languages": given["languages"],
        "licences": given["licences"],
        "metrics": {"shortlists": reported.told_apart(calibration)},
        "calibration": {
            "coefficients": asdict(calibration),
            "rows": len(fitted.labels),
            "on": "shortlists of the demo's questions and of two trades",
            "thresholds_on": "shortlists of the demo's portal",
        },
        "thresholds": thresholds(calibration, chosen_on, reported.measured),
        "golden": golden_pairs(teacher.bi, cross, calibration),
    }


def _cascade(
    made: Distilled,
    pairs: Sequence[Pair],
    teacher: ReleaseScorer,
    calibration: Calibration,
    cross: CrossEncoder,
    threshold: float,
) -> dict[str, Any]:
    """The floor of a cascade, chosen on the pairs that nothing was learned from."""
    logits, cosines = read_by(teacher, pairs, made.folder / READ, lambda *told: None)
    is_held = held_out(pairs)
    held = [pair for pair, kept in zip(pairs, is_held, strict=True) if kept]
    by_student = calibration.probabilities(cross.scores(held), cosines[is_held])
    by_teacher = teacher.calibration.probabilities(logits[is_held], cosines[is_held])
    return choose_floor(by_student, by_teacher, threshold)


def calibrated_like(teacher: Calibration, fitted: Measured) -> Calibration:
    """Scale and bias anew; how much the logit counts beside the cosine, and where, as before."""
    plain = replace(teacher, bias=0.0)
    ranked = plain.ranked_by(fitted.logits, fitted.cosines)
    found = fit_calibration(np.zeros(len(ranked)), ranked, fitted.labels)
    return replace(
        teacher,
        bias=found.bias,
        by_logit=found.by_cosine * teacher.by_logit,
        by_cosine=found.by_cosine * teacher.by_cosine,
        prior=found.prior,
    )


def choose_floor(
    student: np.ndarray, teacher: np.ndarray, threshold: float, most: float = MOST_LOST
) -> dict[str, float]:
    """The highest probability of the student below which, with 95 % confidence, at most `most` of
    what the teacher flags lies; never above the teacher's threshold.

    A tolerance limit by order statistics (Wilks 1941): of n flagged pairs the k lowest may be lost
    where a share of `most` would seldom lose so few. Zero, which settles nothing, where n is too
    small for that.
    """
    flagged = np.sort(student[teacher >= threshold])
    lost = _most_lost(len(flagged), most)
    floor = min(float(flagged[lost]), threshold) if lost >= 0 else 0.0
    return {
        "floor": floor,
        "threshold": threshold,
        "most_lost": most,
        "lost": float((flagged < floor).mean()) if len(flagged) else 0.0,
        "settled": float((student < floor).mean()),
        "flagged": len(flagged),
        "rows": len(student),
    }


def _most_lost(count: int, most: float, doubt: float = 0.05) -> int:
    """The largest k with P(Binomial(count, most) <= k) <= doubt; -1 where there is none."""
    k, chance, term = -1, 0.0, count * math.log1p(-most)  # the term in logs: it may be tiny
    while k + 1 < count and chance + math.exp(term) <= doubt:
        k, chance = k + 1, chance + math.exp(term)
        term += math.log((count - k) / (k + 1)) + math.log(most) - math.log1p(-most)
    return k


def gathered(data: Path, teacher: ReleaseScorer, count: int, seed: int) -> list[Pair]:
    """Pairs out of a folder of labelled sets, their labels unread, and of the clusters written
    for this project: up to `count`, all of which the release hears its cross-encoder of.

    As a shortlist delivers them, and as people published them: those are more alike.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    bi = Remembered(teacher.bi)
    quora, health = labelled(data, "qqp_train"), labelled(data, "rqe_train")
    published = [
        *_some(quora, count // 3, rng),
        *_some(health, count // 12, rng),
        *_some(forum_rows(data, "semeval_cqa_train_part1"), count // 12, rng),
    ]
    pairs = [Pair(row.first, row.second) for row in published]
    titles = sorted({row.first for row in published[: count // 3]})
    strange = [_some(texts, count // 24, rng) for texts in strange_texts(data)]
    trades = _some(training_names(), max(1, count // 600), rng)
    for texts in (titles, *strange, *([q.input for q in read_clusters([n])] for n in trades)):
        pairs += beside_neighbours(texts, neighbours(bi, texts, NEAR).tolist(), rng)
    rng.shuffle(pairs)
    return heard(pairs, teacher, count, embed=bi.embed)


def _some(rows: Sequence[T], count: int, rng: random.Random) -> list[T]:
    return rng.sample(list(rows), min(len(rows), count))


def beside_neighbours(
    texts: Sequence[str], near: Sequence[Sequence[int]], rng: random.Random
) -> list[Pair]:
    """Each text beside some of its neighbours: its two nearest, and three out of its shortlist."""
    return [
        Pair(text, texts[j])
        for text, others in zip(texts, near, strict=True)
        for j in {*others[:2], *rng.sample(others, min(3, len(others)))}
    ]


def heard(pairs: Sequence[Pair], teacher: ReleaseScorer, count: int, *, embed: Embed) -> list[Pair]:
    """The first `count` of them, each once, of which the release hears its cross-encoder."""
    once = list({frozenset((p.older, p.newer)): p for p in pairs if p.older != p.newer}.values())
    is_heard = teacher.calibration.hears(pair_cosines(embed, once))
    return [pair for pair, kept in zip(once, is_heard, strict=True) if kept][:count]


def data_hashes(data: Path) -> dict[str, str]:
    """What `gathered` reads, by name."""
    return {name: file_hash(data, name) for name in TRAINING_FILES}
