"""How the cross-encoder is fed: texts end to end in one row, nothing padded.

Only attention looks at single texts; all else works on the row as one matrix. In the last layer
nothing but the first token of each text is read, so nothing else is computed there.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn import LayerNorm, Linear, functional
from transformers import BertModel

TOKENS_PER_BATCH = 2_000
NATIVE = {"amx_bf16": "amx", "amx_tile": "amx", "avx512_bf16": "avx512_bf16"}

Weights = tuple[torch.Tensor, torch.Tensor]


def cut(lengths: Sequence[int], budget: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Row numbers, shortest first, cut so that their tokens stay within `budget`."""
    chosen: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if chosen and total + lengths[i] > budget:
            yield chosen
            chosen, total = [], 0
        chosen.append(i)
        total += lengths[i]
    if chosen:
        yield chosen


def bf16_by() -> str:
    """What this processor multiplies bf16 with; empty where it cannot do so itself."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return next((name for flag, name in NATIVE.items() if has.get(flag)), "")


def fastest_dtype() -> torch.dtype:
    """bf16 where the processor multiplies it itself, fp32 elsewhere."""
    return torch.bfloat16 if bf16_by() else torch.float32


class PackedBert:
    """A BERT without padding, for the first token's state; same numbers as transformers' own."""

    def __init__(self, bert: BertModel, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.heads: int = bert.config.num_attention_heads
        self.width: int = bert.config.hidden_size
        self.epsilon: float = bert.config.layer_norm_eps
        embeddings = bert.embeddings
        self.words = embeddings.word_embeddings.weight.detach()
        self.places = embeddings.position_embeddings.weight.detach()
        self.types = embeddings.token_type_embeddings.weight.detach()
        self.norm = self._take(embeddings.LayerNorm)
        self.layers = [self._layer(layer) for layer in bert.encoder.layer]

    @torch.inference_mode()
    def first_states(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """State of the first token of each text: (n, width). Texts of one length side by side."""
        lengths = torch.tensor([len(row) for row in ids])
        starts = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
        row = self.words[_flat(ids)] + self.places[places] + self.types[_flat(types)]
        row = self._normed(row.to(self.dtype), self.norm)
        groups = [(length, len(list(same))) for length, same in groupby(lengths.tolist())]
        *lower, last = self.layers
        for layer in lower:
            asked, known = functional.linear(row, *layer["reads"]).split(
                [self.width, 2 * self.width], 1
            )
            row = self._rest(row, self._attended(asked, known, groups, every=True), layer)
        weight, bias = last["reads"]
        known = functional.linear(row, weight[self.width :], bias[self.width :])
        row = row[starts]
        asked = functional.linear(row, weight[: self.width], bias[: self.width])
        return self._rest(row, self._attended(asked, known, groups, every=False), last)

    def _attended(
        self,
        asked: torch.Tensor,
        known: torch.Tensor,
        groups: Sequence[tuple[int, int]],
        *,
        every: bool,
    ) -> torch.Tensor:
        """Attention inside each text, for every token or for the first of each."""
        done, at, begun = [], 0, 0
        for length, count in groups:
            asking = length if every else 1
            rows, tokens = count * asking, count * length
            query = asked[at : at + rows].view(count, asking, self.heads, -1).transpose(1, 2)
            both = known[begun : begun + tokens].view(count, length, 2, self.heads, -1)
            key, value = both.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value)
            done.append(seen.transpose(1, 2).reshape(rows, self.width))
            at, begun = at + rows, begun + tokens
        return torch.cat(done)

    def _rest(
        self, row: torch.Tensor, seen: torch.Tensor, layer: dict[str, Weights]
    ) -> torch.Tensor:
        row = self._normed(row + functional.linear(seen, *layer["seen"]), layer["seen_norm"])
        wide = functional.gelu(functional.linear(row, *layer["wide"]))
        return self._normed(row + functional.linear(wide, *layer["narrow"]), layer["norm"])

    def _normed(self, row: torch.Tensor, norm: Weights) -> torch.Tensor:
        return functional.layer_norm(row, (self.width,), *norm, self.epsilon)

    def _take(self, *modules: Linear | LayerNorm) -> Weights:
        weight = torch.cat([module.weight.detach() for module in modules])
        bias = torch.cat([module.bias.detach() for module in modules])
        return weight.to(self.dtype), bias.to(self.dtype)

    def _layer(self, layer: Any) -> dict[str, Weights]:
        reads, seen = layer.attention.self, layer.attention.output
        return {
            "reads": self._take(reads.query, reads.key, reads.value),
            "seen": self._take(seen.dense),
            "seen_norm": self._take(seen.LayerNorm),
            "wide": self._take(layer.intermediate.dense),
            "narrow": self._take(layer.output.dense),
            "norm": self._take(layer.output.LayerNorm),
        }


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.tensor([number for row in rows for number in row])
