"""Labelled and unlabelled rows of a data folder -> model inputs."""

import gzip
import hashlib
import json
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


def labelled(folder: Path, name: str, kind: str = "natural") -> list[Labelled]:
    """Pairs of titles with their label; of `qqp_train` only the rows that are safe to train on.

    Safe means sharing no question with a published evaluation pair; `kind` tells the rows that
    were drawn with both classes ("natural") from those that are duplicates only ("mates").
    """
    kept = (
        row
        for row in rows(folder, name)
        if name != "qqp_train"
        or (row["natural"] == (kind == "natural") and not row["shares_eval_question"])
    )
    return [
        Labelled(model_input(row["q1"]), model_input(row["q2"]), float(row["label"]))
        for row in kept
    ]


def forum_rows(folder: Path, name: str) -> list[Labelled]:
    """Forum questions with their bodies, in the order of the file."""
    return [
        Labelled(
            model_input(row["q_title"], row["q_body"]),
            model_input(row["c_title"], row["c_body"]),
            float(row["label"]),
        )
        for row in rows(folder, name)
    ]
