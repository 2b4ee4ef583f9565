"""Labels of people -> a better cross-encoder, which stays near what it knew on all other pairs.

The loop is that of `fitting`. A network that begins as a bi-encoder has never seen two texts at
once: it first learns, without any label, to say their cosine (`learn_to_compare`); only then do
labels say where that is wrong. What keeps it from forgetting, and from learning a few labels by
heart: replay of pairs that nobody judged, held near what the network said of them before (Li and
Hoiem 2016, "Learning without forgetting"); early stopping on labels of other questions; and weights
that go only as far from the start as those labels like best (WiSE-FT: Wortsman et al. 2022).
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml import fitting
from dedup.ml.biencoder import BiEncoder
from dedup.ml.calibration import fit_calibration
from dedup.ml.crossencoder import CrossEncoder
from dedup.ml.fitting import UNKNOWN, Course, Example
from dedup.ml.packing import cut, fastest_dtype
from dedup.ml.pairs import Pair

log = logging.getLogger(__name__)

NOTE = "finetuned.json"  # written last: what made the network beside it
FEWEST_JUDGES = 40  # labels of other questions; fewer do not say when to stop
WRONG_WAY = 1.0  # the loss, at least, of one that ranks the wrong way: more than knowing nothing
WAYS = (0.25, 0.5, 0.75, 1.0)  # shares of the way from the start that are tried
START = "start"  # the folder of a network that learned to compare, in that of what comes of it
COMPARED = 32  # pairs of a step in which it learns to compare
KEPT_EVERY = 60.0  # seconds between two checkpoints
TOKENS = 4_000  # of one batch that is only read

Tell = Callable[[int, int, str, float | None], None]  # done, total, step in words, seconds left


@dataclass(frozen=True)
class Taught:
    """Two model inputs, 1.0 (duplicate) or 0.0, and how much it counts."""

    first: str
    second: str
    label: float
    weight: float = 1.0

    @property
    def pair(self) -> Pair:
        return Pair(self.first, self.second)


@dataclass(frozen=True, kw_only=True)
class Plan(Course):
    """How a network is fine-tuned; see `Course`."""

    seed: int = 1
    epochs: int = 2
    last_rate: float = 0.35  # what comes later learns wrong labels by heart
    rate: float = 1e-4  # at 2e-4 some networks die: they say one number of all pairs
    batch: int = 16
    patience: int = 2
    pieces: int = 2
    head_rate: float = 3.0
    replay_weight: float = 0.1  # of a pair that nobody judged, beside one label's 1
    threads: int = 1


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned network, and how it came about."""

    folder: Path
    steps: int
    seconds: float
    tune_loss: float | None  # of what was written, on the labels that it was judged by
    tune_losses: list[float]  # after each epoch
    way: float  # how far it went from the start: 1 all the way, 0 not at all


def finetune(
    *,
    bi: Path,
    start: Path | None,
    taught: Sequence[Taught],
    tune: Sequence[Taught],
    replay: Sequence[Pair],
    out: Path,
    plan: Plan,
    progress: Tell = lambda done, total, step, left: None,
) -> Finetuned:
    """Fit the cross-encoder in `start` to labels; writes a Hugging Face folder `out`.

    `bi` is the bi-encoder's folder, whose cosine the network corrects; without a `start` the
    network begins as `bi`, learns to compare, and gets a head that says zero. `tune` are
    labels of other questions, to stop by; `replay` are pairs that nobody judged. It goes on from
    the checkpoint in `out` where one is; what is finished there is not run again. Raises
    ValueError where all labels are of one kind, FloatingPointError where a loss is not finite;
    whatever `progress` raises ends it.
    """
    if (out / NOTE).exists():
        return _read(out)
    if len({one.label for one in taught}) < 2:
        raise ValueError("training needs duplicates and others")
    torch.set_num_threads(plan.threads)
    progress(0, 0, "reading the pairs", None)
    if start is None and replay:
        start = learn_to_compare(bi=bi, pairs=replay, out=out / START, plan=plan, progress=progress)
    reader, tokenizer = BiEncoder(bi, fastest_dtype()), AutoTokenizer.from_pretrained(bi)
    examples = _labelled(taught, reader, tokenizer, plan)
    examples += _replayed(replay, start, tokenizer, plan)
    judged_by = _labelled(tune, reader, tokenizer, plan)
    network = fitting.start_network(start or bi, plan.seed, plan.dropout, is_fresh=start is None)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    course = replace(plan, stranger_weight=plan.replay_weight)
    judge = _judge(judged_by, tokenizer) if len(judged_by) >= FEWEST_JUDGES else None
    done = fitting.descend(
        network, tokenizer, examples, out, course, plan.seed,
        judge=judge, progress=_told(progress), keep_every=KEPT_EVERY,
    )  # fmt: skip
    progress(1, 1, "choosing how far to go", None)
    way, loss = _choose_way(network, before, judge)
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    made = Finetuned(out, done.step, done.spent, loss, done.judged, way)
    _write(made)
    fitting.finished(out)
    return made


def learn_to_compare(
    *,
    bi: Path,
    pairs: Sequence[Pair],
    out: Path,
    plan: Plan,
    progress: Tell = lambda done, total, step, left: None,
) -> Path:
    """Teach the bi-encoder in `bi` to say the cosine of two texts that it reads jointly, from
    `pairs` that nobody judged; writes it, with a head that says zero, to start from into `out`.

    Without it the first thousands of labels teach it little more than to compare. What is finished
    there is not run again, and what was killed goes on.
    """
    if (out / NOTE).exists():
        return out
    torch.set_num_threads(plan.threads)
    reader, tokenizer = BiEncoder(bi, fastest_dtype()), AutoTokenizer.from_pretrained(bi)
    offsets = fitting.offsets_of(pairs, reader)
    ids = fitting.encode(pairs, tokenizer, plan.max_tokens)
    examples = [
        Example(i, 0.0, UNKNOWN, wanted=float(offset))
        for i, offset in zip(ids, offsets, strict=True)
    ]
    network = fitting.start_network(bi, plan.seed, is_fresh=True)
    torch.nn.init.normal_(network.classifier.weight, std=network.config.initializer_range)
    course = Course(
        minutes=plan.minutes, rate=plan.rate, batch=COMPARED, max_tokens=plan.max_tokens,
        pieces=4, head_rate=10.0,
    )  # fmt: skip
    fitting.descend(
        network, tokenizer, examples, out, course, plan.seed,
        progress=_told(progress, "learning to compare"), keep_every=KEPT_EVERY,
    )  # fmt: skip
    fitting.says_zero(network)
    tokenizer.save_pretrained(out)
    network.save_pretrained(out)
    (out / NOTE).write_text(json.dumps({"compared": len(pairs)}), encoding="utf-8")
    fitting.finished(out)
    return out


def _labelled(
    taught: Sequence[Taught], reader: BiEncoder, tokenizer: AutoTokenizer, plan: Plan
) -> list[Example]:
    if not taught:
        return []
    pairs = [one.pair for one in taught]
    ids = fitting.encode(pairs, tokenizer, plan.max_tokens)
    offsets = fitting.offsets_of(pairs, reader)
    return [
        Example(i, float(offset), one.label, weight=one.weight)
        for i, offset, one in zip(ids, offsets, taught, strict=True)
    ]


def _replayed(
    replay: Sequence[Pair], start: Path | None, tokenizer: AutoTokenizer, plan: Plan
) -> list[Example]:
    """Pairs without a label, with what the network says of them before: nothing, if it is fresh."""
    ids = fitting.encode(replay, tokenizer, plan.max_tokens)
    wanted = CrossEncoder(start).scores(replay) if start and replay else np.zeros(len(replay))
    return [
        Example(i, 0.0, UNKNOWN, wanted=float(logit)) for i, logit in zip(ids, wanted, strict=True)
    ]


def _judge(examples: Sequence[Example], tokenizer: AutoTokenizer) -> fitting.Judge | None:
    """The weighted log loss of a network on these labels, once it is calibrated on them: only what
    no calibration can mend is held against it."""
    label, offset, weight = (
        np.asarray([getattr(e, name) for e in examples]) for name in ("label", "offset", "weight")
    )
    if len(set(label.tolist())) < 2:
        return None

    def judge(network: BertForSequenceClassification) -> float:
        logits = np.zeros(len(examples))
        for chosen in cut([len(e.ids) for e in examples], TOKENS):
            logits[chosen] = fitting.logits_of(
                network, tokenizer, [examples[i].ids for i in chosen]
            ).numpy()
        raw = offset + logits
        fitted = fit_calibration(raw, np.zeros(len(raw)), label, weights=weight)
        if fitted.by_logit <= 0:
            return WRONG_WAY - fitted.by_logit  # no calibration mends what is the wrong way round
        ranked = fitted.ranked_by(raw, np.zeros(len(raw)))
        cost = np.logaddexp(0.0, ranked) - label * ranked
        return float(np.average(cost, weights=weight))

    return judge


@torch.inference_mode()
def _choose_way(
    network: BertForSequenceClassification,
    before: dict[str, torch.Tensor],
    judge: fitting.Judge | None,
) -> tuple[float, float | None]:
    """Leave `network` with the weights between start and end that are judged best; how far that
    is, and its loss."""
    if judge is None:
        return 1.0, None
    after = {name: weight.clone() for name, weight in network.state_dict().items()}
    network.eval()

    def at(way: float) -> float:
        network.load_state_dict({n: _between(before[n], after[n], way) for n in after})
        return judge(network)

    losses = {way: at(way) for way in (0.0, *WAYS)}
    best = min(losses, key=lambda way: losses[way])
    return best, at(best)


def _between(one: torch.Tensor, other: torch.Tensor, way: float) -> torch.Tensor:
    return torch.lerp(one, other, way) if one.is_floating_point() else other


def _told(progress: Tell, doing: str = "training") -> fitting.Progress:
    def tell(step: int, steps: int, loss: float, seconds_left: float) -> None:
        left = None if math.isnan(seconds_left) else seconds_left
        progress(step, steps, f"{doing}, loss {loss:.3f}", left)

    return tell


def _write(made: Finetuned) -> None:
    raw = {**asdict(made), "folder": made.folder.name}
    (made.folder / NOTE).write_text(json.dumps(raw), encoding="utf-8")


def _read(out: Path) -> Finetuned:
    raw = json.loads((out / NOTE).read_text(encoding="utf-8"))
    return Finetuned(**{**raw, "folder": out})
