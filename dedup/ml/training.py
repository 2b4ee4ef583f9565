"""Fits a cross-encoder as a correction to the cosine.

    python -m dedup.ml.training --data FOLDER --base FOLDER --recipe FILE --folder FOLDER

probability = sigmoid(SCALE * (cosine - MIDDLE) + logit): the network starts as no correction at
all and learns from labels what the cosine gets wrong. On strangers' texts, where the base knows
more than the labels do, it is held small, or learns from a larger bi-encoder (see `teaching`).
Residual learning: He et al. 2016.
"""

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.data import Labelled
from dedup.ml.mixture import UNKNOWN, Mixture, mix
from dedup.ml.packing import fastest_dtype
from dedup.ml.pairs import Pair
from dedup.ml.teaching import Teacher, brought_to

log = logging.getLogger(__name__)

SCALE, MIDDLE = 10.0, 0.75
DONE = "stage.json"  # written last: what made the network beside it
KEPT = "checkpoint.pt"  # weights, optimizer and step of a stage that is not finished
KEPT_EVERY = 300.0  # seconds
LONGEST_STEP = 30.0  # seconds that a step may count for: a machine that slept has not trained


@dataclass(frozen=True)
class Stage:
    """One run over a mixture; `minutes` bounds it, so that a slow machine ends too.

    It begins with the mean of the weights of the stages `after`, or where the one before it ended.
    """

    name: str
    mixture: Mixture
    after: tuple[str, ...] = ()
    seed: int | None = None  # the recipe's and the stage's number where it is not given
    minutes: float = 60.0
    rate: float = 8e-5
    batch: int = 32
    max_tokens: int = 128
    stranger_weight: float = 0.1
    duplicate_weight: float = 1.0
    dropout: float = 0.0
    is_taught: bool = False  # strangers' corrections are a teacher's, not zero


@dataclass(frozen=True)
class Recipe:
    """How a network is made, stage after stage: a file, written into the release's manifest too.

    The weights of the stages in `average` make the network (model soups: Wortsman et al. 2022a).
    """

    seed: int
    stages: tuple[Stage, ...]
    average: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> "Recipe":
        """Raises TypeError or KeyError where the file says what no recipe has."""
        given = json.loads(file.read_text(encoding="utf-8"))
        stages = [
            Stage(
                **{**row, "mixture": Mixture(**row["mixture"]), "after": (*row.get("after", ()),)}
            )
            for row in given["stages"]
        ]
        return cls(given["seed"], tuple(stages), tuple(given["average"]))


@dataclass(frozen=True)
class Example:
    """Token ids of a pair, the cosine's part of its logit, and its label or `UNKNOWN`.

    `wanted` is the correction of a pair without a label: 0, or what a teacher knows better.
    """

    ids: list[int]
    offset: float
    label: float
    wanted: float = 0.0


def train(
    data: Path, base: Path, folder: Path, recipe: Recipe, teacher: Path | None = None
) -> Path:
    """Runs the stages in `folder`; returns the folder of the network that they make.

    A stage that is finished there is not run again, one that was stopped goes on from its last
    checkpoint. `teacher` is a larger bi-encoder's folder, for the stages that are taught. Raises
    FloatingPointError where a loss is not finite, KeyError where a stage is named that does not
    come before, ValueError where a teacher is missing.
    """
    done: dict[str, Path] = {}
    start = base
    for number, stage in enumerate(recipe.stages, 1):
        out = folder / f"{number}-{stage.name}"
        if stage.after:
            start = average([done[name] for name in stage.after], folder / "start" / stage.name)
        if not (out / DONE).exists():
            taught_by = _teacher(teacher, folder, stage)
            seed = recipe.seed + number - 1 if stage.seed is None else stage.seed
            fit(data, base, start, out, stage, seed, taught_by)
        start = done[stage.name] = out
    return average([done[name] for name in recipe.average], folder / "network")


def average(trained: Sequence[Path], out: Path) -> Path:
    """Writes the network whose weights are the mean of those of `trained`; returns `out`."""
    networks = [
        BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        for folder in trained
    ]
    weights = [network.state_dict() for network in networks]
    mean = {name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]}
    networks[0].load_state_dict(mean)
    networks[0].save_pretrained(out)
    AutoTokenizer.from_pretrained(trained[0]).save_pretrained(out)
    return out


def _teacher(teacher: Path | None, folder: Path, stage: Stage) -> Teacher | None:
    if not stage.is_taught:
        return None
    if teacher is None:
        raise ValueError(f"stage {stage.name} is taught: a teacher's folder is needed")
    folder.mkdir(parents=True, exist_ok=True)
    return Teacher(teacher, folder / "teacher.npz")


def fit(
    data: Path, base: Path, start: Path, out: Path, stage: Stage, seed: int,
    teacher: Teacher | None = None,
) -> None:  # fmt: skip
    """One pass over the stage's mixture, or as far as its minutes reach; writes `out`.

    `base` gives the cosines, `start` the weights. Raises FloatingPointError where the loss is not
    finite.
    """
    bi, tokenizer = BiEncoder(base, fastest_dtype()), AutoTokenizer.from_pretrained(base)
    rows = mix(data, bi, stage.mixture, seed)
    examples = encode(rows, bi, tokenizer, stage, teacher)
    log.info("stage %s: %d pairs", stage.name, len(examples))
    rng = random.Random(seed)  # noqa: S311 - no secret
    plan = list(batches([len(e.ids) for e in examples], stage.batch, rng))
    network = start_network(start, seed, stage.dropout, is_fresh=start == base)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.rate, weight_decay=0.01, fused=True)
    out.mkdir(parents=True, exist_ok=True)
    first, before = _resume(out / KEPT, network, optimizer)
    spent, kept_at, mean, at = before, before, 0.0, time.monotonic()
    for step in range(first, len(plan) + 1):
        spent, at = spent + min(time.monotonic() - at, LONGEST_STEP), time.monotonic()
        done = max(step / len(plan), spent / (60 * stage.minutes))
        if done >= 1:
            break
        if spent - kept_at > KEPT_EVERY:
            _keep(out / KEPT, network, optimizer, step, spent)
            kept_at = spent
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * min(1.0, step / 100) * (0.03 + 0.97 * (1 - done))
        loss = loss_of(network, tokenizer, [examples[i] for i in plan[step]], stage)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = loss.item() if step == first else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            left = spent / done - spent if done else 60 * stage.minutes
            log.info("step %d of %d, loss %.4f, %.1f pairs/s, %.0f min left", step, len(plan),
                     mean, step * stage.batch / max(spent, 1e-9), left / 60)  # fmt: skip
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / KEPT).unlink(missing_ok=True)
    (out / DONE).write_text(json.dumps({**asdict(stage), "seed": seed, "steps": step}))


def _keep(
    file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float
) -> None:
    """Written beside and moved into place: a kill in mid-write leaves the last one."""
    state = {
        "network": network.state_dict(), "optimizer": optimizer.state_dict(),
        "step": step, "spent": spent,
    }  # fmt: skip
    torch.save(state, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def _resume(
    file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """The step to go on from and the seconds spent before it; (0, 0.0) without a checkpoint."""
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("going on from step %d", state["step"])
    return state["step"], state["spent"]


def encode(
    rows: Sequence[Labelled],
    bi: BiEncoder,
    tokenizer: AutoTokenizer,
    stage: Stage,
    teacher: Teacher | None = None,
) -> list[Example]:
    """Token ids, in the order that serving uses, and the cosine of each pair."""
    ordered = [Pair(*sorted([row.first, row.second])) for row in rows]
    log.info("embedding the texts of %d pairs", len(ordered))
    cosines = pair_cosines(bi.embed, ordered)
    offsets, wanted = SCALE * (cosines - MIDDLE), np.zeros(len(rows))
    strange = np.asarray([row.label == UNKNOWN for row in rows])
    if teacher and strange.any():
        taught = pair_cosines(
            teacher.embed, [p for p, is_strange in zip(ordered, strange, strict=True) if is_strange]
        )
        wanted[strange] = SCALE * (brought_to(taught, cosines[strange]) - cosines[strange])
        log.info("the teacher corrects by %.2f (standard deviation)", wanted[strange].std())
    ids = tokenizer(
        [p.older for p in ordered], [p.newer for p in ordered],
        truncation=True, max_length=stage.max_tokens,
    )["input_ids"]  # fmt: skip
    return [
        Example(i, float(offset), row.label, float(correction))
        for i, offset, row, correction in zip(ids, offsets, rows, wanted, strict=True)
    ]


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Row numbers in batches of like length, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + rng.random() * 4)
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(cut)
    yield from cut


def start_network(
    start: Path, seed: int, dropout: float, *, is_fresh: bool
) -> BertForSequenceClassification:
    """The network of `start`, word embeddings frozen; a fresh one gets a head that says zero."""
    torch.manual_seed(seed)
    network = BertForSequenceClassification.from_pretrained(
        start, num_labels=1, dtype=torch.float32,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    network.bert.embeddings.requires_grad_(False)
    if is_fresh:
        torch.nn.init.zeros_(network.classifier.weight)
        torch.nn.init.zeros_(network.classifier.bias)
    return network.train()


def loss_of(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    examples: Sequence[Example],
    stage: Stage,
) -> torch.Tensor:
    """Cross-entropy of the corrected cosine; the squared distance from the wanted correction
    where there is no label."""
    sep = tokenizer.sep_token_id
    ids = [e.ids for e in examples]
    types = [[0] * (i.index(sep) + 1) + [1] * (len(i) - i.index(sep) - 1) for i in ids]
    batch = tokenizer.pad({"input_ids": ids, "token_type_ids": types}, return_tensors="pt")
    label = torch.tensor([e.label for e in examples])
    offset = torch.tensor([e.offset for e in examples], dtype=torch.float32)
    wanted = torch.tensor([e.wanted for e in examples], dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit = network(**batch).logits.squeeze(-1)
    logit, known = logit.float(), label != UNKNOWN
    cost = torch.nn.functional.binary_cross_entropy_with_logits(
        offset + logit, label.clamp(min=0.0), reduction="none"
    )
    cost = torch.where(label == 1.0, stage.duplicate_weight * cost, cost)
    return torch.where(known, cost, stage.stranger_weight * (logit - wanted).square()).mean()


def main() -> None:
    """Command line; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "base", "recipe", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    train(given.data, given.base, given.folder, Recipe.read(given.recipe), given.teacher)


if __name__ == "__main__":
    main()
