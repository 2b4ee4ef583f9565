"""Fits a cross-encoder: on labels, or imitating the bi-encoder's cosine on unlabelled pairs.

    python -m dedup.ml.training label|imitate --data FOLDER --base FOLDER --out FOLDER

Two such runs, from the same start, are interpolated by `building.py`: the imitating half keeps
what the base knows of texts that no label speaks of (weight interpolation: Wortsman et al. 2022).
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

from dedup.ml.biencoder import BiEncoder
from dedup.ml.composing import compose
from dedup.ml.data import Labelled, labelled, rows, unlabelled_pairs
from dedup.ml.nearmisses import RULES, make_positive
from dedup.ml.text import model_input

log = logging.getLogger(__name__)

COSINE_SCALE, COSINE_MIDDLE = 10.0, 0.7  # imitated logit = scale * (cosine - middle)


@dataclass(frozen=True)
class Recipe:
    """How one run is made; written into the release's manifest."""

    kind: str  # "label" or "imitate"
    minutes: float
    pairs: int
    seed: int = 7
    rate: float = 1e-4
    batch: int = 32
    max_tokens: int = 112
    near_miss_share: float = 0.12
    composites: int = 0  # title-and-body pairs beside the plain ones
    forum: bool = False  # the forum's first training part beside the rest
    start: str = "base"  # whose weights it went on from


def label_rows(data: Path, recipe: Recipe, rng: random.Random) -> list[Labelled]:
    """Clean labelled rows, near misses labelled 0 and as many easy positives labelled 1."""
    kept = labelled(data, "qqp_train")
    rng.shuffle(kept)
    made: list[Labelled] = []
    wanted = int(recipe.pairs * recipe.near_miss_share)
    for row in kept:
        if len(made) >= 2 * wanted:
            break
        changed = RULES[rng.choice(list(RULES))](row.first, rng)
        if changed and changed != row.first:
            made.append(Labelled(row.first, changed, 0.0))
            made.append(Labelled(row.first, make_positive(row.first, rng), 1.0))
    made += compose(kept, recipe.composites, rng)
    if recipe.forum:
        made += forum_rows(data, "semeval_cqa_train_part1")
    return kept[: recipe.pairs] + made


def forum_rows(data: Path, name: str) -> list[Labelled]:
    """Forum questions with their bodies."""
    return [
        Labelled(
            model_input(r["q_title"], r["q_body"]),
            model_input(r["c_title"], r["c_body"]),
            float(r["label"]),
        )
        for r in rows(data, name)
    ]


def imitation_rows(data: Path, base: Path, recipe: Recipe, rng: random.Random) -> list[Labelled]:
    """Unlabelled pairs, near neighbours and strangers; the label is the scaled cosine."""
    pairs = unlabelled_pairs(data, recipe.pairs // 3, rng)
    texts = sorted({text for pair in pairs for text in pair})
    vectors = BiEncoder(base).embed(texts)
    at = {text: i for i, text in enumerate(texts)}
    asked = rng.sample(range(len(texts)), min(len(texts), recipe.pairs // 2))
    near = np.argsort(-(vectors[asked] @ vectors.T), axis=1)[:, 1:9]
    found = [(at[a], at[b]) for a, b in pairs]
    found += [(i, int(rng.choice(row.tolist()))) for i, row in zip(asked, near, strict=True)]
    found += [(rng.randrange(len(texts)), rng.randrange(len(texts))) for _ in asked[::3]]
    return [
        Labelled(
            texts[i], texts[j], COSINE_SCALE * (float(vectors[i] @ vectors[j]) - COSINE_MIDDLE)
        )
        for i, j in found
    ]


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Row numbers in batches of like length, in random order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + rng.random() * 4)
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(cut)
    yield from cut


def start_network(base: Path, seed: int) -> BertForSequenceClassification:
    """The base with a fresh one-logit head; word embeddings frozen."""
    torch.manual_seed(seed)
    network = BertForSequenceClassification.from_pretrained(base, num_labels=1)
    network.bert.embeddings.requires_grad_(False)
    network.config.hidden_dropout_prob = network.config.attention_probs_dropout_prob = 0.0
    return network.eval()  # no dropout: runs are short and one pass over the data


def fit(data: Path, base: Path, out: Path, recipe: Recipe) -> None:
    """Trains for the recipe's minutes or one pass, whichever ends first; writes `out`."""
    rng = random.Random(recipe.seed)  # noqa: S311 - no secret
    make = label_rows if recipe.kind == "label" else None
    given = make(data, recipe, rng) if make else imitation_rows(data, base, recipe, rng)
    tokenizer = AutoTokenizer.from_pretrained(base)
    turned = [(r.first, r.second) if rng.random() < 0.5 else (r.second, r.first) for r in given]
    encoded = tokenizer(
        [p[0] for p in turned], [p[1] for p in turned],
        truncation=True, max_length=recipe.max_tokens,
    )["input_ids"]  # fmt: skip
    log.info("%s: %d pairs", recipe.kind, len(given))
    network = start_network(base, recipe.seed)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01)
    begun = time.monotonic()
    plan = list(batches([len(ids) for ids in encoded], recipe.batch, rng))
    for step, chosen in enumerate(plan):
        spent = time.monotonic() - begun
        done = max(step / len(plan), spent / (60 * recipe.minutes))
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / 30) * (0.05 + 0.95 * (1 - done))
        loss = loss_of(network, tokenizer, [encoded[i] for i in chosen],
                       [given[i].label for i in chosen], recipe.kind)  # fmt: skip
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            log.info("step %d of %d, %.0f %% done, loss %.4f, %.1f pairs/s", step, len(plan),
                     100 * done, loss.item(), step * recipe.batch / max(spent, 1e-9))  # fmt: skip
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe)))


def loss_of(
    network: BertForSequenceClassification,
    tokenizer: AutoTokenizer,
    ids: Sequence[list[int]],
    labels: Sequence[float],
    kind: str,
) -> torch.Tensor:
    """Cross-entropy on labels, or mean squared error from the imitated logit."""
    sep = tokenizer.sep_token_id
    types = [[0] * (i.index(sep) + 1) + [1] * (len(i) - i.index(sep) - 1) for i in ids]
    batch = tokenizer.pad({"input_ids": list(ids), "token_type_ids": types}, return_tensors="pt")
    target = torch.tensor(labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(**batch).logits.squeeze(-1)
    logits = logits.float()
    if kind == "label":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    return torch.nn.functional.mse_loss(logits, target)


def main() -> None:
    """Command line; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["label", "imitate"])
    for name in ("data", "base", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pairs", type=int, default=45_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--near-miss-share", type=float, default=0.12)
    parser.add_argument("--composites", type=int, default=0)
    parser.add_argument("--forum", action="store_true")
    parser.add_argument("--start", default="base", help="what --base is called in the recipe")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    recipe = Recipe(
        given.kind, given.minutes, given.pairs, given.seed, given.rate,
        near_miss_share=given.near_miss_share, composites=given.composites, forum=given.forum,
        start=given.start,
    )  # fmt: skip
    fit(given.data, given.base, given.out, recipe)


if __name__ == "__main__":
    main()
