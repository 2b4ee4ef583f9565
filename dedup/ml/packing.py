"""How the networks are fed: texts end to end in one row, nothing padded.

Only attention looks at single texts; all else works on the row as one matrix. Where nothing but
the first token of each text is read, nothing else is computed in the last layer.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn import LayerNorm, Linear, functional
from transformers import BertModel

log = logging.getLogger(__name__)

TOKENS_PER_BATCH = 2_000
NATIVE = {"amx_bf16": "amx", "amx_tile": "amx", "avx512_bf16": "avx512_bf16"}

Weights = tuple[torch.Tensor, torch.Tensor]
Product = Callable[[torch.Tensor], torch.Tensor]


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
    """What this processor multiplies bf16 with; empty where it cannot, or is held to less."""
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # perhaps by ATEN_CPU_CAPABILITY
        return ""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return next((name for flag, name in NATIVE.items() if has.get(flag)), "")


def fastest_device() -> torch.device:
    """A CUDA card where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fastest_dtype() -> torch.dtype:
    """bf16 where the card or the processor multiplies it itself, fp32 elsewhere."""
    if fastest_device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if bf16_by() else torch.float32


class PackedBert:
    """A BERT without padding; same numbers as transformers' own.

    Products take `dtype`; between them the row stays in fp32. That costs a twentieth of the time in
    bf16, and takes a third off the largest difference.
    """

    def __init__(
        self, bert: BertModel, dtype: torch.dtype, device: torch.device | None = None
    ) -> None:
        self.dtype = dtype
        self.device = device or torch.device("cpu")
        self.heads: int = bert.config.num_attention_heads
        self.width: int = bert.config.hidden_size
        self.epsilon: float = bert.config.layer_norm_eps
        embeddings = bert.embeddings
        self.words = embeddings.word_embeddings.weight.detach().to(self.device)
        self.places = embeddings.position_embeddings.weight.detach().to(self.device)
        self.types = embeddings.token_type_embeddings.weight.detach().to(self.device)
        self.norm = self._take(embeddings.LayerNorm)
        self.layers = [self._layer(layer) for layer in bert.encoder.layer]
        last = bert.encoder.layer[-1].attention.self
        self.asked = self._product(last.query)
        self.known = self._product(last.key, last.value)

    @torch.inference_mode()
    def first_states(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """State of the first token of each text: (n, width). Texts of one length side by side."""
        row, lengths = self._begun(ids, _flat(types))
        *lower, last = self.layers
        groups = _groups(lengths)
        for layer in lower:
            row = self._through(row, layer, groups)
        known = self.known(row.to(self.dtype))
        row = row[(lengths.cumsum(0) - lengths).to(self.device)]
        asked = self.asked(row.to(self.dtype))
        return self._rest(row, self._attended(asked, known, groups, every=False), last)

    @torch.inference_mode()
    def mean_states(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Mean of each text's token states: (n, width). Texts of one length side by side."""
        row, groups = self._states(ids, len(self.layers))
        return torch.cat(
            [
                part.view(count, length, self.width).mean(1)
                for part, (length, count) in zip(
                    row.split([length * count for length, count in groups]), groups, strict=True
                )
            ]
        )

    @torch.inference_mode()
    def token_states(self, ids: Sequence[Sequence[int]], layers: int) -> list[torch.Tensor]:
        """Each text's token states behind so many layers: (length, width)."""
        row, _ = self._states(ids, layers)
        return list(row.split([len(text) for text in ids]))

    def _states(
        self, ids: Sequence[Sequence[int]], layers: int
    ) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """The row behind so many layers, and which of its texts are of one length."""
        row, lengths = self._begun(ids, torch.zeros(sum(map(len, ids)), dtype=torch.long))
        groups = _groups(lengths)
        for layer in self.layers[:layers]:
            row = self._through(row, layer, groups)
        return row, groups

    def _begun(
        self, ids: Sequence[Sequence[int]], types: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The row as the first layer gets it, and how long each text in it is."""
        lengths = torch.tensor([len(row) for row in ids])
        starts = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
        numbers = (_flat(ids), places, types)
        words, at, kinds = (each.to(self.device) for each in numbers)
        row = self.words[words] + self.places[at] + self.types[kinds]
        return self._normed(row, self.norm), lengths

    def _through(
        self, row: torch.Tensor, layer: dict[str, Any], groups: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        asked, known = layer["reads"](row.to(self.dtype)).split([self.width, 2 * self.width], 1)
        return self._rest(row, self._attended(asked, known, groups, every=True), layer)

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
            seen = self._seen(query, both.permute(2, 0, 3, 1, 4))
            done.append(seen.transpose(1, 2).reshape(rows, self.width))
            at, begun = at + rows, begun + tokens
        return torch.cat(done)

    def _seen(self, query: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
        """What each of `query` (texts, heads, tokens, depth) takes of keys and values."""
        key, value = both
        if self.dtype != torch.bfloat16 or self.device.type != "cpu":
            return functional.scaled_dot_product_attention(query, key, value)
        # torch's own kernel takes half as long again in bf16, where the processor has no AMX
        texts, heads, asking, depth = query.shape
        query, key, value = (each.reshape(texts * heads, -1, depth) for each in (query, key, value))
        likeness = torch.bmm(query * depth**-0.5, key.transpose(1, 2))
        return torch.bmm(likeness.softmax(-1), value).view(texts, heads, asking, depth)

    def _rest(self, row: torch.Tensor, seen: torch.Tensor, layer: dict[str, Any]) -> torch.Tensor:
        row = self._normed(row + layer["seen"](seen), layer["seen_norm"])
        wide = layer["wide"](row.to(self.dtype))
        return self._normed(row + layer["narrow"](wide), layer["norm"])

    def _normed(self, row: torch.Tensor, norm: Weights) -> torch.Tensor:
        return functional.layer_norm(row, (self.width,), *norm, self.epsilon)

    def _take(self, *modules: Linear | LayerNorm) -> Weights:
        weight = torch.cat([module.weight.detach() for module in modules])
        bias = torch.cat([module.bias.detach() for module in modules])
        return weight.to(self.device), bias.to(self.device)

    def _product(self, *modules: Linear, gelu: bool = False) -> Product:
        weight, bias = self._take(*modules)
        return product(weight.to(self.dtype), bias.to(self.dtype), gelu=gelu)

    def _layer(self, layer: Any) -> dict[str, Any]:
        reads, seen = layer.attention.self, layer.attention.output
        return {
            "reads": self._product(reads.query, reads.key, reads.value),
            "seen": self._product(seen.dense),
            "seen_norm": self._take(seen.LayerNorm),
            "wide": self._product(layer.intermediate.dense, gelu=True),
            "narrow": self._product(layer.output.dense),
            "norm": self._take(layer.output.LayerNorm),
        }


def product(weight: torch.Tensor, bias: torch.Tensor, *, gelu: bool = False) -> Product:
    """row -> row @ weight.T + bias, with GELU after it or not.

    On a processor the weight is laid out for oneDNN once, by operations that torch's own compiler
    uses: a fifth faster in bf16; in fp32 twice as fast where the processor is not Intel's, since
    torch multiplies fp32 with MKL.
    """

    def plain(row: torch.Tensor) -> torch.Tensor:
        made = functional.linear(row, weight, bias)
        return functional.gelu(made) if gelu else made

    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return plain
    try:
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TOKENS_PER_BATCH)
    except (AttributeError, RuntimeError) as error:
        log.warning("weights are used as they are: %s", error)
        return plain
    after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def packed(row: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(row, laid, bias, *after)
        return made

    return packed


def _groups(lengths: torch.Tensor) -> list[tuple[int, int]]:
    """Each length and how many texts side by side have it."""
    return [(length, len(list(same))) for length, same in groupby(lengths.tolist())]


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.tensor([number for row in rows for number in row])
