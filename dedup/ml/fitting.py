"""The loop that fits a network as a correction to the cosine, whatever its examples are.

probability = sigmoid(SCALE * (cosine - MIDDLE) + logit): the network starts as no correction at
all and learns from labels what the cosine gets wrong. Where no label speaks of a pair, it is held
near a correction that is wanted: none, or what another network knows. Residual learning: He et al.
2016.
"""

import json
import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.pairs import Pair

log = logging.getLogger(__name__)

SCALE, MIDDLE = 10.0, 0.75
UNKNOWN = -1.0  # the label of a pair that nobody judged
KEPT = "checkpoint.safetensors"  # weights, optimizer and step of what is not finished
KEPT_EVERY = 300.0  # seconds
LONGEST_STEP = 30.0  # seconds that a step may count for: a machine that slept has not trained

Progress = Callable[[int, int, float, float], None]  # step, steps, mean loss, seconds left
Judge = Callable[[BertForSequenceClassification], float]  # the lower the better


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the loop goes; `minutes` bounds it, so that a slow machine ends too."""

    minutes: float = 60.0
    rate: float = 8e-5
    batch: int = 32
    max_tokens: int = 128
    stranger_weight: float = 0.1  # of pairs that nobody judged
    duplicate_weight: float = 1.0
    dropout: float = 0.0
    epochs: int = 1
    patience: int = 1  # epochs without a better one, where somebody judges
    pieces: int = 1  # 1: a step's pairs are of like length; more: of any, computed in such pieces
    head_rate: float = 1.0  # of the head, in rates
    last_rate: float = 0.03  # at the end, in rates; it falls there in a straight line


@dataclass(frozen=True)
class Example:
    """Token ids of a pair, the cosine's part of its logit, and its label or `UNKNOWN`.

    `wanted` is the correction of a pair without a label: 0, or what another network knows better.
    """

    ids: list[int]
    offset: float
    label: float
    wanted: float = 0.0
    weight: float = 1.0


@dataclass
class Descent:
    """How far the loop is, and how it was judged after each epoch."""

    step: int = 0
    spent: float = 0.0  # seconds
    judged: list[float] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None  # weights of the epoch that was judged best

    @property
    def since_best(self) -> int:
        return len(self.judged) - 1 - int(np.argmin(self.judged)) if self.judged else 0


def descend(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    examples: Sequence[Example],
    out: Path,
    course: Course,
    seed: int,
    *,
    judge: Judge | None = None,
    progress: Progress | None = None,
    keep_every: float | None = None,
) -> Descent:
    """Fit `network` in place, from the checkpoint in `out` where one is.

    With a `judge` it ends as it was after the best epoch, and stops where `patience` epochs brought
    nothing better. Whoever calls writes the network, then drops the checkpoint (`finished`). Raises
    FloatingPointError where a loss is not finite.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    lengths = [len(e.ids) for e in examples]
    epochs = [list(steps(lengths, course, rng)) for _ in range(course.epochs)]
    plan = [chosen for epoch in epochs for chosen in epoch]
    warm_up = min(100, max(1, len(plan) // 10))
    optimizer = _optimizer(network, course)
    out.mkdir(parents=True, exist_ok=True)
    at = _resume(out / KEPT, network, optimizer)
    first, kept_at, mean, clock = at.step, at.spent, 0.0, time.monotonic()
    for step in range(first, len(plan) + 1):
        at.step = step
        at.spent, clock = at.spent + min(time.monotonic() - clock, LONGEST_STEP), time.monotonic()
        if judge and step > first and step % len(epochs[0]) == 0:
            _judge(judge, network, at)
            if at.since_best >= course.patience:
                break
        done = max(step / len(plan), at.spent / (60 * course.minutes)) if plan else 1.0
        if done >= 1:
            break
        if at.spent - kept_at > (KEPT_EVERY if keep_every is None else keep_every):
            _keep(out / KEPT, network, optimizer, at)
            kept_at = at.spent
        for group in optimizer.param_groups:
            fallen = 1 - (1 - course.last_rate) * done
            rate = course.rate * min(1.0, step / warm_up) * fallen
            group["lr"] = rate * group["times"]
        chosen = [[examples[i] for i in piece] for piece in plan[step]]
        loss = _step(network, tokenizer, chosen, optimizer, course)
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss is {loss} at step {step}")
        mean = loss if step == first else 0.98 * mean + 0.02 * loss
        if progress:
            progress(step + 1, len(plan), mean, at.spent / done - at.spent if done else math.nan)
    if judge and at.best is not None:
        network.load_state_dict(at.best)
    return at


def _optimizer(network: BertForSequenceClassification, course: Course) -> torch.optim.Optimizer:
    head = list(network.classifier.parameters())
    body = [p for name, p in network.named_parameters() if not name.startswith("classifier.")]
    groups = [
        {"params": [p for p in body if p.requires_grad], "times": 1.0},
        {"params": head, "times": course.head_rate},
    ]
    return torch.optim.AdamW(groups, lr=course.rate, weight_decay=0.01, fused=True)


def _step(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    pieces: Sequence[Sequence[Example]],
    optimizer: torch.optim.Optimizer,
    course: Course,
) -> float:
    """One step along the mean gradient of all pieces; their mean loss, and no step where that is
    not finite."""
    total, count = 0.0, sum(len(piece) for piece in pieces)
    for piece in pieces:
        loss = loss_of(network, tokenizer, piece, course) * (len(piece) / count)
        loss.backward()
        total += loss.item()
    if math.isfinite(total):
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _judge(judge: Judge, network: BertForSequenceClassification, at: Descent) -> None:
    network.eval()
    with torch.inference_mode():
        found = judge(network)
    network.train()
    if not at.judged or found < min(at.judged):
        at.best = {name: weight.detach().clone() for name, weight in network.state_dict().items()}
    at.judged.append(found)
    log.info("epoch %d: judged %.4f", len(at.judged), found)


def finished(out: Path) -> None:
    """Drop the checkpoint: what it led to lies there now."""
    (out / KEPT).unlink(missing_ok=True)


def _keep(
    file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, at: Descent
) -> None:
    """Written beside and moved into place: a kill in mid-write leaves the last one.

    Tensors by what they are of, and all numbers as JSON in the same file's header.
    """
    steps = optimizer.state_dict()
    parts = {"network": network.state_dict(), "best": at.best or {}}
    parts |= {f"optimizer.{index}": state for index, state in steps["state"].items()}
    tensors = {
        f"{part}/{name}": torch.as_tensor(value).contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    numbers = {
        "step": at.step, "spent": at.spent, "judged": at.judged, "has_best": at.best is not None,
        "groups": steps["param_groups"],
    }  # fmt: skip
    beside = file.with_suffix(".part")
    save_file(tensors, beside, metadata={"numbers": json.dumps(numbers)})
    beside.replace(file)


def _resume(file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Descent:
    """From the checkpoint; from the start where there is none, or one that cannot be read."""
    if not file.exists():
        return Descent()
    try:
        parts, numbers = _read(file)
    except (SafetensorError, ValueError, KeyError) as error:
        log.warning("%s cannot be read (%s): beginning anew", file.name, type(error).__name__)
        return Descent()
    network.load_state_dict(parts.pop("network"))
    best = parts.pop("best", {})
    state = {int(part.removeprefix("optimizer.")): values for part, values in parts.items()}
    optimizer.load_state_dict({"state": state, "param_groups": numbers["groups"]})
    log.info("going on from step %d", numbers["step"])
    has_best = numbers["has_best"]
    return Descent(numbers["step"], numbers["spent"], numbers["judged"], best if has_best else None)


def _read(file: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    with safe_open(file, "pt") as kept:
        numbers: dict[str, Any] = json.loads(kept.metadata()["numbers"])
        for key in kept.keys():  # noqa: SIM118 - no dictionary
            part, _slash, name = key.partition("/")
            parts[part][name] = kept.get_tensor(key)
    return parts, numbers


def encode(pairs: Sequence[Pair], tokenizer: AutoTokenizer, max_tokens: int) -> list[list[int]]:
    """Token ids of each pair, its texts in the order that serving uses."""
    if not pairs:
        return []
    ordered = [sorted([pair.older, pair.newer]) for pair in pairs]
    read: list[list[int]] = tokenizer(
        [one for one, _ in ordered], [other for _, other in ordered],
        truncation=True, max_length=max_tokens,
    )["input_ids"]  # fmt: skip
    return read


def offsets_of(pairs: Sequence[Pair], bi: BiEncoder) -> np.ndarray:
    """(n,) what the cosine alone says of each pair, as a logit."""
    return SCALE * (pair_cosines(bi.embed, pairs) - MIDDLE)


def steps(lengths: Sequence[int], course: Course, rng: random.Random) -> Iterator[list[list[int]]]:
    """Row numbers of an epoch's steps, each in pieces of like length.

    Steps of like length pad least. But where short pairs are of another kind than long ones, each
    such step pulls the network to its kind; steps of any length go where all of them point.
    """
    if course.pieces == 1:
        yield from ([batch] for batch in batches(lengths, course.batch, rng))
        return
    order = list(range(len(lengths)))
    rng.shuffle(order)
    for at in range(0, len(order), course.batch):
        chosen = sorted(order[at : at + course.batch], key=lambda i: lengths[i])
        size = math.ceil(len(chosen) / course.pieces)
        yield [chosen[i : i + size] for i in range(0, len(chosen), size)]


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Row numbers in batches of like length, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + rng.random() * 4)
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(cut)
    yield from cut


def start_network(
    start: Path, seed: int, dropout: float = 0.0, *, is_fresh: bool
) -> BertForSequenceClassification:
    """The network of `start`, word embeddings frozen; a fresh one gets a head that says zero."""
    torch.manual_seed(seed)
    network = BertForSequenceClassification.from_pretrained(
        start, num_labels=1, dtype=torch.float32,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",  # of texts so short, torch's fused attention learns slower
    )  # fmt: skip
    network.bert.embeddings.requires_grad_(False)
    if is_fresh:
        says_zero(network)
    return network.train()


def says_zero(network: BertForSequenceClassification) -> None:
    """Give it a head that says zero of each pair: no correction at all."""
    torch.nn.init.zeros_(network.classifier.weight)
    torch.nn.init.zeros_(network.classifier.bias)


def logits_of(
    network: BertForSequenceClassification, tokenizer: AutoTokenizer, ids: Sequence[list[int]]
) -> torch.Tensor:
    """(n,) logits of encoded pairs, padded to the longest of them; with gradients in training."""
    sep = tokenizer.sep_token_id
    types = [[0] * (i.index(sep) + 1) + [1] * (len(i) - i.index(sep) - 1) for i in ids]
    batch = tokenizer.pad({"input_ids": list(ids), "token_type_ids": types}, return_tensors="pt")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits: torch.Tensor = network(**batch).logits.squeeze(-1)
    return logits.float()


def loss_of(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    examples: Sequence[Example],
    course: Course,
) -> torch.Tensor:
    """Cross-entropy of the corrected cosine; the squared distance from the wanted correction
    where there is no label."""
    label = torch.tensor([e.label for e in examples])
    offset = torch.tensor([e.offset for e in examples], dtype=torch.float32)
    wanted = torch.tensor([e.wanted for e in examples], dtype=torch.float32)
    weight = torch.tensor([e.weight for e in examples], dtype=torch.float32)
    logit, known = logits_of(network, tokenizer, [e.ids for e in examples]), label != UNKNOWN
    cost = torch.nn.functional.binary_cross_entropy_with_logits(
        offset + logit, label.clamp(min=0.0), reduction="none"
    )
    cost = torch.where(label == 1.0, course.duplicate_weight * cost, cost)
    cost = torch.where(known, cost, course.stranger_weight * (logit - wanted).square())
    return (weight * cost).mean()
