"""Both texts -> one raw score (BERT with a one-logit head: Devlin et al. 2019)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from dedup.ml.packing import PackedBert, cut, fastest_dtype
from dedup.ml.pairs import Pair

MAX_TOKENS = 256


class CrossEncoder:
    """The network that reads a pair jointly.

    The two texts go in sorted by code point, so the order of a pair cannot matter.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or fastest_dtype()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.network.eval()
        if any(not torch.isfinite(w).all() for w in self.network.parameters()):
            raise FloatingPointError("the cross-encoder has a weight that is not finite")
        self.packed = PackedBert(self.network.bert, self.dtype)

    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Raw logits, (n,) float64. Raises FloatingPointError where one is not finite."""
        logits = np.zeros(len(pairs))
        if not pairs:
            return logits
        ids, types = self._encode(pairs)
        for chosen in cut([len(row) for row in ids]):
            states = self.packed.first_states([ids[i] for i in chosen], [types[i] for i in chosen])
            with torch.inference_mode():
                pooled = torch.tanh(self.network.bert.pooler.dense(states.float()))
                logits[chosen] = self.network.classifier(pooled)[:, 0].double().numpy()
        return _finite(logits)

    def reference_scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The same one pair at a time in plain fp32 transformers: what `scores` is held to."""
        with torch.inference_mode():
            each = [
                self.network(**self.tokenizer(
                    *sorted([p.older, p.newer]), truncation=True, max_length=MAX_TOKENS,
                    return_tensors="pt",
                )).logits.item()
                for p in pairs
            ]  # fmt: skip
        return _finite(np.asarray(each))

    def _encode(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        ordered = [sorted([p.older, p.newer]) for p in pairs]
        encoded = self.tokenizer(
            [o[0] for o in ordered], [o[1] for o in ordered],
            truncation=True, max_length=MAX_TOKENS,
        )  # fmt: skip
        return encoded["input_ids"], encoded["token_type_ids"]


def _finite(logits: np.ndarray) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise FloatingPointError("the cross-encoder gave a score that is not finite")
    return logits
