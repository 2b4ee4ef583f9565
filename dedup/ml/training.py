"""Fits a cross-encoder as a correction to the cosine.

    python -m dedup.ml.training --data FOLDER --base FOLDER --out FOLDER

probability = sigmoid(SCALE * (cosine - MIDDLE) + logit): the network starts as no correction at
all, learns from labels what the cosine gets wrong, and is held small on strangers' texts, where
the base knows more than the labels do (residual learning: He et al. 2016).
"""

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml.biencoder import BiEncoder, pair_cosines
from dedup.ml.data import Labelled
from dedup.ml.mixture import UNKNOWN, Mixture, mix
from dedup.ml.pairs import Pair

log = logging.getLogger(__name__)

SCALE, MIDDLE = 10.0, 0.75


@dataclass(frozen=True)
class Recipe:
    """How a network is made; written into the release's manifest."""

    minutes: float = 45.0
    rate: float = 8e-5
    batch: int = 32
    max_tokens: int = 128
    stranger_weight: float = 0.1
    seed: int = 7
    mixture: Mixture = field(default_factory=Mixture)


@dataclass(frozen=True)
class Example:
    """Token ids of a pair, the cosine's part of its logit, and its label or `UNKNOWN`."""

    ids: list[int]
    offset: float
    label: float


def fit(data: Path, base: Path, out: Path, recipe: Recipe) -> None:
    """Trains for the recipe's minutes or one pass, whichever ends first; writes `out`.

    Raises FloatingPointError where the loss is not finite.
    """
    bi, tokenizer = BiEncoder(base), AutoTokenizer.from_pretrained(base)
    examples = encode(mix(data, bi, recipe.mixture, recipe.seed), bi, tokenizer, recipe)
    log.info("%d pairs", len(examples))
    network = start_network(base, recipe.seed)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01)
    rng = random.Random(recipe.seed)  # noqa: S311 - no secret
    plan = list(batches([len(e.ids) for e in examples], recipe.batch, rng))
    begun, mean = time.monotonic(), 0.0
    for step, chosen in enumerate(plan):
        spent = time.monotonic() - begun
        done = max(step / len(plan), spent / (60 * recipe.minutes))
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / 100) * (0.03 + 0.97 * (1 - done))
        loss = loss_of(network, tokenizer, [examples[i] for i in chosen], recipe.stranger_weight)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("step %d of %d, %.0f %% done, loss %.4f, %.1f pairs/s", step, len(plan),
                     100 * done, mean, step * recipe.batch / max(spent, 1e-9))  # fmt: skip
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe)))


def encode(
    rows: Sequence[Labelled], bi: BiEncoder, tokenizer: AutoTokenizer, recipe: Recipe
) -> list[Example]:
    """Token ids, in the order that serving uses, and the cosine of each pair."""
    ordered = [Pair(*sorted([row.first, row.second])) for row in rows]
    log.info("embedding the texts of %d pairs", len(ordered))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        offsets = SCALE * (pair_cosines(bi.embed, ordered) - MIDDLE)
    ids = tokenizer(
        [p.older for p in ordered], [p.newer for p in ordered],
        truncation=True, max_length=recipe.max_tokens,
    )["input_ids"]  # fmt: skip
    return [
        Example(i, float(offset), row.label)
        for i, offset, row in zip(ids, offsets, rows, strict=True)
    ]


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Row numbers in batches of like length, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + rng.random() * 4)
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(cut)
    yield from cut


def start_network(base: Path, seed: int) -> BertForSequenceClassification:
    """The base with a one-logit head that begins at zero; word embeddings frozen."""
    torch.manual_seed(seed)
    network = BertForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    network.bert.embeddings.requires_grad_(False)
    torch.nn.init.zeros_(network.classifier.weight)
    torch.nn.init.zeros_(network.classifier.bias)
    network.config.hidden_dropout_prob = network.config.attention_probs_dropout_prob = 0.0
    return network.eval()  # no dropout: runs are short and one pass over the data


def loss_of(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    examples: Sequence[Example],
    stranger_weight: float,
) -> torch.Tensor:
    """Cross-entropy of the corrected cosine; the squared correction where there is no label."""
    sep = tokenizer.sep_token_id
    ids = [e.ids for e in examples]
    types = [[0] * (i.index(sep) + 1) + [1] * (len(i) - i.index(sep) - 1) for i in ids]
    batch = tokenizer.pad({"input_ids": ids, "token_type_ids": types}, return_tensors="pt")
    label = torch.tensor([e.label for e in examples])
    offset = torch.tensor([e.offset for e in examples], dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit = network(**batch).logits.squeeze(-1)
    logit, known = logit.float(), label != UNKNOWN
    cost = torch.nn.functional.binary_cross_entropy_with_logits(
        offset + logit, label.clamp(min=0.0), reduction="none"
    )
    return torch.where(known, cost, stranger_weight * logit.square()).mean()


def main() -> None:
    """Command line; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "base", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=8e-5)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    recipe = Recipe(given.minutes, given.rate, seed=given.seed)
    fit(given.data, given.base, given.out, recipe)


if __name__ == "__main__":
    main()
