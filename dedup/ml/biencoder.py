"""One text -> unit vector, by mean pooling (Sentence-BERT: Reimers and Gurevych 2019)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

from dedup.ml.alignment import ReadText
from dedup.ml.packing import PackedBert, cut, fastest_device
from dedup.ml.pairs import Pair
from dedup.ml.words import WORD

MAX_TOKENS = 256
PAIRS_AT_ONCE = 10_000  # whose vectors are held twice, in float64


class BiEncoder:
    """The network that embeds; in fp32 where vectors are stored and compared for long."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.model_max_length = MAX_TOKENS
        network = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
        if any(not torch.isfinite(w).all() for w in network.parameters()):
            raise FloatingPointError("the bi-encoder has a weight that is not finite")
        self.dimensions: int = network.config.hidden_size
        self.packed = PackedBert(network, dtype, fastest_device())
        # Words are told apart best two thirds of the way up (measured; as in SimAlign for BERT).
        self.word_layers = round(len(self.packed.layers) * 2 / 3)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of model inputs: (n, dimensions) float32, unit length."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        ids = self.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        for chosen in cut([len(row) for row in ids]):
            mean = self.packed.mean_states([ids[i] for i in chosen]).float()
            vectors[chosen] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the bi-encoder gave a vector that is not finite")
        return vectors

    def read(self, texts: Sequence[str]) -> list[ReadText]:
        """The words of each text with their vectors; what is cut off has none."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=MAX_TOKENS, return_offsets_mapping=True
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        read: dict[int, ReadText] = {}
        for chosen in cut([len(row) for row in ids]):
            states = self.packed.token_states([ids[i] for i in chosen], self.word_layers)
            for i, state in zip(chosen, states, strict=True):
                read[i] = _words(texts[i], offsets[i], state.float().cpu().numpy())
        return [read[i] for i in range(len(texts))]


def _words(text: str, offsets: Sequence[tuple[int, int]], states: np.ndarray) -> ReadText:
    """A word's vector is the mean of its pieces' states. Raises FloatingPointError."""
    starts, ends = np.asarray(offsets).T
    words, vectors = [], []
    for match in WORD.finditer(text):
        pieces = (starts < match.end()) & (ends > match.start())
        if pieces.any():
            mean = states[pieces].mean(0)
            words.append(match.group())
            vectors.append(mean / np.linalg.norm(mean))
    stacked = np.stack(vectors) if vectors else np.zeros((0, states.shape[1]), dtype=np.float32)
    if not np.isfinite(stacked).all():
        raise FloatingPointError("the bi-encoder gave a word a vector that is not finite")
    return ReadText(words, stacked)


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
