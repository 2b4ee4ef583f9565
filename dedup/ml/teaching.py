"""A larger bi-encoder as teacher: what it knows of strangers' texts beyond the base.

Where no label speaks of a pair, the cross-encoder learns the difference between the teacher's
similarity and the base's (distillation: Hinton et al. 2015), so that what is read jointly is worth
more than the base's cosine on texts of other kinds too.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

log = logging.getLogger(__name__)

MAX_TOKENS = 128
TOKENS_PER_BATCH = 2_000


class Teacher:
    """Any mean-pooling bi-encoder in Hugging Face format; keeps in `memory` what it embedded."""

    def __init__(self, folder: Path, memory: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        ).eval()
        self.memory = memory
        self.known: dict[str, np.ndarray] = {}
        if memory.exists():
            with np.load(memory, allow_pickle=False) as kept:
                self.known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length up to fp16."""
        keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in self.known}
        if missing:
            log.info("the teacher reads %d texts", len(missing))
            self._read(list(missing), list(missing.values()))
            np.savez(
                self.memory, keys=np.asarray(list(self.known)),
                vectors=np.stack(list(self.known.values())),
            )  # fmt: skip
        return np.stack([self.known[key] for key in keys]).astype(np.float32)

    def _read(self, keys: list[str], texts: list[str]) -> None:
        ids = self.tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        chosen: list[int] = []
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for n, i in enumerate(order, 1):
            chosen.append(i)
            is_last = n == len(order)
            if is_last or (len(chosen) + 1) * len(ids[order[n]]) > TOKENS_PER_BATCH:
                for at, vector in zip(chosen, self._pool([ids[j] for j in chosen]), strict=True):
                    self.known[keys[at]] = vector
                chosen = []

    @torch.inference_mode()
    def _pool(self, ids: list[list[int]]) -> np.ndarray:
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.network(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy().astype(np.float16)


def brought_to(cosines: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The teacher's cosines with mean and spread of the base's over the same pairs."""
    spread = base.std() / max(float(cosines.std()), 1e-6)
    return np.asarray((cosines - cosines.mean()) * spread + base.mean())
