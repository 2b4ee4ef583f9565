"""Labelled and unlabelled rows of a data folder -> model inputs."""

import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedup.ml.text import model_input


@dataclass(frozen=True)
class Labelled:
    """Two model inputs and 1.0 (duplicate) or 0.0."""

    first: str
    second: str
    label: float


def rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of `<name>.jsonl.gz`."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def file_hash(folder: Path, name: str) -> str:
    """Hex sha256 of a data file as it lies there."""
    return hashlib.sha256((folder / f"{name}.jsonl.gz").read_bytes()).hexdigest()


def labelled(folder: Path, name: str) -> list[Labelled]:
    """Pairs of titles with their label; of `qqp_train` only the rows that are safe to train on.

    Safe means drawn with both classes and sharing no question with a published evaluation pair.
    """
    kept = (
        row
        for row in rows(folder, name)
        if name != "qqp_train" or (row["natural"] and not row["shares_eval_question"])
    )
    return [
        Labelled(model_input(row["q1"]), model_input(row["q2"]), float(row["label"]))
        for row in kept
    ]


def unlabelled_pairs(folder: Path, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Pairs of texts that belong together in some way, labels left out; see `rows`."""
    pairs = [(p.first, p.second) for p in labelled(folder, "qqp_train")]
    other = [(p.first, p.second) for p in labelled(folder, "rqe_train")]
    other += [(p.first, p.second) for p in labelled(folder, "semeval_cqa_train_part1")]
    intents = ("banking77_train", "clinc150_train", "hwu64_train", "bitext_customer_support_train")
    for name in intents:
        texts = [model_input(row["text"]) for row in rows(folder, name)]
        other += list(zip(texts[::2], texts[1::2], strict=False))
    short = [p for p in other if len(p[0]) + len(p[1]) < 400]
    return rng.sample(pairs, count // 2) + rng.sample(short, count // 2)
