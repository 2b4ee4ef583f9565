"""Tiny networks and data folders: quick to make, the same shapes as the real ones."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from dedup.ml.artifact import hash_files
from dedup.ml.biencoder import BiEncoder
from dedup.ml.building import golden_pairs
from dedup.ml.calibration import Calibration
from dedup.ml.crossencoder import CrossEncoder

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]",
    "how", "do", "i", "open", "close", "a", "door", "window", "car", "shop", "bill", "pay", "the",
    "in", "my", "new", "old", "red", "blue", "1", "2", "3",
]  # fmt: skip
INTENTS = ("banking77_train", "clinc150_train", "hwu64_train")


def write_tokenizer(folder):
    ids = {word: i for i, word in enumerate(WORDS)}
    plain = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip


def write_base(folder: Path, seed: int = 1) -> Path:
    """A one-layer BERT with a head; loads as bi-encoder, base, teacher or cross-encoder."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 1,
        "max_position_embeddings": 64,
    }  # fmt: skip
    BertForSequenceClassification(BertConfig(**shape)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_rows(folder: Path, name: str, rows) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def write_data(folder: Path) -> Path:
    """A data folder with a few rows in each file that a mixture reads."""
    folder.mkdir(parents=True, exist_ok=True)
    things = ["door", "window", "car", "shop", "bill"]
    asks = [f"how do i {verb} the {thing}" for verb in ("open", "close") for thing in things]
    write_rows(folder, "qqp_train", [
        {"q1": a, "q2": b, "label": int(a[:13] == b[:13]), "natural": n % 3 != 0,
         "shares_eval_question": n % 5 == 4}
        for n, (a, b) in enumerate((a, b) for a in asks for b in asks if a < b)
    ])  # fmt: skip
    write_rows(folder, "rqe_train", [
        {"q1": f"pay my {a}", "q2": f"my {a} bill 1", "label": 1} for a in things
    ])  # fmt: skip
    write_rows(folder, "semeval_cqa_train_part1", [
        {"q_title": f"new {a}", "q_body": "in my shop", "c_title": f"old {a}", "c_body": "blue",
         "label": 1, "qid": a, "cid": a, "rank": 1}
        for a in things
    ])  # fmt: skip
    write_rows(folder, "stackexchange_questions", [
        {"title": f"red {a} {n}", "body": "how do i pay"} for a in things for n in (1, 2, 3)
    ])  # fmt: skip
    for name in INTENTS:
        write_rows(folder, name, [{"text": f"{a} in my shop", "intent": a} for a in things])
    return folder


def write_parent(folder: Path, seed: int = 1) -> Path:
    """A whole release of tiny networks that proves its golden pairs."""
    for number, part in enumerate(("bi-encoder", "cross-encoder")):
        write_base(folder / part, seed + number)
    calibration = Calibration(-5.0, 1.0, 8.0, 0.02, low=0.42, high=0.72)
    bi, cross = BiEncoder(folder / "bi-encoder"), CrossEncoder(folder / "cross-encoder")
    raw = {
        "name": folder.name, "created_at": "2026-01-01", "base": "tiny", "recipe": {}, "data": {},
        "languages": ["en", "de"], "licences": {"base": "ours"}, "metrics": {},
        "calibration": {"coefficients": asdict(calibration)},
        "thresholds": {
            name: {"probability": at, "chosen": {"wanted_precision": at}}
            for name, at in {"flag": 0.5, "suggest": 0.1, "sure": 0.9}.items()
        },
        "golden": golden_pairs(bi, cross, calibration),
    }  # fmt: skip
    raw["files"] = hash_files(folder)
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder
