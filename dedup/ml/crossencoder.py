"""Both texts -> one raw score (BERT with a one-logit head: Devlin et al. 2019)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml.packing import PackedBert, cut, fastest_device, fastest_dtype
from dedup.ml.pairs import Pair

MAX_TOKENS = 256


class CrossEncoder:
    """The network that reads a pair jointly.

    The two texts go in sorted by code point, so the order of a pair cannot matter.
    """

    max_tokens = MAX_TOKENS

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or fastest_dtype()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.network.eval()
        if any(not torch.isfinite(w).all() for w in self.network.parameters()):
            raise FloatingPointError("the cross-encoder has a weight that is not finite")
        self.device = fastest_device()
        self.packed = PackedBert(self.network.bert, self.dtype, self.device)

    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, (n,) float64. Raises FloatingPointError where one is not finite."""
        logits = np.zeros(len(pairs))
        if not pairs:
            return logits
        ids, types = self.encode(pairs)
        for chosen in cut([len(row) for row in ids]):
            states = self.packed.first_states([ids[i] for i in chosen], [types[i] for i in chosen])
            with torch.inference_mode():
                pooled = torch.tanh(self.network.bert.pooler.dense(states.float().cpu()))
                logits[chosen] = self.network.classifier(pooled)[:, 0].double().numpy()
        return _finite(logits)

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
