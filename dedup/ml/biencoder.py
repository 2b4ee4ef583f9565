"""One text -> unit vector, by mean pooling (Sentence-BERT: Reimers and Gurevych 2019)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

from dedup.ml.pairs import Pair

MAX_TOKENS = 256
TOKENS_PER_BATCH = 4_000
PAIRS_AT_ONCE = 10_000  # whose vectors are held twice, in float64


class BiEncoder:
    """The network that embeds; always fp32, since vectors are stored and compared for long."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.model_max_length = MAX_TOKENS
        self.network = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
        if any(not torch.isfinite(w).all() for w in self.network.parameters()):
            raise FloatingPointError("the bi-encoder has a weight that is not finite")
        self.dimensions: int = self.network.config.hidden_size

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        ids = self.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        while order:
            size = max(1, TOKENS_PER_BATCH // len(ids[order[0]]))
            while size > 1 and size * len(ids[order[min(size, len(order)) - 1]]) > TOKENS_PER_BATCH:
                size -= 1
            chosen, order = order[:size], order[size:]
            vectors[chosen] = self._pool([ids[i] for i in chosen])
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the bi-encoder gave a vector that is not finite")
        return vectors

    def _pool(self, ids: list[list[int]]) -> np.ndarray:
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.network(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy()


def pair_cosines(embed: Callable[[Sequence[str]], np.ndarray], pairs: Sequence[Pair]) -> np.ndarray:
    """Cosine of each pair, (n,) float64; each distinct text is embedded once."""
    texts = sorted({text for pair in pairs for text in (pair.older, pair.newer)})
    at = {text: i for i, text in enumerate(texts)}
    vectors = embed(texts)
    cosines = [
        np.einsum(
            "ij,ij->i",
            vectors[[at[p.older] for p in part]].astype(np.float64),
            vectors[[at[p.newer] for p in part]].astype(np.float64),
        )
        for part in (pairs[i : i + PAIRS_AT_ONCE] for i in range(0, len(pairs), PAIRS_AT_ONCE))
    ]
    return np.concatenate(cosines) if cosines else np.zeros(0)
