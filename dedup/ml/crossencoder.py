"""Both texts -> one raw score (BERT with a one-logit head: Devlin et al. 2019)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedModel,
)

from dedup.ml.packing import TOKENS_PER_BATCH, PackedBert, cut, fastest_device, fastest_dtype
from dedup.ml.pairs import Pair

MAX_TOKENS = 256


class CrossEncoder:
    """The network that reads a pair jointly.

    The two texts go in sorted by code point, so the order of a pair cannot matter. A BERT is packed
    and runs in the fastest precision there is; any other runs as transformers run it, in fp32.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Raises ValueError where the network gives more than one logit, FloatingPointError where
        a weight is not finite, OSError where there are no safetensors."""
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.max_tokens = min(MAX_TOKENS, self.tokenizer.model_max_length)
        self.network = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        ).eval()
        if self.network.config.num_labels != 1:
            raise ValueError(f"it gives {self.network.config.num_labels} logits, not one")
        if any(not torch.isfinite(w).all() for w in self.network.parameters()):
            raise FloatingPointError("the cross-encoder has a weight that is not finite")
        self.tokens_per_batch = TOKENS_PER_BATCH
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.packed: PackedBert | None = None
        if is_packable(self.network):
            self.device, self.dtype = fastest_device(), dtype or fastest_dtype()
            self.packed = PackedBert(self.network.bert, self.dtype, self.device)

    @torch.inference_mode()
    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, (n,) float64. Raises FloatingPointError where one is not finite."""
        if not pairs:
            return np.zeros(0)
        return _finite(self._packed(self.packed, pairs) if self.packed else self._padded(pairs))

    def _packed(self, packed: PackedBert, pairs: Sequence[Pair]) -> np.ndarray:
        logits = np.zeros(len(pairs))
        ids, types = self.encode(pairs)
        for chosen in cut([len(row) for row in ids], self.tokens_per_batch):
            states = packed.first_states([ids[i] for i in chosen], [types[i] for i in chosen])
            pooled = torch.tanh(self.network.bert.pooler.dense(states.float().cpu()))
            logits[chosen] = self.network.classifier(pooled)[:, 0].double().numpy()
        return logits

    def _padded(self, pairs: Sequence[Pair]) -> np.ndarray:
        logits = np.zeros(len(pairs))
        ordered = [sorted([p.older, p.newer]) for p in pairs]
        read = self.tokenizer(
            [one for one, _ in ordered], [other for _, other in ordered],
            truncation=True, max_length=self.max_tokens,
        )  # fmt: skip
        for chosen in cut([len(row) for row in read["input_ids"]]):
            batch = self.tokenizer.pad(
                {key: [read[key][i] for i in chosen] for key in read}, return_tensors="pt"
            )
            logits[chosen] = self.network(**batch).logits[:, 0].double().numpy()
        return logits

    def reference_scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The same one pair at a time in plain fp32 transformers: what `scores` is held to."""
        with torch.inference_mode():
            each = [
                self.network(**self.tokenizer(
                    *sorted([p.older, p.newer]), truncation=True, max_length=self.max_tokens,
                    return_tensors="pt",
                )).logits.item()
                for p in pairs
            ]  # fmt: skip
        return _finite(np.asarray(each))

    def encode(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids and segments of each pair; every distinct text is tokenised once.

        The same as the tokenizer gives for the pair, cut from the longer text first.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.older, pair.newer)))
        read = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        known = dict(zip(texts, read["input_ids"], strict=True)) if texts else {}
        begin, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids, types = [], []
        for pair in pairs:
            first, second = (known[text] for text in sorted([pair.older, pair.newer]))
            one, other = kept_tokens(len(first), len(second), self.max_tokens - 3)
            ids.append([begin, *first[:one], end, *second[:other], end])
            types.append([0] * (one + 2) + [1] * (other + 1))
        return ids, types


def is_packable(network: PreTrainedModel) -> bool:
    """Whether it is a BERT as `PackedBert` knows it."""
    return (
        isinstance(network, BertForSequenceClassification) and network.config.hidden_act == "gelu"
    )


def kept_tokens(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept within `room`: the longer one is cut first."""
    if first + second <= room:
        return first, second
    short = min(first, second)
    if 2 * short > room:
        half = room // 2
        return (half, room - half) if first <= second else (room - half, half)
    return (short, room - short) if first <= second else (room - short, short)


def _finite(logits: np.ndarray) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise FloatingPointError("the cross-encoder gave a score that is not finite")
    return logits
